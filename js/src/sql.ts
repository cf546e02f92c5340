/** Statements with their parameters beside them. */

import type { Param, Params } from './messages.js';
import type { KnownParams, KnownRow } from './queries.js';
import type { Row } from './rows.js';

/** A statement with its parameters by position, whose rows are `R`, as the app says. */
export interface Query<R = Row> {
  readonly sql: string;
  readonly parameters: readonly unknown[];
  /** Never there: only its type matters. */
  readonly row?: R;
}

/** What can be given up. */
export interface Abortable {
  /** Gives up: a call rejects with its reason, and a listener or a live query is called no more. */
  readonly signal?: AbortSignal | undefined;
}

/** What is asked: SQL and its parameters (by position or by name), or a query that has both. */
export type Asking<R = Row, Sql extends string = string> =
  | readonly [sql: Sql, ...given: Given<KnownParams<Sql>, Abortable>]
  | readonly [query: Query<R>, options?: Abortable];

/** What a hook shows: SQL and its parameters, or a query that has both. */
export type Watching<R = Row, Sql extends string = string> =
  | readonly [sql: Sql, ...given: Given<KnownParams<Sql>>]
  | readonly [query: Query<R>];

/** What is given beside SQL: its parameters, which may be left out where there are none. */
type Given<P, Options = never> = readonly [] extends P
  ? readonly [params?: P | undefined, options?: Options]
  : readonly [params: P, options?: Options];

/** The same as a function gives them: its type does not say how long an array in one is. */
export type Got<P> = P extends readonly (infer Each)[] ? readonly Each[] : P;

/** What the holes of a template take: what is known of its name, or values and parts. */
type Holes<R> = KnownParams<R, readonly Hole[]> & readonly unknown[];
type Hole = Param | Query<unknown>;

/** The rows of a template: what is known of its name, or what the app says. */
type RowOf<R> = R extends string ? KnownRow<R, Row> : R;

/**
 * A query whose values are parameters wherever they stand. One within another is a part of it. The
 * SQL is what stands there: a backslash is one.
 *
 * @example
 * ```ts
 * const milk = sql`title = ${'milk'}`;
 * const rows = await db.query(sql<{ id: string }>`select id from todo where ${milk}`);
 * ```
 *
 * @typeParam R its rows; or a name for it, by which `npx tidelog types` declares them.
 */
export function sql<R = Row>(
  { raw: texts }: TemplateStringsArray,
  ...values: Holes<R>
): Query<RowOf<R>> {
  let text = texts[0]!;
  const parameters: unknown[] = [];
  values.forEach((value, index) => {
    const isPart = isQuery(value);
    parameters.push(...(isPart ? value.parameters : [value]));
    text += (isPart ? value.sql : '?') + texts[index + 1]!;
  });
  return { sql: text, parameters };
}

/** Whether this is a query that has its parameters, and not the text of one. */
export function isQuery(it: unknown): it is Query<unknown> {
  return typeof it === 'object' && it !== null && 'sql' in it && 'parameters' in it;
}

/** The statement, its parameters and the options of what is asked. */
export function parted(
  asking: readonly unknown[],
): readonly [sql: string, params: Params | undefined, options: Abortable] {
  const [first, second, third] = asking as readonly [unknown, never, never];
  // What stands in a query is looked at as all parameters are, when it is asked.
  if (isQuery(first)) return [first.sql, first.parameters as Params, second ?? {}];
  return [first as string, second, third ?? {}];
}
