// wa-sqlite on its pool of OPFS access handles.

import * as SQLite from '@journeyapps/wa-sqlite';
import factory from '@journeyapps/wa-sqlite/dist/wa-sqlite.mjs';
import wasm from '@journeyapps/wa-sqlite/dist/wa-sqlite.wasm?url';
import { AccessHandlePoolVFS } from '@journeyapps/wa-sqlite/src/examples/AccessHandlePoolVFS.js';
import { serve } from './peer.mjs';
import { FIRST, INSERT, INSERT_MANY, SELECT, TABLE } from './sql.mjs';

let sqlite3;
let statements;

async function run(name, ...values) {
  const statement = statements[name];
  sqlite3.bind_collection(statement, values);
  let row = null;
  if ((await sqlite3.step(statement)) === SQLite.SQLITE_ROW) {
    const [id, title, done] = sqlite3.row(statement);
    row = { id, title, done };
  }
  await sqlite3.reset(statement);
  return row;
}

serve({
  async open(name) {
    const module = await factory({ locateFile: () => wasm });
    sqlite3 = SQLite.Factory(module);
    sqlite3.vfs_register(await AccessHandlePoolVFS.create(`/wa-sqlite-${name}`, module), true);
    const db = await sqlite3.open_v2(name);
    await sqlite3.exec(db, TABLE);
    const prepared = { insert: INSERT, insertMany: INSERT_MANY, select: SELECT, first: FIRST };
    statements = {};
    for (const [key, sql] of Object.entries(prepared)) {
      for await (const statement of sqlite3.statements(db, sql, { unscoped: true })) {
        statements[key] = statement;
      }
    }
  },
  insert: (id, title) => run('insert', id, title),
  insertMany: (rows) => run('insertMany', rows),
  select: (id) => run('select', id),
  first: () => run('first'),
});
