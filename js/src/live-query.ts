/// <reference lib="esnext.disposable" preserve="true" />
/** A query that reports again when its pages change. */

import { callAll, soon } from './call-back.js';
import { DocumentClosedError, noRoomFor, type TidelogError } from './errors.js';
import type { Answer } from './messages.js';
import { Answered, type Row } from './rows.js';

/** What a live query calls: with the rows, or with what is wrong (and the last rows, if any). */
export type RowsListener<R> = (rows: readonly R[] | undefined, error: TidelogError | null) => void;

/** Runs a query until it is stopped: gives `take` each answer, and its caller what stops it. */
export type RunQuery = (
  take: (answer: Answer | TidelogError, isPassing?: boolean) => void,
) => () => void;

/**
 * The rows of a query, kept up to date for as long as somebody listens: it starts with its first
 * listener or loop, stops after the last one, and starts again with the next.
 *
 * Rows that did not change keep their identity from one answer to the next. Iterating over it
 * asynchronously gives the newest rows whenever they have changed.
 */
export class LiveQuery<R = Row> implements AsyncIterable<readonly R[]> {
  /** @internal Vue leaves what has this as it is: a proxy around it has none of its state. */
  readonly __v_skip: true = true;
  readonly #run: RunQuery;
  readonly #signal: AbortSignal | undefined;
  readonly #abort = (): void => this.close();
  /** While it runs. */
  #stop: (() => void) | undefined;
  readonly #listeners = new Set<() => void>();
  #loops = 0;
  #waiting: (() => void)[] = [];
  #answered: Answered | undefined;
  #error: TidelogError | null = null;
  /** Whether the query is run again by itself once what is wrong is over. */
  #isPassing = false;
  /** Whether it has answered since it started. */
  #isCurrent = false;
  #closed = false;
  /** Why it is closed, if not since somebody wanted that. */
  #why: TidelogError | undefined;

  /**
   * @internal
   * @param signal closes it.
   */
  constructor(run: RunQuery, signal?: AbortSignal) {
    this.#run = run;
    this.#signal = signal;
    if (signal?.aborted) this.close();
    signal?.addEventListener('abort', this.#abort, { once: true });
  }

  /** The newest rows; undefined until the query has run. While nobody listens, the last ones. */
  get rows(): readonly R[] | undefined {
    return this.#answered?.rows as readonly R[] | undefined;
  }

  /** Why the query failed when it last ran, or null. */
  get error(): TidelogError | null {
    return this.#error;
  }

  /**
   * Calls `listener` with the rows that there are, if any, and after every change. Never during
   * this call. A listener that takes rows only is not told what is wrong: then that is written to
   * the console.
   *
   * @returns stops it. Safe to call more than once.
   * @throws DocumentClosedError if the query, or its document, was closed.
   */
  subscribe(listener: RowsListener<R>): () => void {
    this.#mustBeOpen();
    let due = true;
    const tell = (): void => {
      due = false;
      if (!this.#listeners.has(tell)) return;
      const isUnheard = this.#error && !this.#closed && listener.length === 1;
      if (isUnheard) console.error('a live query:', this.#error);
      listener(this.rows, this.#error);
    };
    this.#start();
    this.#listeners.add(tell);
    if (this.#isCurrent) soon(() => due && tell());
    return () => {
      if (this.#listeners.delete(tell)) this.#rest();
    };
  }

  /**
   * Each newest answer; those that come while the loop is busy are passed over. A loop that is left
   * lets go of the query. It is not ended by what goes by, once it has had rows.
   *
   * @throws DocumentClosedError if the query, or its document, was closed before, or the document
   *   is meanwhile.
   */
  [Symbol.asyncIterator](): AsyncIterator<readonly R[], undefined> {
    this.#mustBeOpen();
    this.#start();
    this.#loops++;
    let seen: readonly R[] | undefined;
    let isOver = false;
    const end = (): IteratorReturnResult<undefined> => {
      if (!isOver) {
        isOver = true;
        this.#loops--;
        this.#rest();
        this.#wake();
      }
      return { done: true, value: undefined };
    };
    return {
      next: async () => {
        while (!isOver && !this.#closed) {
          if (this.#isCurrent && this.#error && !(seen && this.#isPassing)) {
            end();
            throw this.#error;
          }
          const { rows } = this;
          if (this.#isCurrent && rows && rows !== seen) {
            seen = rows;
            return { done: false, value: rows };
          }
          await new Promise<void>((resolve) => this.#waiting.push(resolve));
        }
        const why = isOver ? undefined : this.#why;
        end();
        if (why) throw why;
        return end();
      },
      // Unlike that of a generator it does not wait for rows that may never come.
      return: async () => end(),
    };
  }

  /** Ends the query for good. Nobody is called any more, and loops over it end. */
  close(): void {
    this.#end(false);
  }

  /** The same as {@link close}, at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Ends it since its document is closed, and tells everybody so.
   *
   * @internal
   */
  endWith(error: TidelogError): void {
    if (this.#closed) return;
    this.#why = error;
    this.#error = error;
    this.#end(true);
  }

  #end(isTold: boolean): void {
    if (this.#closed) return;
    // Before anybody is told, who may close it, or want to listen again.
    this.#closed = true;
    this.#signal?.removeEventListener('abort', this.#abort);
    this.#halt();
    if (isTold) this.#tell();
    this.#listeners.clear();
    this.#wake();
  }

  #mustBeOpen(): void {
    if (!this.#closed) return;
    throw this.#why ?? new DocumentClosedError('this live query was closed: make another one');
  }

  #start(): void {
    if (this.#stop) return;
    this.#stop = this.#run((answer, isPassing = false) => this.#take(answer, isPassing));
  }

  /** Somebody has let go. Who listens again in the same turn is not noticed. */
  #rest(): void {
    soon(() => {
      if (this.#listeners.size + this.#loops === 0) this.#halt();
    });
  }

  #halt(): void {
    this.#stop?.();
    this.#stop = undefined;
    this.#isCurrent = false;
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #take(answer: Answer | TidelogError, isPassing: boolean): void {
    if (this.#closed) return;
    const wasCurrent = this.#isCurrent;
    this.#isPassing = isPassing;
    this.#isCurrent = true;
    if (!('type' in answer)) this.#error = answer;
    else if (answer.type !== 'rows') return;
    else {
      try {
        const answered = new Answered(answer.rows, this.#answered);
        if (answered.same && !this.#error && wasCurrent) return;
        if (!answered.same) this.#answered = answered;
        this.#error = null;
      } catch (error) {
        this.#error = noRoomFor(error);
      }
    }
    this.#wake();
    this.#tell();
  }

  /** Those who listen by now. */
  #tell(): void {
    callAll(this.#listeners, (tell) => tell());
  }
}
