import '../../shared/base.css';
import './style.css';
import { keepPageForOffline } from '../../shared/offline.ts';
import { App } from './app.ts';

new App(document.body);
keepPageForOffline();
