/** Working for many documents, of which few are open at a time: `work`. */

import type { Attempts, HandleOptions } from '../attempts.js';
import type { GetToken } from '../connection.js';
import type { Database } from '../database.js';
import { type Doctype, EVENTS, type Mutations, type Streams, type Workflows } from '../doctype.js';
import { InvalidOptionError } from '../errors.js';
import type { GivenCommand, Handlers } from '../handling.js';
import { socketAddress } from '../open.js';
import type { GivenRun, RunHandlers } from '../running.js';
import type { OpenStreams } from '../streams.js';
import { type DueLine, dueLines } from './due-lines.js';
import type { SocketClass } from './sockets.js';

/** Documents that are open at a time, where nobody says how many. */
const DOCUMENTS_MAX = 64;

/** Documents being opened at a time, until they have what their server has: each is answered in
 * time, however slow the machine is. */
const OPENING_MAX = 8;

/** For how long a document stays open that has nothing more to do. */
const LINGERS_MS = 3_000;
/** The same where others wait for its place; and of one that has had nothing to do yet, to which it
 * takes a while to be heard by the server. */
const LINGERS_PRESSED_MS = 250;
const LINGERS_VAIN_MS = 2_000;

/** Within which time a document has to have come from its server. */
const COMES_MS_MAX = 60_000;

/** How often it is looked which documents have nothing more to do. */
const LOOKS_MS = 100;

/** After which time a document is opened again that had nothing to do, and the longest. */
const VAIN_MS = 1_000;
const VAIN_MS_MAX = 300_000;

/**
 * The longest after which one is that others seem to have worked for: nobody would for longer than
 * that once they die. And within which time one is told again in which nobody did anything.
 */
const SHARED_MS_MAX = 15_000;
const TOLD_AGAIN_MS = 3_000;

const NAMES = [
  'server',
  'token',
  'documents',
  'documentsMax',
  'concurrency',
  'webSocket',
  'signal',
  'onError',
];

/** Where an error has happened. */
export interface WorkPlace {
  /** In which document; absent where the server does not say which have work. */
  readonly document?: string | undefined;
  /** At which command or run, if at one. */
  readonly given?: GivenCommand | GivenRun | undefined;
}

/** What {@link work} wants to know. */
export interface WorkOptions {
  /** Address of the server, `ws://` or `wss://`. */
  readonly server: string | URL;
  /** Gives the token for the server whenever it is asked for; it has to allow `handle`. */
  readonly token?: GetToken | undefined;
  /** Which documents: a name, or how names begin and a `*` behind that; `*` for all. */
  readonly documents: string;
  /** How many of them are open at a time; 64 by default. */
  readonly documentsMax?: number | undefined;
  /** Of each aggregate or workflow of a document: see {@link HandleOptions.concurrency}. */
  readonly concurrency?: number | undefined;
  /** The class of the connection to the server: see `open`. */
  readonly webSocket?: SocketClass | undefined;
  /** Ends the work at once: what is at work is left to others. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Is told what a handler has thrown, why a document cannot be opened or handled, and why the
   * server does not say which have work. By default that is written to the console.
   */
  readonly onError?: ((error: unknown, at: WorkPlace) => void) | undefined;
}

/** How what is done of documents is done, by the names of aggregates and workflows. */
export type WorkHandlers<Recorded extends Streams, Flows extends Workflows> = {
  // biome-ignore lint/suspicious/noExplicitAny: each aggregate has a state of its own type.
  readonly [Name in keyof Recorded & string]?: Handlers<Recorded, Name, any, Flows>;
} & {
  readonly [Name in keyof Flows & string]?: RunHandlers<Recorded, Flows, Name>;
};

/** Work for many documents: see {@link work}. */
export interface Working {
  /**
   * Begins nothing more, and resolves once what is at work has ended, all documents are closed, and
   * others may have the rest.
   */
  close(): Promise<void>;
  /** The same as {@link close}, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What opens documents in memory, and lets go of them. */
export interface Memory {
  open(doctype: unknown, options: object): Promise<Database>;
  destroy(document: string, options: { readonly force: boolean }): Promise<void>;
  /** Keeps the engine going until that has ended. */
  keep(until: Promise<void>): Promise<void>;
}

/** A document that is open. */
interface Desk {
  readonly db: Database;
  readonly handlings: readonly Attempts<GivenCommand | GivenRun>[];
  readonly openedAt: number;
  /** Since when nothing is at work, and it has what its server has. */
  idleSince: number;
  /** How much had been begun when it was last looked at. */
  begun: number;
  isClosing: boolean;
}

/** What is wrong in a document that did not come from its server in time. */
class LateDocumentError extends Error {
  override readonly name = 'LateDocumentError';

