/**
 * Queries that are built with Kysely. They only read: what changes a document is a mutation.
 */

import {
  type Compilable,
  type CompiledQuery,
  type DatabaseConnection,
  type DatabaseIntrospector,
  type Dialect,
  type DialectAdapter,
  type Driver,
  type QueryCompiler,
  type QueryResult,
  SqliteAdapter,
  SqliteQueryCompiler,
} from 'kysely';
import type { Database } from './database.js';
import { QueryError, ReadOnlyError } from './errors.js';
import type { Query } from './sql.js';

/**
 * Runs what Kysely builds in a document. Rejects with `ReadOnlyError` what writes.
 *
 * @example
 * ```ts
 * const kysely = new Kysely<{ todo: { id: string; title: string } }>({
 *   dialect: new TidelogDialect(db),
 * });
 * const rows = await kysely.selectFrom('todo').select('title').execute();
 * ```
 */
export class TidelogDialect implements Dialect {
  readonly #db: Pick<Database, 'query'>;

  /** @param db stays open when Kysely's own is destroyed. */
  constructor(db: Pick<Database, 'query'>) {
    this.#db = db;
  }

  createAdapter(): DialectAdapter {
    return new SqliteAdapter();
  }

  createDriver(): Driver {
    return new ReadingDriver(this.#db);
  }

  /** Its tables are what its doctype's migrations say. */
  createIntrospector(): DatabaseIntrospector {
    throw new QueryError('a document is not introspected: its doctype says what is in it');
  }

  createQueryCompiler(): QueryCompiler {
    return new SqliteQueryCompiler();
  }
}

/**
 * What Kysely builds, for `db.query`, `db.live` and hooks. Rows have the names and the values of
 * the SQL: a plugin that changes results is not asked.
 *
 * @example
 * ```ts
 * const kysely = new Kysely<{ todo: { title: string } }>({ dialect: new TidelogDialect(db) });
 * const titles = db.live(queryOf(kysely.selectFrom('todo').select('title')));
 * titles.subscribe((rows) => console.log(rows?.map(({ title }) => title)));
 * ```
 */
export function queryOf<R>(built: Compilable<R>): Query<R> {
  const { sql, parameters } = built.compile();
  return { sql, parameters };
}

/** All that is asked goes to the document, which takes what comes in its order. */
class ReadingDriver implements Driver {
  readonly #connection: DatabaseConnection;

  constructor(db: Pick<Database, 'query'>) {
    this.#connection = {
      executeQuery: async <R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> => ({
        rows: await db.query<R>({ sql, parameters }),
      }),
      // biome-ignore lint/correctness/useYield: there is nothing to be had in parts.
      streamQuery: async function* () {
        throw new QueryError('rows come whole: execute() the query in place of streaming it');
      },
    };
  }

  async init(): Promise<void> {}
  async releaseConnection(): Promise<void> {}
  async destroy(): Promise<void> {}
  async commitTransaction(): Promise<void> {}
  async rollbackTransaction(): Promise<void> {}

  async acquireConnection(): Promise<DatabaseConnection> {
    return this.#connection;
  }

  async beginTransaction(): Promise<void> {
    throw new ReadOnlyError('there are no transactions: what changes a document is a mutation');
  }
}
