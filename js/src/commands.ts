/** What an app says of the commands that an aggregate takes: see {@link command}. */

import { areTypes, type Command, EVENTS, isTexts, type ParamTypes } from './doctype.js';
import { millisecondsOf } from './durations.js';
import { DoctypeError } from './errors.js';
import { handle } from './handling.js';
import { outcomeOf, sendersOf } from './sending.js';

/** What {@link command} wants to know beside the arguments. */
export interface CommandOptions {
  /**
   * What follows in the tables from its receipt: SQL that runs at once where it is sent, and then
   * in the transaction in which it is received, with its arguments, `:stream`, `:key`, `:now`,
   * `:client` and `:user`. It may `reject()`: then it was not sent.
   */
  readonly received?: string | readonly string[];
  /**
   * What follows once it has failed for good: SQL with the same parameters, of whoever has sent it,
   * and `:reason`.
   */
  readonly failed?: string | readonly string[];
  /** How often it is tried again, later each time; 5 by default. */
  readonly retries?: number;
  /**
   * How long an attempt may take before it is taken for failed: milliseconds, or a text as `'30s'`,
   * `'5m'` or `'2h'`; 30 seconds by default, 0 for as long as it likes.
   */
  readonly timeout?: number | `${number}${'s' | 'm' | 'h'}`;
}

/** As much as travels, of milliseconds some 49 days. */
const COUNT_MAX = 2 ** 32 - 1;

/**
 * Defines what an aggregate may be asked to do. Whoever handles it, by `db.handle`, decides by the
 * events of its stream what happens.
 *
 * @param fields the types of its arguments, for example `{ items: 'json', note: 'text?' }`.
 *
 * @example
 * ```ts
 * const order = stream({
 *   events: { placed: { items: 'json' } },
 *   commands: {
 *     place: command({ items: 'json' }, {
 *       received: `insert into orders (id, state) values (:stream, 'sent')`,
 *       failed: `update orders set state = :reason where id = :stream`,
 *     }),
 *   },
 * });
 * ```
 */
export function command<const Fields extends ParamTypes>(
  fields: Fields,
  options: CommandOptions = {},
): Command<Fields> {
  if (!areTypes(fields)) {
    throw new DoctypeError("a command's arguments are types by name: command({ items: 'json' })");
  }
  for (const [name, type] of Object.entries(fields)) {
    if (type.startsWith('blob')) {
      throw new DoctypeError(`argument ${name} of a command cannot be a blob, which JSON lacks`);
    }
  }
  const { retries = 5, timeout = '30s' } = options;
  if (!isCount(retries)) {
    throw new DoctypeError('retries of a command have to be a whole number, from 0');
  }
  return {
    fields,
    received: textsOf('received', options.received),
    failed: textsOf('failed', options.failed),
    retries,
    timeout: timeoutOf(timeout),
    [EVENTS]: { send: sendersOf, outcome: outcomeOf, handle },
  };
}

const isCount = (it: unknown): it is number =>
  Number.isInteger(it) && (it as number) >= 0 && (it as number) <= COUNT_MAX;

function textsOf(what: string, sql: string | readonly string[] = []): readonly string[] {
  const texts = typeof sql === 'string' ? [sql] : sql;
  if (isTexts(texts)) return texts;
  throw new DoctypeError(`${what} of a command has to be SQL, or a list of that`);
}

function timeoutOf(timeout: unknown): number {
  const ms = millisecondsOf(timeout, 'smh', COUNT_MAX);
  if (ms !== undefined) return ms;
  throw new DoctypeError(
    "timeout of a command has to be milliseconds up to 49 days, or a text as '30s', '5m' or '2h'",
  );
}