  constructor(document: string) {
    super(`${document} did not come from its server within ${COMES_MS_MAX / 1_000} seconds`);
  }
}

/** How much was ever begun there. */
const begunAt = ({ handlings }: Pick<Desk, 'handlings'>): number =>
  handlings.reduce((sum, { begun }) => sum + begun, 0);

/** Whether it is not known yet what there is to do in a document: it is on its way here. */
const isComing = ({ db }: Desk): boolean => !db.status.synced && !db.status.error;

/**
 * Begins to work.
 *
 * @throws {InvalidOptionError} for options and handlers that no document could be worked with.
 */
export function workIn(
  memory: Memory,
  doctype: Doctype<Mutations, Streams, Workflows>,
  options: WorkOptions,
  handlers: object,
): Working {
  const { streams = {}, workflows = {}, name } = doctype;
  const unknown = Object.keys(Object(options)).find((it) => !NAMES.includes(it));
  if (unknown !== undefined) {
    throw new InvalidOptionError(`there is no option ${unknown}: there are ${NAMES.join(', ')}`);
  }
  const { documents, documentsMax = DOCUMENTS_MAX, concurrency } = Object(options) as WorkOptions;
  if (typeof documents !== 'string' || !/^[^*]*\*?$/.test(documents) || documents === '') {
    throw new InvalidOptionError('documents has to be a name, or a beginning of names with a *');
  }
  if (!Number.isInteger(documentsMax) || documentsMax < 1) {
    throw new InvalidOptionError('documentsMax has to be a whole number, 1 or more');
  }
  const there = Object.keys({ ...streams, ...workflows });
  const names = Object.entries(Object(handlers)).filter(([, it]) => it !== undefined);
  const strange = names.find(([it]) => !there.includes(it));
  if (strange) {
    const has = there.join(', ') || 'none';
    throw new InvalidOptionError(`${name} has no stream or workflow ${strange[0]}: it has ${has}`);
  }
  if (names.length === 0) throw new InvalidOptionError('there is nothing that is handled');
  for (const [it, how] of names) checkHandling(doctype, [it, how, { concurrency }]);
  return new Workshop(memory, doctype, options, new Map(names));
}

/** Handles a document that nothing is given of, which throws what any other one would throw. */
function checkHandling(
  doctype: Doctype<Mutations, Streams, Workflows>,
  given: readonly [name: string, how: unknown, options: HandleOptions],
): void {
  const parts = { ...doctype.streams, ...doctype.workflows };
  const handle = parts[given[0]]?.[EVENTS]?.handle;
  if (!handle) throw new InvalidOptionError(`${given[0]} has no commands that could be handled`);
  const document = {
    connection: { call: () => 0, giveUp() {} },
    doctype,
    ending: new Set(),
    mustBeOpen() {},
  };
  const handling = handle(document as unknown as OpenStreams, given);
  (handling as Attempts<GivenCommand | GivenRun>).endWith();
}

/** Opens what is due, has its handlers do what there is to do, and closes it. */
class Workshop implements Working {
  readonly #memory: Memory;
  readonly #doctype: unknown;
  readonly #options: WorkOptions;
  readonly #server: string;
  readonly #documentsMax: number;
  readonly #handlers: ReadonlyMap<string, unknown>;
  /** By documents; undefined while one is being opened. */
  readonly #desks = new Map<string, Desk | undefined>();
  /** Documents that were told, the first of them first, and are not open. */
  readonly #waiting = new Set<string>();
  /** Documents that had nothing to do: how often, since when and until when they are left alone. */
  readonly #vain = new Map<string, { count: number; leftAt: number; until: number }>();
  /** What is being opened, or closed. */
  readonly #moves = new Set<Promise<void>>();
  readonly #ending = new AbortController();
  readonly #listening: Promise<void>;
  readonly #ended: Promise<void>;
  #closed: Promise<void> | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(
    memory: Memory,
    doctype: unknown,
    options: WorkOptions,
    handlers: ReadonlyMap<string, unknown>,
  ) {
    this.#memory = memory;
    this.#doctype = doctype;
    this.#options = options;
    this.#server = socketAddress(options.server);
    this.#documentsMax = options.documentsMax ?? DOCUMENTS_MAX;
    this.#handlers = handlers;
    let end = (): void => {};
    this.#ended = memory.keep(
      new Promise((resolve) => {
        end = resolve;
      }),
    );
    const { signal } = options;
    const leave = (): void => void this.#close(true);
    this.#listening = this.#listen().finally(() => {
      signal?.removeEventListener('abort', leave);
      end();
    });
    if (signal?.aborted) leave();
    else signal?.addEventListener('abort', leave, { once: true });
  }

  close(): Promise<void> {
    return this.#close(false);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** At once: what is at work is left to others. */
  async #close(atOnce: boolean): Promise<void> {
    this.#ending.abort();
    if (atOnce) for (const desk of this.#desks.values()) desk?.db.close().catch(() => {});
    this.#closed ??= this.#listening.then(() => this.#ended);
    await this.#closed;
  }

  async #listen(): Promise<void> {
    const { documents, token } = this.#options;
    const { signal } = this.#ending;
    const onError = (error: unknown): void => this.#tell(error, {});
    await this.#warmUp().catch(onError);
    for await (const line of dueLines(this.#server, documents, token, signal, onError)) {
      this.#hear(line);
    }
    this.#waiting.clear();
    for (const document of this.#desks.keys()) this.#shut(document);
    while (this.#moves.size > 0) await Promise.all(this.#moves);
    clearInterval(this.#timer);
  }

  /** The first one that is due waits for no engine, and a doctype that cannot work is told of. */
  async #warmUp(): Promise<void> {
    const document = crypto.randomUUID();
    const db = await this.#memory.open(this.#doctype, { document });
    await db.close();
    await this.#memory.destroy(document, { force: true });
  }

  #hear({ document, due }: DueLine): void {
    // Others were faster.
    if (due?.length === 0) this.#waiting.delete(document);
    if (due && !due.some((name) => this.#handlers.has(name))) return;
    const desk = this.#desks.get(document);
    // One that is open hears of it itself.
    if (this.#desks.has(document) && !desk?.isClosing) return;
    const vain = this.#vain.get(document);
    const isNews = vain && !this.#waiting.has(document);
    if (isNews && performance.now() > vain.leftAt + TOLD_AGAIN_MS) {
      vain.until = Math.min(vain.until, vain.leftAt + SHARED_MS_MAX);
    }
    this.#waiting.add(document);
    this.#timer ??= setInterval(() => this.#look(), LOOKS_MS);
    this.#openNext();
  }

  /** Opens what waits, as far as there is room. */
  #openNext(): void {
    const now = performance.now();
    let opening = 0;
    for (const desk of this.#desks.values()) {
      if (!desk || (!desk.isClosing && isComing(desk))) opening += 1;
    }
    for (const document of this.#waiting) {
      const isFull = this.#desks.size >= this.#documentsMax || opening >= OPENING_MAX;
      if (this.#ending.signal.aborted || isFull) return;
      if (this.#isLeft(document, now) || this.#desks.has(document)) continue;
      this.#waiting.delete(document);
      this.#desks.set(document, undefined);
      opening += 1;
      this.#move(this.#open(document).finally(() => this.#openNext()));
    }
  }

  /** Whether a document is left alone still, in which there was nothing to do. */
  #isLeft(document: string, now: number): boolean {
    return (this.#vain.get(document)?.until ?? 0) > now;
  }

  #move(move: Promise<void>): void {
    const moved: Promise<void> = move.finally(() => this.#moves.delete(moved));
    this.#moves.add(moved);
  }

  async #open(document: string): Promise<void> {
    const { token, webSocket, concurrency } = this.#options;
    const onError = (error: unknown, given?: GivenCommand | GivenRun): void =>
      this.#tell(error, { document, given });
    try {
      const where = { document, server: this.#server, token, webSocket };
      const db = await this.#memory.open(this.#doctype, where);
      const options: HandleOptions = { concurrency, onError };
      const handle = ([name, how]: [string, unknown]): unknown =>
        db.handle(...([name, how, options] as unknown as Parameters<typeof db.handle>));
      let handlings: unknown[];
      try {
        handlings = [...this.#handlers].map(handle);
      } catch (error) {
        await db.close();
        await this.#memory.destroy(document, { force: true }).catch(onError);
        throw error;
      }
      const now = performance.now();
      const desk = { db, handlings: handlings as Desk['handlings'], openedAt: now, idleSince: now };
      this.#desks.set(document, { ...desk, begun: 0, isClosing: false });
      // Once it has come there is room for the next one.
      db.on('status', () => this.#openNext());
      if (this.#ending.signal.aborted) this.#shut(document);
    } catch (error) {
      onError(error);
      this.#left(document, false);
    }
  }

  /** Closes what has nothing more to do, the longest idle first where others wait. */
  #look(): void {
    const now = performance.now();
    let pressed = this.#desks.size - this.#documentsMax;
    for (const document of this.#waiting) if (!this.#isLeft(document, now)) pressed += 1;
    const idle: [string, number, boolean][] = [];
    for (const [document, desk] of this.#desks) {
      if (!desk) continue;
      const begun = begunAt(desk);
      // What is quick has begun and ended between two looks.
      const works = desk.handlings.some(({ atWork }) => atWork > 0) || begun > desk.begun;
      desk.begun = begun;
      if (desk.isClosing) pressed -= 1;
      else if (works) desk.idleSince = now;
      else if (isComing(desk)) this.#await(document, desk, now);
      else idle.push([document, now - desk.idleSince, begun > 0]);
    }
    for (const [document, idleMs, hasBegun] of idle.sort(([, a], [, b]) => b - a)) {
      const least = hasBegun ? LINGERS_PRESSED_MS : LINGERS_VAIN_MS;
      if (idleMs < (pressed > 0 ? least : LINGERS_MS)) continue;
      pressed -= 1;
      this.#shut(document);
    }
    for (const [document, { until }] of this.#vain) {
      if (until + VAIN_MS_MAX < now) this.#vain.delete(document);
    }
    this.#openNext();
    if (this.#desks.size > 0 || this.#waiting.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** A document is on its way here, for which others wait but so long. */
  #await(document: string, desk: Desk, now: number): void {
    desk.idleSince = now;
    if (now - desk.openedAt < COMES_MS_MAX) return;
    this.#tell(new LateDocumentError(document), { document });
    this.#shut(document);
  }

  #shut(document: string): void {
    const desk = this.#desks.get(document);
    if (!desk || desk.isClosing) return;
    desk.isClosing = true;
    const shut = async (): Promise<void> => {
      const { db, handlings } = desk;
      try {
        await Promise.all(handlings.map((it) => it.close()));
        const { error } = db.status;
        if (error) this.#tell(error, { document });
        await db.close();
        // What the server has is fetched again, and there is nothing else.
        await this.#memory.destroy(document, { force: true });
      } catch (error) {
        // It was closed at once, or the app has it open as well.
        if (!this.#ending.signal.aborted) this.#tell(error, { document });
      }
      this.#left(document, begunAt(desk) > 0);
    };
    this.#move(shut());
  }

  /** A document is open no more. Where it had nothing to do it is left alone for a while. */
  #left(document: string, hasBegun: boolean): void {
    this.#desks.delete(document);
    if (hasBegun) {
      this.#vain.delete(document);
    } else {
      const count = Math.min((this.#vain.get(document)?.count ?? 0) + 1, 32);
      const ms = Math.min(VAIN_MS * 2 ** (count - 1), VAIN_MS_MAX);
      const leftAt = performance.now();
      this.#vain.set(document, { count, leftAt, until: leftAt + ms });
    }
    this.#openNext();
  }

  #tell(error: unknown, at: WorkPlace): void {
    const { onError, signal } = this.#options;
    // What is at work is left to others, as the app wants.
    if (signal?.aborted) return;
    try {
      if (onError) onError(error, at);
      else console.error(`working for ${at.document ?? this.#options.documents}:`, error);
    } catch (thrown) {
      reportError(thrown);
    }
  }
}
