/** What the hooks of all frameworks share: a document while it is used, and what is shown of it. */

import { isPassing } from './call.js';
import { callBack, soon } from './call-back.js';
import { type Database, isProbe, type Mutate, type Rejection } from './database.js';
import { type Doctype, type Mutations, toValue } from './doctype.js';
import { DocumentClosedError, type TidelogError } from './errors.js';
import type { LiveQuery } from './live-query.js';
import type { Param, Params } from './messages.js';
import { type OpenOptions, open } from './open.js';
import type { Other, Presence } from './presence.js';
import type { Row } from './rows.js';
import { parted } from './sql.js';
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

/** Who is present. A new object whenever that has changed. */
export interface Presences<State extends object> {
  /** The others, as `db.presence.others` has them; none until the document is open. */
  readonly others: readonly Other<State>[];
  /** How many are here, this one included. */
  readonly count: number;
  /**
   * Is present, and says this of itself: as `db.presence.set`, and once the document is open. The
   * same function each time. When the last component that has it is gone, it is present no longer.
   */
  readonly set: (state: State | null) => void;
}

/** Which document is wanted: one that the app opens, or has opened, itself; or how to open it. */
export type Wanted<Defined extends Mutations> =
  | OpenOptions
  | { readonly db: Database<Defined> | undefined; readonly document?: undefined };

/** Of the hook that gives mutations. */
export interface MutateOptions {
  /** Is told what the server has undone, as are all others, here and in other tabs. */
  readonly onRejected?: ((rejection: Rejection) => void) | undefined;
}

/** What is shown before anything is known, and by a server that renders. */
export const LOADING: Live<never> = { rows: [], error: null, state: 'loading' };

/** Milliseconds for which what nobody uses is kept: who used it may only be rendered anew. */
const LINGER_MS = 5_000;
/** Milliseconds after which a document that could not be opened is tried again. */
const RETRY_MS = 5_000;

/** Whether there is a page: a server that renders opens nothing. */
const IS_PAGE: boolean = typeof document !== 'undefined';

type Stop = () => void;

/** Something that is there while somebody listens to it, and a little longer. */
abstract class Shared {
  readonly #listeners = new Set<Stop>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Calls `listener` after every change, until what it returns is called. */
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
  /** Nobody has for a while. It may begin again. */
  protected abstract end(): void;

  protected get isUsed(): boolean {
    return this.#listeners.size > 0;
  }

