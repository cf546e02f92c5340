// SQLite's own WebAssembly build, on its pool of OPFS access handles or on files that it shares.

import sqlite3InitModule from '@sqlite.org/sqlite-wasm';
import { serve } from './peer.mjs';
import { inOrder, MUTATIONS, QUERIES, schema } from './sql.mjs';

const SQL = { ...MUTATIONS, ...QUERIES };
const prepared = {};

function bound(name, values) {
  const statement = prepared[name];
  inOrder(SQL[name], values).forEach((value, index) => {
    statement.bind(index + 1, value);
  });
  return statement;
}

async function openDatabase(name, vfs) {
  const sqlite3 = await sqlite3InitModule();
  if (vfs !== 'opfs-sahpool') return new sqlite3.oo1.DB(`file:/${name}?vfs=${vfs}`, 'c');
  const pool = await sqlite3.installOpfsSAHPoolVfs({ directory: `/sahpool-${name}` });
  return new pool.OpfsSAHPoolDb(`/${name}`);
}

serve({
  async open(name, { vfs, pragmas, isText }) {
    const db = await openDatabase(name, vfs);
    for (const pragma of pragmas) db.exec(`pragma ${pragma}`);
    db.exec(schema(isText).replace('table', 'table if not exists'));
    for (const [key, sql] of Object.entries(SQL)) prepared[key] = db.prepare(sql);
  },
  run(name, values) {
    const statement = bound(name, values);
    statement.step();
    statement.reset();
  },
  rows(name, values) {
    const statement = bound(name, values);
    const rows = [];
    while (statement.step()) rows.push(statement.get({}));
    statement.reset();
    return rows;
  },
});
