import '../../shared/base.css';
import './style.css';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { nameFromAddress, serverFromAddress } from '../../shared/address.ts';
import { keepPageForOffline } from '../../shared/offline.ts';
import { Board } from './board.tsx';
import { Provider } from './doctype.ts';

const name = nameFromAddress('board', 'home');

// One origin may hold documents of several apps, so a board's document says whose it is.
createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <Provider document={`boards/${name}`} server={serverFromAddress()}>
      <Board name={name} />
    </Provider>
  </StrictMode>,
);
keepPageForOffline();
