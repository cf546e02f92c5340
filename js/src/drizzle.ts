/**
 * Queries that are built with Drizzle. They only read: what changes a document is a mutation.
 */

import type { Value } from './codec.js';
import type { Database } from './database.js';
import type { Query } from './sql.js';

/** Runs a statement, as `drizzle` of `drizzle-orm/sqlite-proxy` wants it. */
export type Proxied = (
  sql: string,
  parameters: readonly unknown[],
  method: 'run' | 'all' | 'values' | 'get',
) => Promise<{ rows: Value[][] }>;

/**
 * Has Drizzle read a document: give `drizzle` of `drizzle-orm/sqlite-proxy` what this returns. What
 * went wrong is the `cause` of Drizzle's own error: `ReadOnlyError` where something writes.
 *
 * @example
 * ```ts
 * const todo = sqliteTable('todo', { id: text().primaryKey(), title: text().notNull() });
 * const orm = drizzle(proxyOf(db));
 * const rows = await orm.select({ title: todo.title }).from(todo);
 * ```
 */
export function proxyOf(db: Pick<Database, 'values'>): Proxied {
  return async (sql, parameters, method) => {
    const rows = await db.values({ sql, parameters });
    // Drizzle takes one row, or none, for the list of them.
    return { rows: method === 'get' ? (rows[0] as never) : rows };
  };
}

/**
 * What Drizzle builds, for `db.query`, `db.live` and hooks. Rows have the names and the values of
 * the SQL, and not those of Drizzle's tables.
 *
 * @example
 * ```ts
 * const todo = sqliteTable('todo', { title: text().notNull() });
 * const built = drizzle(proxyOf(db)).select({ title: todo.title }).from(todo);
 * db.live(queryOf<{ title: string }>(built)).subscribe((rows) => console.log(rows));
 * ```
 */
export function queryOf<R>(built: { toSQL(): { sql: string; params: unknown[] } }): Query<R> {
  const { sql, params } = built.toSQL();
  return { sql, parameters: params };
}
