/** What the hooks of all frameworks share: a document that is being opened, and what is shown. */

import type { Database } from './database.js';
import type { Doctype, Mutations } from './doctype.js';
import { DocumentClosedError, type TidelogError } from './errors.js';
import type { LiveQuery } from './live-query.js';
import type { Params } from './messages.js';
import { type OpenOptions, open } from './open.js';
import type { Row } from './rows.js';
import type { Status } from './status.js';

/** What a live query shows. A new object whenever that has changed. */
export interface Live<R = Row> {
  /** The newest rows; those that did not change keep their identity. None before there are any. */
  readonly rows: readonly R[];
  /** What is wrong, with the query or with opening its document, while it lasts. */
  readonly error: TidelogError | null;
  /**
   * `loading` until there are rows, `syncing` as long as this device may never have had all that
   * the server has, so that rows that are missing may only not be here yet, then `ready`; `error`
   * while something is wrong.
   */
  readonly state: 'loading' | 'syncing' | 'ready' | 'error';
}

/** Which document is wanted: one that the app has opened itself, or how to open it. */
export type Wanted<Defined extends Mutations> =
  | OpenOptions
  | { readonly db: Database<Defined>; readonly document?: undefined };

/** What is shown before anything is known, and by a server that renders. */
export const LOADING: Live<never> = { rows: [], error: null, state: 'loading' };

/** Milliseconds for which what nobody uses is kept: who used it may only be rendered anew. */
const LINGER_MS = 5_000;

/** Whether there is a page: a server that renders opens nothing. */
const IS_PAGE: boolean = typeof document !== 'undefined';

type Stop = () => void;

