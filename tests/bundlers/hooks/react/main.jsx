import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { Provider } from './hooks.js';
import { List } from './list.jsx';

createRoot(document.getElementById('app')).render(
  <StrictMode>
    <Provider document="of react">
      <List />
    </Provider>
  </StrictMode>,
);