  protected changed(): void {
    for (const listener of [...this.#listeners]) {
      if (this.#listeners.has(listener)) callBack(listener);
    }
  }

  protected linger(): void {
    clearTimeout(this.#timer);
    if (IS_PAGE) this.#timer = setTimeout(() => this.isUsed || this.end(), LINGER_MS);
  }
}

/** Tells whoever keeps a list whether this is to stand in it. */
type List = (it: object, isListed: boolean) => void;

/** A document while it is used. */
export class Opening<Defined extends Mutations = Mutations> extends Shared {
  /** The document, once it is open. */
  db: Database<Defined> | undefined;
  /** Why it could not be opened. */
  error: TidelogError | null = null;
  /** Gives the token, as the app said last. */
  token: OpenOptions['token'];
  /** How the document stands, once it is open. */
  readonly status = (): Status | undefined => this.db?.status;
  /** Its mutations, which throw until it is open. */
  readonly mutate: Mutate<Defined>;
  readonly #open: () => Promise<Database<Defined>>;
  readonly #list: List;
  readonly #watched = new Map<string, Watched<never>>();
  #attendance: Attendance<object> | undefined;
  #opened: Promise<Database<Defined>> | undefined;
  #stop: Stop | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(open: () => Promise<Database<Defined>>, list: List = () => {}) {
    super();
    this.#open = open;
    this.#list = list;
    this.mutate = mutationsOf(() => this.db);
  }

  /** What a query shows: the same object for all who show the same. */
  watch<R>(...watching: readonly unknown[]): Watched<R> {
    const [sql, params] = parted(watching);
    const key = `${sql}\0${keyOf(params)}`;
    const known = this.#watched.get(key) as Watched<R> | undefined;
    if (known) return known;
    const list = listIn(this.#watched, key);
    const watched = new Watched<R>(this, sql, params, list);
    list(watched, IS_PAGE);
    return watched;
  }

  /** Who is present: the same object for all who show it. */
  presences<State extends object>(): Attendance<State> {
    this.#attendance ??= new Attendance<object>(this as object);
    return this.#attendance as unknown as Attendance<State>;
  }

  /** Tells `onRejected` what the server undoes in the document that is open. */
  onRejected(listener: (rejection: Rejection) => void): Stop {
    let heard: Database<Defined> | undefined;
    let stop: Stop | undefined;
    const listen = (): void => {
      if (heard === this.db) return;
      stop?.();
      heard = this.db;
      stop = heard?.on('rejected', listener);
    };
    const leave = this.subscribe(listen);
    listen();
    return () => {
      leave();
      stop?.();
    };
  }

  protected override begin(): void {
    this.#list(this, true);
    if (!this.#opened) this.#try();
    this.#hear();
  }

  protected override pause(): void {
    this.#stop?.();
    this.#stop = undefined;
    // Whoever comes next tries again at once.
    if (this.error) this.end();
  }

  protected override end(): void {
    this.#list(this, false);
    clearTimeout(this.#retry);
    const opened = this.#opened;
    this.#opened = undefined;
    this.db = undefined;
    this.error = null;
    opened?.then((db) => db.close()).catch(() => {});
  }

  #try(): void {
    const opened = this.#open();
    this.#opened = opened;
    opened.then(
      (db) => this.#settle(opened, db, null),
      (error) => this.#settle(opened, undefined, error),
    );
  }

  #settle(opened: unknown, db: Database<Defined> | undefined, error: TidelogError | null): void {
    if (this.#opened !== opened || (db && this.db === db)) return;
    if (error && error.message !== this.error?.message) {
      console.error('a document could not be opened:', error);
    }
    this.db = db;
    this.error = error;
    db?.endWithIt({ endWith: (closed) => this.#isClosed(db, closed) });
    if (this.isUsed) this.#hear();
    const mayPass = error && (isPassing(error) || error.code === 'server-unreachable');
    if (mayPass) this.#retry = setTimeout(() => this.#try(), RETRY_MS);
    this.changed();
  }

  /** The app has closed it. It is opened anew for whoever comes once nobody uses it any more. */
  #isClosed(db: Database<Defined>, closed: TidelogError): void {
    if (this.db !== db) return;
    this.#stop?.();
    this.#stop = undefined;
    this.db = undefined;
    this.error = closed;
    if (!this.isUsed) this.end();
    this.changed();
  }

  #hear(): void {
    this.#stop ??= this.db?.on('status', () => this.changed());
  }
}

/** What a query shows, for as long as somebody looks. */
export class Watched<R> extends Shared {
  readonly #opening: Opening;
  readonly #of: readonly [string, Params | undefined];
  readonly #list: List;
  /** The document of the query, and the query. */
  #db: Database | undefined;
  #live: LiveQuery<R> | undefined;
  /** Why it cannot be listened to. */
  #refusal: TidelogError | null = null;
  #leave: Stop | undefined;
  #stop: Stop | undefined;
  #shown: Live<R> = LOADING;
  #loaded: Promise<void> | undefined;

  constructor(opening: object, sql: string, params: Params | undefined, list: List) {
    super();
    this.#opening = opening as Opening;
    // As they are now: who gave them may change them.
    this.#of = [sql, params && copyOf(params)];
    this.#list = list;
    this.linger();
  }

  /** What it shows now. */
  readonly shown = (): Live<R> => this.#shown;

  /** Resolves once there is something to show, and has it kept up to date for a while. */
  readonly loaded = (): Promise<void> => {
    this.#loaded ??= this.#load().finally(() => {
      this.#loaded = undefined;
    });
    return this.#loaded;
  };

  async #load(): Promise<void> {
    let stop: Stop | undefined;
    await new Promise<void>((resolve) => {
      const look = (): void => {
        if (this.#shown.state !== 'loading') resolve();
      };
      stop = this.subscribe(look);
      look();
    });
    setTimeout(() => stop?.(), LINGER_MS);
  }

  protected override begin(): void {
    this.#list(this, true);
    this.#leave = this.#opening.subscribe(() => this.#look());
    this.#look();
  }

  protected override pause(): void {
    this.#leave?.();
    this.#stop?.();
    this.#stop = undefined;
    // Whoever looks next begins anew where there was nothing but an error.
    if (this.#shown.rows === LOADING.rows) this.#shown = LOADING;
  }

  protected override end(): void {
    this.#list(this, false);
    this.#live = undefined;
    // What it showed may be old by the time that somebody looks again.
    this.#shown = LOADING;
  }

  #look(): void {
    const { db, error: opening } = this.#opening;
    if (db !== this.#db) {
      this.#stop?.();
      this.#stop = undefined;
      this.#live = undefined;
      this.#refusal = null;
      this.#db = db;
    }
    if (db && !this.#stop) this.#listen(db);
    const before = this.#shown;
    const rows = this.#live?.rows ?? before.rows;
    const own = this.#refusal ?? this.#live?.error;
    const error = own ?? opening;
    const has = rows === LOADING.rows ? 'loading' : db?.status.synced ? 'ready' : 'syncing';
    const state = error ? 'error' : has;
    if (rows === before.rows && error === before.error && state === before.state) return;
    // Not every component shows it.
    if (own && own !== before.error && !isClosed(own)) console.error('a live query:', own);
    this.#shown = { rows, error, state };
    this.changed();
  }

  #listen(db: Database): void {
    this.#refusal = null;
    try {
      this.#live ??= db.live<R>(...this.#of);
      this.#stop = this.#live.subscribe((_rows, _error) => this.#look());
    } catch (error) {
      this.#refusal = error as TidelogError;
      this.#stop = () => {};
    }
  }
}

const NOBODY: readonly never[] = [];

/** Who is present with a document, for as long as somebody looks. */
export class Attendance<State extends object> extends Shared {
  readonly #opening: Opening;
  #db: Database | undefined;
  #state: State | null = null;
  #leave: Stop | undefined;
  #stop: Stop | undefined;
  #shown: Presences<State>;

  constructor(opening: object) {
    super();
    this.#opening = opening as Opening;
    const set = (state: State | null): void => {
      this.#presence?.set(state);
      this.#state = state;
    };
    this.#shown = { others: NOBODY, count: 1, set };
  }

  /** What it shows now. */
  readonly shown = (): Presences<State> => this.#shown;

  get #presence(): Presence<State> | undefined {
    return this.#db?.presence.of<State>();
  }

  protected override begin(): void {
    this.#leave = this.#opening.subscribe(() => this.#look());
    this.#look();
  }

  protected override pause(): void {
    this.#leave?.();
    this.#stop?.();
    this.#stop = undefined;
    const presence = this.#presence;
    this.#db = undefined;
    // Another component may take its place in the same turn.
    soon(() => {
      if (this.isUsed) return;
      this.#state = null;
      presence?.set(null);
    });
  }

  protected override end(): void {}

  #look(): void {
    const { db } = this.#opening;
    if (db === this.#db) return;
    this.#stop?.();
    this.#db = db;
    const show = (): void => {
      const { others = NOBODY, count = 1 } = this.#presence ?? {};
      const before = this.#shown;
      const isSame = others === before.others || others.length + before.others.length === 0;
      if (isSame && count === before.count) return;
      this.#shown = { ...before, others, count };
      this.changed();
    };
    this.#stop = this.#presence?.subscribe(show);
    // What was set before, which it takes or has thrown at whoever set it.
    if (this.#state) callBack(() => this.#presence?.set(this.#state));
    show();
  }
}

/** The documents that the hooks of one doctype have open. */
export class Openings<Defined extends Mutations> {
  readonly #doctype: Doctype<Defined>;
  readonly #open = new Map<string, Opening<Defined>>();
  /** Of documents that the app has opened itself. */
  readonly #given = new WeakMap<Database<Defined>, Opening<Defined>>();
  /** The one of an app that has not opened its own yet. */
  readonly #none: Opening<Defined> = new Opening<Defined>(() => new Promise(() => {}));

  constructor(doctype: Doctype<Defined>) {
    this.#doctype = doctype;
  }

  /** The document that is wanted: one for all who want the same, whoever gives its token. */
  of(wanted: Wanted<Defined>): Opening<Defined> {
    if ('db' in wanted) return wanted.db ? this.#ofGiven(wanted.db) : this.#none;
    const [key, { token, ...options }] = [keyOfWanted(wanted), wanted];
    let opening = this.#open.get(key);
    if (!opening) {
      const list = listIn(this.#open, key);
      const made: Opening<Defined> = new Opening<Defined>(() => {
        const latest = token && (() => made.token?.() as string);
        return open(this.#doctype, { ...options, token: latest });
      }, list);
      list(made, IS_PAGE);
      opening = made;
    }
    opening.token = token;
    return opening;
  }

  #ofGiven(db: Database<Defined>): Opening<Defined> {
    let opening = this.#given.get(db);
    if (!opening) {
      opening = new Given(db);
      this.#given.set(db, opening);
    }
    return opening;
  }
}

/** A document that the app has opened itself, and closes. */
class Given<Defined extends Mutations> extends Opening<Defined> {
  constructor(db: Database<Defined>) {
    super(async () => db);
    this.db = db;
  }

  protected override end(): void {}
}

/** What puts something at its key of a map, unless there is another one, or takes it out. */
function listIn(map: Map<string, object>, key: string): List {
  return (it, isListed) => {
    if (isListed && !map.has(key)) map.set(key, it);
    else if (!isListed && map.get(key) === it) map.delete(key);
  };
}

/** The mutations of whatever document there is when they are called. */
export function mutationsOf<Defined extends Mutations>(
  db: () => Database<Defined> | undefined,
): Mutate<Defined> {
  const made: Record<string, (args: never) => unknown> = Object.create(null);
  return new Proxy(made as Mutate<Defined>, {
    get: (_, name) => {
      if (isProbe(name)) return undefined;
      // The same function each time: effects and callbacks depend on it.
      made[name] ??= (args) => {
        const mutate = db()?.mutate as typeof made | undefined;
        if (mutate) return mutate[name]!(args);
        throw new DocumentClosedError(
          'the document is not open: mutate once useDocument() gives it',
        );
      };
      return made[name];
    },
  });
}

/** The same text for the same document, and whether there is a token for it. */
export function keyOfWanted({ token, ...options }: OpenOptions): string {
  const named = Object.entries({ ...options, token: token !== undefined }).sort();
  return JSON.stringify(named, (_, it) => (it instanceof URL ? it.href : it));
}

/** Whether it is told since the document was closed, which whoever did that knows. */
const isClosed = (error: TidelogError): boolean => error instanceof DocumentClosedError;

/** The parameters as they are now; what is none stays what it is, and the query says so. */
function copyOf(params: Params): Params {
  const copy = (it: unknown): Param => (Object(it) === it && toValue(it)) || (it as Param);
  if (Array.isArray(params)) return params.map(copy);
  const isNone = typeof params !== 'object' || ArrayBuffer.isView(params);
  const named = Object.entries(isNone ? {} : params).map(([name, it]) => [name, copy(it)] as const);
  return named.length > 0 ? Object.fromEntries(named) : params;
}

/** The same text for the same parameters, also for what is none: the query says what is wrong. */
function keyOf(params: Params | undefined): string {
  return JSON.stringify(params ?? [], function (this: Record<string, unknown>, name, json) {
    const it = this[name];
    if (it instanceof Date) return { date: json };
    if (it === undefined || typeof it === 'function' || typeof it === 'symbol') {
      return { [typeof it]: String(it) };
    }
    if (typeof it === 'bigint') return { bigint: String(it) };
    if (typeof it === 'number' && !Number.isFinite(it)) return { number: String(it) };
    if (!(ArrayBuffer.isView(it) || it instanceof ArrayBuffer)) return it;
    try {
      const view = it instanceof ArrayBuffer ? new Uint8Array(it) : it;
      return { bytes: [...new Uint8Array(view.buffer, view.byteOffset, view.byteLength)] };
    } catch {
      // They were given away to a worker, which the query says.
      return { bytes: null };
    }
  });
}
