/**
 * The script of both workers. One file for both, since they have much in common: in windows
 * without files the core serves the store itself.
 */

import { runCore } from './core.js';
import { runPageServer } from './page-server.js';

if ('onconnect' in self) runCore();
else runPageServer();
