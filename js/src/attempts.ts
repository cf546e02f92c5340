/** What is given to somebody to handle, and the attempts at it: `db.handle`. */

import { isPassing } from './call.js';
import { handleRequest } from './command-requests.js';
import { DocumentClosedError, InvalidOptionError, type TidelogError } from './errors.js';
import type { GivenCommand } from './handling.js';
import { hexOf } from './messages.js';
import { decodeRows } from './rows.js';
import type { GivenRun } from './running.js';
import type { Abortable } from './sql.js';
import type { OpenStreams } from './streams.js';

/** Limits of crate `types`. */
const INSTANCE_COMMANDS_MAX = 1_024;
const INSTANCE_KINDS_MAX = 1_024;

/** Commands given to one handler at a time, where it does not say how many. */
const CONCURRENCY = 16;

/** After which time an attempt is tried again that nobody could be told of, and the longest. */
const BACKOFF_MS = 1_000;
const BACKOFF_MS_MAX = 300_000;

/** Attempts that are over and may be given once more by a core that does not know that yet. */
const ATTEMPTS_MAX = 2 * INSTANCE_COMMANDS_MAX;

/** How many commands are handled, or runs go on, and who is told of errors. */
export interface HandleOptions<Given = GivenCommand | GivenRun> extends Abortable {
  /** Commands, of as many streams, or runs that it works at; 16 by default, up to 1,024. */
  readonly concurrency?: number | undefined;
  /**
   * Is told what a handler has thrown, and at which command or run; and, without one, why there are
   * none to handle any more. By default that is written to the console.
   */
  readonly onError?: ((error: unknown, given?: Given) => void) | undefined;
}

