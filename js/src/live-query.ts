/** A query that reports again when its pages change. */

import { callBack } from './call-back.js';
import { noRoomFor, type TidelogError } from './errors.js';
import type { Answer } from './messages.js';
import { Answered, type Row } from './rows.js';

/** What a live query calls: with the rows, or with what is wrong (and the last rows, if any). */
export type RowsListener<R> = (rows: readonly R[] | undefined, error: TidelogError | null) => void;

/**
 * The rows of a query, kept up to date.
 *
 * Rows that did not change keep their identity from one answer to the next. Iterating over it
 * asynchronously gives the newest rows whenever they have changed.
 */
export class LiveQuery<R = Row> implements AsyncIterable<readonly R[]> {
  readonly #stop: () => void;
  readonly #listeners = new Set<() => void>();
  #answered: Answered | undefined;
  #error: TidelogError | null = null;
  /** Whether the query is run again by itself once what is wrong is over. */
  #isPassing = false;
  #closed = false;

  /** @internal */
  constructor(
    start: (take: (answer: Answer | TidelogError, isPassing?: boolean) => void) => () => void,
  ) {
    this.#stop = start((answer, isPassing = false) => this.#take(answer, isPassing));
  }

  /** The newest rows; undefined until the query has run. */
  get rows(): readonly R[] | undefined {
    return this.#answered?.rows as readonly R[] | undefined;
  }

  /** Why the query failed when it last ran, or null. */
  get error(): TidelogError | null {
    return this.#error;
  }

  /**
   * Calls `listener` with the rows that there are, if any, and after every change. Never during
   * this call.
   *
   * @returns stops it. Safe to call more than once.
   */
  subscribe(listener: RowsListener<R>): () => void {
    let due = true;
    const tell = (): void => {
      due = false;
      if (this.#listeners.has(tell) && !this.#closed) listener(this.rows, this.#error);
    };
    this.#listeners.add(tell);
    if (this.#answered || this.#error) queueMicrotask(() => due && tell());
    return () => this.#listeners.delete(tell);
  }

  /**
   * Each newest answer; those that come while the loop is busy are passed over. A loop that is left
   * closes the query, unless somebody else listens to it. It is not ended by what goes by, once it
   * has had rows.
   */
  [Symbol.asyncIterator](): AsyncIterator<readonly R[], undefined> {
    let seen: readonly R[] | undefined;
    let isOver = false;
    this.#loops++;
    const end = (): IteratorReturnResult<undefined> => {
      if (!isOver) {
        isOver = true;
        if (--this.#loops + this.#listeners.size === 0) this.close();
        this.#wake();
      }
      return { done: true, value: undefined };
    };
    return {
      next: async () => {
        while (!isOver && !this.#closed) {
          if (this.#error && !(seen && this.#isPassing)) {
            end();
            throw this.#error;
          }
          const { rows } = this;
          if (rows && rows !== seen) {
            seen = rows;
            return { done: false, value: rows };
          }
          await new Promise<void>((resolve) => this.#waiting.push(resolve));
        }
        return end();
      },
      // Unlike that of a generator it does not wait for rows that may never come.
      return: async () => end(),
    };
  }

  #waiting: (() => void)[] = [];
  #loops = 0;

  /** Stops the query. Nobody is called any more, and loops over it end. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stop();
    this.#listeners.clear();
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #take(answer: Answer | TidelogError, isPassing: boolean): void {
    if (this.#closed) return;
    this.#isPassing = isPassing;
    if (!('type' in answer)) this.#error = answer;
    else if (answer.type !== 'rows') return;
    else {
      try {
        const answered = new Answered(answer.rows, this.#answered);
        if (answered.same && !this.#error) return;
        this.#answered = answered;
        this.#error = null;
      } catch (error) {
        this.#error = noRoomFor(error);
      }
    }
    this.#wake();
    for (const tell of this.#listeners) callBack(tell);
  }
}
