// An SQLite that is not ours, to say what a file holds.

import { deepStrictEqual } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import sqlite3InitModule from '@sqlite.org/sqlite-wasm';

const sqlite3 = await sqlite3InitModule();

/** Runs `read` on a database opened from the bytes of a SQLite file. */
function withFile(bytes, read) {
  const db = new sqlite3.oo1.DB(':memory:');
  try {
    const copy = sqlite3.wasm.allocFromTypedArray(bytes);
    const flags =
      sqlite3.capi.SQLITE_DESERIALIZE_FREEONCLOSE | sqlite3.capi.SQLITE_DESERIALIZE_RESIZEABLE;
    const rc = sqlite3.capi.sqlite3_deserialize(
      db.pointer,
      'main',
      copy,
      bytes.length,
      bytes.length,
      flags,
    );
    db.checkRc(rc);
    return read(db);
  } finally {
    db.close();
  }
}

const quoted = (name) => `"${name.replaceAll('"', '""')}"`;

/** Schema and rows of the app's tables as text, rows in the order of their values. */
function dump(db) {
  const integrity = db.selectValues('pragma integrity_check');
  deepStrictEqual(integrity, ['ok'], 'the file is sound');
  const ours = `name not like '\\_tidelog\\_%' escape '\\' and tbl_name not like '\\_tidelog\\_%' escape '\\'`;
  const schema = db.selectValues(
    `select sql from sqlite_schema where sql is not null and ${ours} order by sql`,
  );
  const names = db.selectValues(
    `select name from sqlite_schema where type = 'table' and name not like 'sqlite\\_%' escape '\\' and ${ours} order by name`,
  );
  const tables = Object.fromEntries(names.map((name) => [name, rowsOf(db, name)]));
  return { schema, tables };
}

function rowsOf(db, table) {
  const columns = db.selectValues('select name from pragma_table_info(?)', [table]);
  const order = columns.map((_, index) => index + 1).join(', ');
  const values = columns.map((name) => `quote(${quoted(name)})`).join(', ');
  return db
    .selectArrays(`select ${values} from ${quoted(table)} order by ${order}`)
    .map((row) => row.join(', '));
}

/** What a SQLite file holds for its app. */
export const contentOf = (bytes) => withFile(bytes, dump);

/** Rows of one query on a SQLite file. */
export const queryFile = (bytes, sql) =>
  withFile(bytes, (db) => db.selectObjects(sql).map((row) => ({ ...row })));

/** A SQLite file that is what stock SQLite makes of some SQL. */
export function fileOfSql(sql) {
  const db = new sqlite3.oo1.DB(':memory:');
  try {
    db.exec('pragma page_size = 4096');
    db.exec(sql);
    return sqlite3.capi.sqlite3_js_db_export(db);
  } finally {
    db.close();
  }
}

/** What stock SQLite makes of a file of SQL. */
export function contentOfSql(file) {
  const db = new sqlite3.oo1.DB(':memory:');
  try {
    // A byte order mark is no SQL.
    db.exec(readFileSync(file, 'utf8').replace(/^\uFEFF/, ''));
    return dump(db);
  } finally {
    db.close();
  }
}