/** Somebody who handles commands, or has runs go on: see `Database.handle`. */
export interface Handling {
  /**
   * Begins nothing more, and resolves once what is at work has ended and others may have the
   * rest. A `signal`, as `db.close()`, leaves what is at work to others too, at once, and also
   * while this waits.
   */
  close(): Promise<void>;
  /** The same as {@link close}, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A row of what is given, as it travels: a command, or a run. */
export interface GivenRow {
  readonly number: number;
  readonly aggregate: string;
  readonly stream: string;
  readonly name: string;
  readonly args: string;
  readonly key: string;
  readonly time: number;
  readonly user: string;
  readonly client: string | Uint8Array;
  readonly attempt: number;
  /** How many events the stream of a command had when it was given. */
  readonly position: number;
  /** Of a run 1 if it is to hear that it was cancelled. */
  readonly is_cancelled: number;
  /** Whom it was given to. */
  readonly instance: number;
}

/** Whether both are of one attempt: where a server was restored, others have its number again. */
const isSame = (one: Which | undefined, other: Which): boolean =>
  one?.attempt === other.attempt && one.instance === other.instance;

/** What is handled, and how. */
export interface Work<Given extends object> {
  /** The name of the aggregate, or of the workflow. */
  readonly aggregate: string;
  /** The names of the commands, or the versions of the workflow. */
  readonly names: readonly string[];
  /** What the app is told of a row. */
  given(row: GivenRow, client: string): Given;
  /** One attempt, until it is over. What it throws the app is told. */
  carryOut(attempt: Attempt<Given>): Promise<void>;
}

/** One attempt at a command or a run. */
export interface Attempt<Given> {
  readonly given: Given;
  /** As it was given last: while it is the same attempt it may have changed. */
  row: GivenRow;
  /** The call by which it was given. */
  readonly handling: number;
  /** Aborted once it counts no longer. */
  readonly signal: AbortSignal;
  /** Tells the app what was thrown. */
  tell(error: unknown): void;
  /** Whether what cannot go on is to be left to others. */
  isClosing(): boolean;
  /** Called when the row has changed. */
  onRow(): void;
}

/** Which attempt it is. */
type Which = Pick<GivenRow, 'attempt' | 'instance'>;

/** An attempt that is at work, or of which it is only known that it was. */
interface Standing {
  row: Which;
  /** Aborted once it counts no longer; none any more once it is over. */
  readonly left?: AbortController;
  onRow(): void;
}

/** Has attempts carried out, as many at a time as the app wants. */
export class Attempts<Given extends object> implements Handling {
  /** Vue leaves what has this as it is. */
  readonly __v_skip: true = true;
  readonly #document: OpenStreams;
  readonly #work: Work<Given>;
  readonly #onError: NonNullable<HandleOptions<Given>['onError']>;
  /** By the numbers of what is given, the oldest first. */
  readonly #attempts = new Map<number, Standing>();
  /** Those at work that have not ended, so that closing may wait for them. */
  readonly #running = new Set<Promise<void>>();
  readonly #call: number;
  /** Stops listening to the app's signal. */
  readonly #unlisten: () => void;
  #isClosing = false;
  #isOver = false;
  #wakeClosing = (): void => {};
  /** Resolves once it is over, however much is at work. */
  readonly #over = new Promise<void>((resolve) => {
    this.#wakeClosing = resolve;
  });
  #begun = 0;

  constructor(
    document: OpenStreams,
    work: Work<Given>,
    { concurrency = CONCURRENCY, onError, signal }: HandleOptions<Given>,
  ) {
    const { aggregate, names } = work;
    if (names.length < 1 || names.length > INSTANCE_KINDS_MAX) {
      throw new InvalidOptionError(`who handles ${aggregate} has to name 1 to 1,024 commands`);
    }
    if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > INSTANCE_COMMANDS_MAX) {
      throw new InvalidOptionError(`concurrency has to be 1 to ${INSTANCE_COMMANDS_MAX}`);
    }
    this.#document = document;
    this.#work = work;
    this.#onError = onError ?? ((error, given) => writeError(aggregate, error, given));
    document.ending.add(this);
    const request = handleRequest(aggregate, names, concurrency);
    const abort = (): void => this.endWith();
    this.#unlisten = () => signal?.removeEventListener('abort', abort);
    this.#call = document.connection.call(
      'handle',
      { handle: document.handle, request },
      (answer, last) => {
        if (answer.type === 'rows') this.#take(decodeRows(answer.rows) as unknown as GivenRow[]);
        else if (answer.type === 'failed') this.#notGiven(answer.error, last);
      },
      false,
    );
    if (signal?.aborted) this.endWith();
    else signal?.addEventListener('abort', abort, { once: true });
  }

  /** @internal How many attempts are at work. */
  get atWork(): number {
    return this.#running.size;
  }

  /** @internal How many have begun, ever. */
  get begun(): number {
    return this.#begun;
  }

  /** @internal */
  endWith(error?: TidelogError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#wakeClosing();
    this.#unlisten();
    this.#document.ending.delete(this);
    for (const { left } of this.#attempts.values()) left?.abort(error);
    this.#attempts.clear();
    if (!error) this.#document.connection.giveUp(this.#call);
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    while (this.#running.size > 0 && !this.#isOver) {
      await Promise.race([this.#over, ...this.#running]);
    }
    this.endWith();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Nothing is given for now, which the document's status says as well, or any more. */
  #notGiven(error: TidelogError, last: boolean): void {
    if (this.#isOver || (!last && isPassing(error))) return;
    this.endWith(last ? error : undefined);
    if (!(error instanceof DocumentClosedError)) this.#tell(error);
  }

  #tell(error: unknown, given?: Given): void {
    try {
      this.#onError(error, given);
    } catch (thrown) {
      reportError(thrown);
    }
  }

  /** All that is given now: what is no longer was taken away. */
  #take(rows: readonly GivenRow[]): void {
    if (this.#isOver) return;
    const given = new Map(rows.map((row) => [row.number, row]));
    for (const [number, { row, left }] of this.#attempts) {
      if (!left || isSame(given.get(number), row)) continue;
      left.abort(new Error('this attempt counts no longer'));
      this.#attempts.delete(number);
    }
    for (const row of given.values()) this.#begin(row);
    for (const [number, { left }] of this.#attempts) {
      if (this.#attempts.size <= ATTEMPTS_MAX) break;
      if (!left && !given.has(number)) this.#attempts.delete(number);
    }
  }

  #begin(row: GivenRow): void {
    const before = this.#attempts.get(row.number);
    if (before && isSame(before.row, row)) {
      if (before.left) before.row = row;
      before.onRow();
      return;
    }
    if (this.#isClosing) return;
    this.#begun += 1;
    const client = typeof row.client === 'string' ? row.client : hexOf(row.client);
    const given = this.#work.given(row, client);
    const left = new AbortController();
    const tell = (error: unknown): void => this.#tell(error, given);
    const isClosing = (): boolean => this.#isClosing;
    const of = { given, row, handling: this.#call, signal: left.signal, tell, isClosing };
    const begun = { ...of, left, onRow() {} };
    // Behind all others, by which age they are forgotten.
    this.#attempts.delete(row.number);
    this.#attempts.set(row.number, begun);
    const isLeft = new Promise<void>((resolve) => {
      left.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    // What counts no longer is not waited for: its code may never end.
    const running = Promise.race([this.#carryOut(begun), isLeft]).then(() => {
      const isKept = this.#attempts.get(row.number) === begun;
      const { attempt, instance } = row;
      // What it was given, and all that came of it, goes.
      if (isKept) this.#attempts.set(row.number, { row: { attempt, instance }, onRow() {} });
      this.#running.delete(running);
    });
    this.#running.add(running);
  }

  /**
   * Until the attempt is over, or counts no longer: where it could not be told what became of it,
   * it would be nobody's, and nobody would be given it.
   */
  async #carryOut(begun: Attempt<Given>): Promise<void> {
    const { signal } = begun;
    const { host } = this.#document.connection;
    for (let backoffMs = BACKOFF_MS; ; backoffMs = Math.min(2 * backoffMs, BACKOFF_MS_MAX)) {
      try {
        return await this.#work.carryOut(begun);
      } catch (error) {
        if (signal.aborted) return;
        begun.tell(error);
      }
      if (this.#isClosing) return;
      await pause(host, backoffMs, signal);
      if (signal.aborted) return;
    }
  }
}

/** Resolves after so long, or once the signal says so. */
export function pause(
  host: OpenStreams['connection']['host'],
  ms: number,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve) => {
    const abort = (): void => resolve(callOff());
    const callOff = host.wakeIn(ms, () => {
      signal.removeEventListener('abort', abort);
      resolve();
    });
    signal.addEventListener('abort', abort, { once: true });
  });
}

/** Whether what was thrown is one of these: it may be what nothing can be asked of. */
export function isA<Kind>(thrown: unknown, kind: new (...of: never[]) => Kind): thrown is Kind {
  try {
    return thrown instanceof kind;
  } catch {
    return false;
  }
}

/** What was thrown, as text. */
export function reasonOf(error: unknown): string {
  try {
    return String(error);
  } catch {
    return 'something without a text was thrown';
  }
}

function writeError(aggregate: string, error: unknown, given?: object): void {
  const { name, id } = Object(given) as { name?: string; id?: string };
  if (given) console.error(`${name ? `command ${name}` : `run ${id}`} of ${aggregate}:`, error);
  else console.error('nothing is given to handle:', error);
}
