import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { Provider } from './hooks';
import { List } from './list';
import { place } from './todos';

createRoot(document.getElementById('app')!).render(
  <StrictMode>
    <Provider {...place}>
      <List />
    </Provider>
  </StrictMode>,
);
