// The systems that only need a worker: the peers, and the limit.

import { peer } from './peer.mjs';

const BEST_PRAGMAS = ['locking_mode=exclusive', 'journal_mode=wal', 'synchronous=full'];

const sqliteWasm = (pragmas) => () => {
  const proxy = peer(
    new Worker(new URL('./sqlite-wasm.worker.mjs', import.meta.url), { type: 'module' }),
  );
  return { ...proxy, open: (name) => proxy.open(name, { pragmas }) };
};

export const systems = {
  limit: () => peer(new Worker(new URL('./raw.worker.mjs', import.meta.url), { type: 'module' })),
  'sqlite-wasm': sqliteWasm([]),
  'sqlite-wasm-wal': sqliteWasm(BEST_PRAGMAS),
  'wa-sqlite': () =>
    peer(new Worker(new URL('./wa-sqlite.worker.mjs', import.meta.url), { type: 'module' })),
};
