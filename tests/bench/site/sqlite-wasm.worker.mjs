// SQLite's own WebAssembly build, on its pool of OPFS access handles.

import sqlite3InitModule from '@sqlite.org/sqlite-wasm';
import { serve } from './peer.mjs';
import { FIRST, INSERT, INSERT_MANY, SELECT, TABLE } from './sql.mjs';

let statements;

/** Runs a prepared statement, and takes its first row. */
function run(name, ...values) {
  const statement = statements[name];
  values.forEach((value, index) => {
    statement.bind(index + 1, value);
  });
  const row = statement.step() ? statement.get({}) : null;
  statement.reset();
  return row;
}

serve({
  async open(name, { pragmas }) {
    const sqlite3 = await sqlite3InitModule();
    const pool = await sqlite3.installOpfsSAHPoolVfs({ directory: `/sahpool-${name}` });
    const db = new pool.OpfsSAHPoolDb(`/${name}`);
    for (const pragma of pragmas) db.exec(`pragma ${pragma}`);
    db.exec(TABLE);
    const prepared = { insert: INSERT, insertMany: INSERT_MANY, select: SELECT, first: FIRST };
    statements = Object.fromEntries(
      Object.entries(prepared).map(([key, sql]) => [key, db.prepare(sql)]),
    );
    return db.selectValue('pragma journal_mode');
  },
  insert: (id, title) => run('insert', id, title),
  insertMany: (rows) => run('insertMany', rows),
  select: (id) => run('select', id),
  first: () => run('first'),
});
