/** The schema of a doctype in Node's own SQLite, which says what the columns of a query are. */

import { isWord } from './select.js';
import { sqlTokens } from './sql-tokens.js';
import type { ValueType } from './value-type.js';

/** What is used of `node:sqlite`. */
export interface Sqlite {
  readonly DatabaseSync: new (place: string) => Connection;
}
export interface Connection {
  exec(sql: string): void;
  prepare(sql: string): Statement;
  function(name: string, run: (...args: unknown[]) => unknown): void;
  close(): void;
}
export interface Statement {
  all(): Readonly<Record<string, unknown>>[];
  columns?(): readonly Origin[];
}

/** A column of an answer, and the column of a table that it is, if it is one. */
export interface Origin {
  readonly name: string;
  readonly table: string | null;
  readonly column: string | null;
}

/** What a column of a table holds. */
interface Declared {
  readonly type: ValueType;
  readonly isNullable: boolean;
}

/** Older releases, and the types of the oldest that this package takes, know no such module. */
const NAME = 'node:sqlite';

/** Loads SQLite as Node brings it along. */
export async function loadSqlite(
  load: () => Promise<Sqlite> = () => import(NAME),
): Promise<Sqlite> {
  const { emitWarning } = process;
  // That it is experimental is no news of the app's.
  process.emitWarning = () => {};
  const sqlite = await load().catch(() => undefined);
  process.emitWarning = emitWarning;
  if (sqlite && saysColumns(sqlite)) return sqlite;
  throw new Error(
    'types are found with the SQLite of Node itself, which takes Node 22.16 or newer ' +
      `(23.11 of 23): this is ${process.version}`,
  );
}

function saysColumns({ DatabaseSync }: Sqlite): boolean {
  const db = new DatabaseSync(':memory:');
  try {
    return db.prepare('select 1').columns !== undefined;
  } finally {
    db.close();
  }
}

/** An empty document of a doctype. */
export class Schema {
  readonly #db: Connection;
  readonly #tables = new Map<string, ReadonlyMap<string, Declared>>();
  readonly #views = new Map<string, string>();

  /** @throws {Error} where a migration does not run, with what SQLite says. */
  constructor(sqlite: Sqlite, migrations: readonly string[]) {
    this.#db = new sqlite.DatabaseSync(':memory:');
    this.#db.function('reject', (reason) => {
      throw new Error(`${reason}`);
    });
    for (const sql of migrations) this.#db.exec(sql);
    const listed = this.#db.prepare('pragma table_list').all();
    for (const { name, type, wr, strict } of listed) {
      const key = `${name}`.toLowerCase();
      if (type === 'table') this.#tables.set(key, this.#columnsOf(`${name}`, Boolean(strict), !wr));
    }
    const views = `select name, sql from sqlite_schema where type = 'view'`;
    for (const { name, sql } of this.#db.prepare(views).all()) {
      this.#views.set(`${name}`.toLowerCase(), `${sql}`);
    }
  }

  #columnsOf(table: string, isStrict: boolean, hasRowid: boolean): Map<string, Declared> {
    const quoted = `"${table.replaceAll('"', '""')}"`;
    const columns = this.#db.prepare(`pragma table_xinfo(${quoted})`).all();
    const keys = columns.filter(({ pk }) => pk);
    // As `create table` says it: whoever writes INT, or a key of two columns, gets no rowid.
    const isRowid = (type: unknown): boolean =>
      hasRowid && keys.length === 1 && /^integer$/i.test(`${type}`);
    return new Map(
      columns.map(({ name, type, notnull, pk }) => {
        const isNullable = !notnull && !(pk && (isRowid(type) || !hasRowid));
        return [`${name}`.toLowerCase(), { type: declaredType(`${type}`, isStrict), isNullable }];
      }),
    );
  }

  /**
   * The columns of a query.
   *
   * @throws {Error} where it cannot be prepared, with what SQLite says.
   */
  columns(sql: string): readonly Origin[] {
    return this.#db.prepare(sql).columns!();
  }

  /** Whether running it would change something. */
  writes(sql: string): boolean {
    if (isWord(sqlTokens(sql)[0], 'explain')) return false;
    const steps = this.#db.prepare(`explain ${sql}`).all();
    return steps.some(({ opcode, p2 }) => opcode === 'Transaction' && p2 !== 0);
  }

  /** What a column of a table holds, if that is known. */
  declared({ table, column }: Pick<Origin, 'table' | 'column'>): Declared | undefined {
    const columns = table === null ? undefined : this.#tables.get(table.toLowerCase());
    if (!columns || column === null) return undefined;
    const name = column.toLowerCase();
    // Of a table without a name for it.
    return (
      columns.get(name) ?? (name === 'rowid' ? { type: 'number', isNullable: false } : undefined)
    );
  }

  isTable(name: string): boolean {
    return this.#tables.has(name.toLowerCase());
  }

  /** The SQL that a view was made with, where one is called so. */
  view(name: string): string | undefined {
    return this.#views.get(name.toLowerCase());
  }
}

/** By SQLite's rules of affinity; a strict table has few names of types, and means them. */
export function declaredType(type: string, isStrict: boolean): ValueType {
  if (/int/i.test(type)) return 'number';
  if (/char|clob|text/i.test(type)) return 'string';
  if (/blob/i.test(type)) return isStrict ? 'Uint8Array' : 'Value';
  if (/real|floa|doub/i.test(type)) return 'number';
  return /^bool/i.test(type) ? 'number' : 'Value';
}
