// The systems that are no Tidelog.

import { bareWay } from './bare/way.mjs';
import { peer } from './peer.mjs';

const ALONE = ['locking_mode=exclusive', 'journal_mode=wal', 'synchronous=full'];
const FULL = ['synchronous=full'];

const bareWrite = () =>
  peer(new Worker(new URL('./bare/write.worker.mjs', import.meta.url), { type: 'module' }));

const sqliteWasm = (vfs, pragmas) => () =>
  peer(new Worker(new URL('./sqlite-wasm.worker.mjs', import.meta.url), { type: 'module' }), {
    vfs,
    pragmas,
  });

const waSqlite = (vfs, pragmas) => () =>
  peer(new Worker(new URL('./wa-sqlite.worker.mjs', import.meta.url), { type: 'module' }), {
    vfs,
    pragmas,
  });

export const systems = {
  'bare-write': bareWrite,
  'bare-way': bareWay,
  'sqlite-wasm': sqliteWasm('opfs-sahpool', FULL),
  'sqlite-wasm-wal': sqliteWasm('opfs-sahpool', ALONE),
  'sqlite-wasm-opfs': sqliteWasm('opfs', FULL),
  'sqlite-wasm-locks': sqliteWasm('opfs-wl', FULL),
  'wa-sqlite': waSqlite('pool', FULL),
  'wa-sqlite-wal': waSqlite('pool', ALONE),
  'wa-sqlite-coop': waSqlite('coop', FULL),
  'wa-sqlite-ahead': waSqlite('ahead', FULL),
};
