// Runs one measure in the only kind of worker that can open files.

import init from '/bench-storage/bench_storage.js';
import { removeAll } from './files.mjs';
import * as port from './port.mjs';
import * as store from './store.mjs';

const MEASURES = { ...store, ...port };

addEventListener('message', async ({ data: { name, quick } }) => {
  try {
    await init();
    await removeAll();
    postMessage({ rows: await MEASURES[name](quick ? 0.2 : 1) });
  } catch (error) {
    postMessage({ error: `${error}\n${error?.stack}` });
  }
});
