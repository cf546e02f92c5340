// The SQLite of `npx tidelog types`, made of one that every Node has: that of Node itself is there
// in newer ones only.

import sqlite3InitModule from '@sqlite.org/sqlite-wasm';
import type { Connection, Sqlite, Statement } from '../src/node/types/schema.js';

const sqlite3 = await sqlite3InitModule();
sqlite3.config.warn = () => {};
const { capi } = sqlite3;

/** A connection with as much as is used of `node:sqlite`. */
class Database implements Connection {
  readonly #db = new sqlite3.oo1.DB(':memory:');

  exec(sql: string): void {
    this.#db.exec(sql);
  }

  prepare(sql: string): Statement {
    const statement = this.#db.prepare(sql);
    const { pointer, columnCount } = statement;
    const columns = Array.from({ length: columnCount }, (_, index) => ({
      name: `${capi.sqlite3_column_name(pointer!, index)}`,
      table: (capi.sqlite3_column_table_name(pointer!, index) as string | null) || null,
      column: (capi.sqlite3_column_origin_name(pointer!, index) as string | null) || null,
    }));
    statement.finalize();
    const all = (): Record<string, unknown>[] => this.#db.selectObjects(sql);
    return { all, columns: () => columns };
  }

  function(name: string, run: (...args: unknown[]) => unknown): void {
    const call = (_: unknown, ...args: unknown[]): never => run(...args) as never;
    this.#db.createFunction(name, call, { arity: -1 });
  }

  close(): void {
    this.#db.close();
  }
}

export const sqlite: Sqlite = { DatabaseSync: Database };
