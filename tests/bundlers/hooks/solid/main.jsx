import { render } from 'solid-js/web';
import { Provider } from './hooks.js';
import { List } from './list.jsx';

render(
  () => (
    <Provider of={{ document: 'of solid' }}>
      <List />
    </Provider>
  ),
  document.getElementById('app'),
);
