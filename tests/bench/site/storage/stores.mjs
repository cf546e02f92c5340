// Stores of some size.

import { Store } from '/bench-storage/bench_storage.js';
import { openStoreFiles } from './files.mjs';

/** So much log that no change-over is due. */
export const NO_END = 2 ** 40;
/** `STORE_POOL_PAGES_MAX` of crate `types`. */
export const POOL_PAGES = 1024;

export const openStore = async (logSize, poolPages = POOL_PAGES) =>
  new Store(...(await openStoreFiles()), logSize, poolPages);

/** One that has changed over as often as it takes for both log files to be as long as they get. */
export async function openUsedStore(logSize) {
  const store = await openStore(logSize);
  for (let nth = 0; nth < 2; nth += 1) {
    store.fillLog(logSize);
    while (store.poll());
  }
  return store;
}

/** Bytes of log that a commit takes, after the first. */
export function sizeOfCommit(store, owners, calls = 1) {
  let before;
  for (let nth = 0; nth < 2; nth += 1) {
    before = store.logSize();
    store.prepare(owners, calls);
    store.commit();
  }
  return store.logSize() - before;
}