/** Something whose use is counted: it begins with the first listener, and ends after the last. */
abstract class Shared {
  readonly #listeners = new Set<Stop>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Calls `listener` after every change, and has this used until then. */
  readonly subscribe = (listener: Stop): Stop => {
    const own = (): void => listener();
    clearTimeout(this.#timer);
    this.#listeners.add(own);
    if (this.#listeners.size === 1) this.begin();
    return () => {
      if (!this.#listeners.delete(own) || this.#listeners.size > 0) return;
      this.pause();
      this.linger();
    };
  };

  protected abstract begin(): void;
  /** Nobody listens. */
  protected abstract pause(): void;
  /** Nobody has for a while. */
  protected abstract end(): void;

  protected get isUsed(): boolean {
    return this.#listeners.size > 0;
  }

  protected changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** Ends this after a while, unless somebody listens by then. */
  protected linger(): void {
    clearTimeout(this.#timer);
    if (!IS_PAGE) return;
    this.#timer = setTimeout(() => this.isUsed || this.end(), LINGER_MS);
  }
}

/** A document from when it is wanted until it is not used any more. */
export class Opening<Defined extends Mutations = Mutations> extends Shared {
  /** The document, once it is open. */
  db: Database<Defined> | undefined;
  /** Why it could not be opened. */
  error: TidelogError | null = null;
  /** Settles when either is known; never on a server that renders. */
  readonly settled: Promise<void>;
  readonly #onEnd: Stop;
  readonly #watched = new Map<string, Watched<never>>();
  #stop: Stop | undefined;

  /** `onEnd`: it is closed, since nobody used it. */
  constructor(opened: Promise<Database<Defined>> | Database<Defined> | undefined, onEnd: Stop) {
    super();
    this.#onEnd = onEnd;
    this.settled = new Promise((resolve) => {
      const settle = (): void => {
        resolve();
        if (this.isUsed) this.begin();
        else this.linger();
        this.changed();
      };
      if (opened instanceof Promise) {
        opened.then(
          (db) => {
            this.db = db;
            settle();
          },
          (error) => {
            this.error = error;
            settle();
          },
        );
      } else if (opened) {
        this.db = opened;
        resolve();
      }
    });
  }

  /** How the document stands, once it is open. */
  readonly status = (): Status | undefined => this.db?.status;

  /** What a query shows: the same object for all who show the same. */
  watch<R>(sql: string, params?: Params): Watched<R> {
    const key = `${sql}\0${keyOf(params)}`;
    let watched = this.#watched.get(key) as Watched<R> | undefined;
    if (!watched) {
      watched = new Watched<R>(this, sql, params, () => this.#watched.delete(key));
      if (IS_PAGE) this.#watched.set(key, watched as Watched<never>);
    }
    return watched;
  }

  protected override begin(): void {
    this.#stop ??= this.db?.on('status', () => this.changed());
  }

  protected override pause(): void {
    this.#stop?.();
    this.#stop = undefined;
  }

  protected override end(): void {
    this.#onEnd();
  }
}

/** The part of an opening that its queries need. */
interface Source {
  readonly db: Pick<Database, 'live' | 'status'> | undefined;
  readonly error: TidelogError | null;
  readonly subscribe: (listener: Stop) => Stop;
}

/** What a query shows, for as long as somebody looks. */
export class Watched<R> extends Shared {
  readonly #source: Source;
  readonly #of: readonly [string, Params | undefined];
  readonly #onEnd: Stop;
  #live: LiveQuery<R> | undefined;
  /** Why it cannot be listened to. */
  #refusal: TidelogError | null = null;
  #isListening = false;
  #stops: Stop[] = [];
  #shown: Live<R> = LOADING;

  constructor(source: Source, sql: string, params: Params | undefined, onEnd: Stop) {
    super();
    this.#source = source;
    this.#of = [sql, params];
    this.#onEnd = onEnd;
    this.linger();
  }

  /** What it shows now. */
  readonly shown = (): Live<R> => this.#shown;

  /** Resolves once there is something to show, and has it kept up to date for a while. */
  readonly loaded = (): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (this.#shown.state === 'loading') return;
        resolve();
        setTimeout(stop, LINGER_MS);
      };
      const stop = this.subscribe(look);
      look();
    });

  protected override begin(): void {
    this.#stops = [this.#source.subscribe(() => this.#look())];
    this.#look();
  }

  protected override pause(): void {
    for (const stop of this.#stops.splice(0)) stop();
    this.#isListening = false;
  }

  protected override end(): void {
    this.#onEnd();
  }

  #look(): void {
    const { db, error: opening } = this.#source;
    if (db && !this.#isListening) this.#listen(db);
    const before = this.#shown;
    const rows = this.#live?.rows ?? before.rows;
    const error = this.#refusal ?? this.#live?.error ?? opening;
    const has = rows === LOADING.rows ? 'loading' : db?.status.synced ? 'ready' : 'syncing';
    const state = error ? 'error' : has;
    if (rows === before.rows && error === before.error && state === before.state) return;
    this.#shown = { rows, error, state };
    this.changed();
  }

  #listen(db: NonNullable<Source['db']>): void {
    this.#isListening = true;
    this.#refusal = null;
    try {
      this.#live ??= db.live<R>(...this.#of);
      this.#stops.push(this.#live.subscribe((_rows, _error) => this.#look()));
    } catch (error) {
      this.#refusal = error as TidelogError;
    }
  }
}

/** The documents that the hooks of one doctype have open. */
export class Openings<Defined extends Mutations> {
  readonly #doctype: Doctype<Defined>;
  readonly #open = new Map<string, Opening<Defined>>();

  constructor(doctype: Doctype<Defined>) {
    this.#doctype = doctype;
  }

  /** The document that is wanted: one for all who want the same. */
  of(wanted: Wanted<Defined>): Opening<Defined> {
    if (!IS_PAGE) return new Opening<Defined>(undefined, () => {});
    if ('db' in wanted) return new Opening(wanted.db, () => {});
    const key = keyOfWanted(wanted);
    let opening = this.#open.get(key);
    if (!opening) {
      const opened = open(this.#doctype, wanted);
      opening = new Opening<Defined>(opened, () => {
        this.#open.delete(key);
        opened.then(
          (db) => db.close(),
          () => {},
        );
      });
      this.#open.set(key, opening);
    }
    return opening;
  }
}

/** Whether two want the same document, whoever gives the token. */
export function keyOfWanted({ token: _, ...options }: OpenOptions): string {
  return JSON.stringify(Object.entries(options).sort(), (__, it) =>
    it instanceof URL ? it.href : it,
  );
}

/** The same text for the same parameters. */
export function keyOf(params: Params | undefined): string {
  return JSON.stringify(params ?? [], (_, it) => {
    if (typeof it === 'bigint') return { bigint: String(it) };
    if (typeof it === 'number' && !Number.isFinite(it)) return { number: String(it) };
    if (ArrayBuffer.isView(it) || it instanceof ArrayBuffer) {
      const bytes = it instanceof ArrayBuffer ? new Uint8Array(it) : (it as Uint8Array);
      return { bytes: [...bytes] };
    }
    return it;
  });
}

/** The mutations of a document that is not open yet: each throws. */
export function notOpen(): never {
  const why = 'the document is not open yet: mutate once useDocument() gives it';
  return new Proxy({} as never, {
    get: (_, name) => {
      if (typeof name === 'symbol' || name === 'then' || name.startsWith('__')) return undefined;
      return () => {
        throw new DocumentClosedError(why);
      };
    },
  });
}
