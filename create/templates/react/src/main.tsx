import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { List, Provider } from './list';
import { place } from './todos';

createRoot(document.getElementById('app')!).render(
  <StrictMode>
    <Provider {...place}>
      <List />
    </Provider>
  </StrictMode>,
);
