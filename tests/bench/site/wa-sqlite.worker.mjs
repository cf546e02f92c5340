// wa-sqlite on one of its file systems.

import * as SQLite from '@journeyapps/wa-sqlite';
import factory from '@journeyapps/wa-sqlite/dist/wa-sqlite.mjs';
import wasm from '@journeyapps/wa-sqlite/dist/wa-sqlite.wasm?url';
import { AccessHandlePoolVFS } from '@journeyapps/wa-sqlite/src/examples/AccessHandlePoolVFS.js';
import { OPFSCoopSyncVFS } from '@journeyapps/wa-sqlite/src/examples/OPFSCoopSyncVFS.js';
import { OPFSWriteAheadVFS } from '@journeyapps/wa-sqlite/src/examples/OPFSWriteAheadVFS.js';
import { serve } from './peer.mjs';
import { inOrder, MUTATIONS, QUERIES, schema } from './sql.mjs';

const SQL = { ...MUTATIONS, ...QUERIES };
const FILE_SYSTEMS = {
  pool: AccessHandlePoolVFS,
  coop: OPFSCoopSyncVFS,
  ahead: OPFSWriteAheadVFS,
};
const prepared = {};
let sqlite3;

/** Steps through a prepared statement. */
async function rows(name, values) {
  const statement = prepared[name];
  sqlite3.bind_collection(statement, inOrder(SQL[name], values));
  const found = [];
  while ((await sqlite3.step(statement)) === SQLite.SQLITE_ROW) {
    const [id, title, done] = sqlite3.row(statement);
    found.push({ id, title, done });
  }
  await sqlite3.reset(statement);
  return found;
}

serve({
  async open(name, { vfs, pragmas, isText }) {
    const module = await factory({ locateFile: () => wasm });
    sqlite3 = SQLite.Factory(module);
    sqlite3.vfs_register(await FILE_SYSTEMS[vfs].create(`/wa-sqlite-${name}`, module), true);
    const db = await sqlite3.open_v2(name);
    for (const pragma of pragmas) await sqlite3.exec(db, `pragma ${pragma}`);
    await sqlite3.exec(db, schema(isText).replace('table', 'table if not exists'));
    for (const [key, sql] of Object.entries(SQL)) {
      for await (const statement of sqlite3.statements(db, sql, { unscoped: true })) {
        prepared[key] = statement;
      }
    }
  },
  async run(name, values) {
    await rows(name, values);
  },
  rows,
});
