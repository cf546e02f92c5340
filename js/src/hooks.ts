/** What the hooks of all frameworks share: a document while it is used, and what is shown of it. */

import { isPassing } from './call.js';
import { callAll, callBack, soon } from './call-back.js';
import {
  type BoundQuery,
  bindOrFail,
  type Database,
  isProbe,
  type Mutate,
  type Rejection,
} from './database.js';
import type { Doctype, Mutations } from './doctype.js';
import { DocumentClosedError, type TidelogError } from './errors.js';
import type { LiveQuery } from './live-query.js';
import { type OpenOptions, open } from './open.js';
import { NONE, type Other, type Presence } from './presence.js';
import type { Row } from './rows.js';
import { parted } from './sql.js';

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
export const LOADING: Live<never> = { rows: NONE, error: null, state: 'loading' };

/**
 * Milliseconds for which what nobody uses is kept, since who used it may only be rendered anew, and
 * after which a document that could not be opened is tried again.
 */
const PAUSE_MS = 5_000;

/** Whether there is a page: a server that renders opens nothing. */
export const IS_PAGE: boolean = typeof document !== 'undefined';

type Stop = () => void;

const nothing: Stop = () => {};

/** What is there while somebody listens to it, and a little longer. */
export interface Shared {
  /** Calls `listener`, which listens once, after every change until what it returns is called. */
  readonly subscribe: (listener: Stop) => Stop;
}

/** The same where it shows something. */
export interface Shown<T> extends Shared {
  /** What it showed first. */
  readonly first: T;
  /** What it shows now. */
  readonly shown: () => T;
}

/** A document while it is used. */
export interface Opening<Defined extends Mutations = Mutations> extends Shared {
  /** The document, once it is open. */
  db: Database<Defined> | undefined;
  /** Why it could not be opened. */
  error: TidelogError | null;
  /** Gives the token, as the app said last. */
  token?: OpenOptions['token'];
  /** Its mutations, which throw until it is open. */
  readonly mutate: Mutate<Defined>;
  /** What a query shows: the same object for all who show the same. */
  readonly watch: <R>(...watching: readonly unknown[]) => Watched<R>;
  /** Who is present. */
  readonly presences: Attendance<object>;
  /** Tells `listener` what the server undoes in the document that is open. */
  readonly onRejected: (listener: (rejection: Rejection) => void) => Stop;
}

/** What a query shows, for as long as somebody looks. */
export interface Watched<R> extends Shown<Live<R>> {
  /** Of those who wait until there is something to show. */
  loading?: Promise<unknown> | undefined;
}

/** Who is present with a document, for as long as somebody looks. */
export type Attendance<State extends object> = Shown<Presences<State>>;

/** What of something shared is for its owner alone. */
interface Owned<T> extends Shown<T> {
  readonly isUsed: () => boolean;
  readonly changed: () => void;
  /** Shows something else, if a field of it is another one. */
  readonly show: (next: T) => void;
}

/**
 * Something shared, which shows `shown` at first: `begin` is called when somebody listens, what
 * that returns when nobody does any more, and `end` when nobody has for a while. It may begin
 * again. It stands in `map`, unless another does, from its making to its end and while it is used.
 */
function share<T extends object>(
  shown: T,
  begin: () => Stop,
  end: Stop,
  map: Map<unknown, unknown> = new Map(),
  key?: unknown,
): Owned<T> {
  const listeners = new Set<Stop>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let pause: Stop;
  const list = (): void => {
    if (!map.has(key)) map.set(key, it);
  };
  const linger = (): void => {
    timer = setTimeout(() => {
      if (map.get(key) === it) map.delete(key);
      end();
    }, PAUSE_MS);
  };
  const isUsed = (): boolean => listeners.size > 0;
  const it: Owned<T> = {
    isUsed,
    first: shown,
    shown: () => shown,
    show(next) {
      const names = Object.keys(next) as (keyof T)[];
      if (names.every((name) => next[name] === shown[name])) return;
      shown = next;
      it.changed();
    },
    changed() {
      callAll(listeners, (listener) => listener());
    },
    subscribe(listener) {
      if (!IS_PAGE) return nothing;
      clearTimeout(timer);
      list();
      if (listeners.add(listener).size === 1) pause = begin();
      return () => {
        if (!listeners.delete(listener) || isUsed()) return;
        pause();
        linger();
      };
    },
  };
  if (IS_PAGE) {
    list();
    linger();
  }
  return it;
}

/** A document that is opened when somebody uses it; or without `open` one that the app has open. */
function openingOf<Defined extends Mutations>(
  given?: Database<Defined>,
  open?: () => Promise<Database<Defined>>,
  map?: Map<unknown, unknown>,
  key?: unknown,
): Opening<Defined> {
  const watched = new Map<string, Watched<never>>();
  let opened: Promise<Database<Defined>> | undefined;
  let stop: Stop | undefined;

  const begin = (): Stop => {
    if (open && !opened) start();
    hear();
    return () => {
      hear();
      // Whoever comes next tries again at once.
      if (it.error) end();
    };
  };
  const end = (): void => {
    opened?.then((db) => db.close()).catch(nothing);
    opened = undefined;
    stand(given, null);
  };
  /** Listens to the document while somebody listens here. */
  const hear = (): void => {
    stop?.();
    stop = it.isUsed() ? it.db?.on('status', it.changed) : undefined;
  };
  const stand = (db: Database<Defined> | undefined, error: TidelogError | null): void => {
    it.db = db;
    it.error = error;
    hear();
    it.changed();
  };
  const start = async (): Promise<void> => {
    const own = open!();
    opened = own;
    let db: Database<Defined> | undefined;
    let error: TidelogError | null = null;
    try {
      db = await own;
    } catch (why) {
      error = why as TidelogError;
    }
    if (opened !== own) return;
    if (error && error.message !== it.error?.message) {
      console.error('a document does not open:', error);
    }
    db?.endWithIt({
      endWith(closed) {
        if (it.db !== db) return;
        // The app has closed it. It is opened anew once nobody uses it any more.
        stand(undefined, closed);
        if (!it.isUsed()) end();
      },
    });
    stand(db, error);
    if (error && (isPassing(error) || error.code === 'server-unreachable')) {
      setTimeout(() => opened === own && start(), PAUSE_MS);
    }
  };

  const shared = share({}, begin, end, map, key);
  const it: Owned<object> & Opening<Defined> = Object.assign(shared, {
    db: given,
    error: null,
    mutate: mutationsOf(() => it.db),
    watch<R>(...watching: readonly unknown[]) {
      const [sql, params] = parted(watching);
      // As they are now: who gave the parameters may change them.
      const bound = bindOrFail(sql, params);
      const key = keyOf(bound);
      const known = watched.get(key) as Watched<R> | undefined;
      return known ?? watchedOf<R>(it as never, bound, watched, key);
    },
    presences: attendanceOf(shared as never),
    onRejected: (listener: (rejection: Rejection) => void) =>
      follow(it, (db) => db?.on('rejected', listener)),
  });
  return it;
}

/**
 * Calls `listen` with the document that is open, and with each that is later, once what it returned
 * before was called; and `look` after every change.
 */
function follow<Defined extends Mutations>(
  opening: Opening<Defined>,
  listen: (db: Database<Defined> | undefined) => Stop | undefined,
  look: Stop = nothing,
): Stop {
  let heard: Database<Defined> | null | undefined = null;
  let stop: Stop | undefined;
  const see = (): void => {
    if (heard !== opening.db) {
      stop?.();
      heard = opening.db;
      stop = listen(heard);
    }
    look();
  };
  const leave = opening.subscribe(see);
  if (IS_PAGE) see();
  return () => {
    leave();
    stop?.();
  };
}

/** What a query shows, which is found by its key. */
function watchedOf<R>(
  opening: Opening,
  bound: BoundQuery | TidelogError,
  map: Map<unknown, unknown>,
  key: string,
): Watched<R> {
  /** The document of the query, and the query. */
  let db: Database | undefined;
  let live: LiveQuery<R> | undefined;
  /** Why it cannot be listened to. */
  let refusal: TidelogError | null = null;

  const listen = (now: Database | undefined): Stop | undefined => {
    if (now !== db) live = undefined;
    db = now;
    refusal = null;
    try {
      live ??= db?.watch<R>(bound);
      return live?.subscribe(look);
    } catch (error) {
      refusal = error as TidelogError;
      return undefined;
    }
  };
  const look = (): void => {
    const before = it.shown();
    const rows = live?.rows ?? before.rows;
    const own = refusal ?? live?.error;
    const error = own ?? opening.error;
    const has = rows === NONE ? 'loading' : db?.status.synced ? 'ready' : 'syncing';
    const state = error ? 'error' : has;
    // Not every component shows it. Whoever closed the document knows that.
    if (own && own !== before.error && !(own instanceof DocumentClosedError)) {
      console.error('a live query:', own);
    }
    it.show({ rows, error, state });
  };
  const begin = (): Stop => {
    const leave = follow(opening, listen, look);
    return () => {
      leave();
      // Whoever looks next begins anew where there was nothing but an error.
      if (it.shown().rows === NONE) it.show(LOADING);
    };
  };
  const end = (): void => {
    live = undefined;
    // What it showed may be old by the time that somebody looks again.
    it.show(LOADING);
  };
  const it = share<Live<R>>(LOADING, begin, end, map, key);
  return it;
}

/** Resolves once there is something to show, and has it kept up to date for a while. */
export function loaded(watched: Watched<unknown>): Promise<unknown> {
  let stop = nothing;
  const load = (resolve: () => void): void => {
    const look = (): void => {
      if (watched.shown().state !== 'loading') resolve();
    };
    stop = watched.subscribe(look);
    look();
  };
  watched.loading ??= new Promise<void>(load).finally(() => {
    watched.loading = undefined;
    setTimeout(stop, PAUSE_MS);
  });
  return watched.loading;
}

/** Who is present. */
function attendanceOf(opening: Opening): Attendance<object> {
  let presence: Presence<object> | undefined;
  let state: object | null = null;
  let wasUsed = false;
  const forget = (): void => {
    if (!it.isUsed()) state = null;
  };
  const set = (next: object | null): void => {
    presence?.set(next);
    state = next;
    // By who has just gone, perhaps: whoever looks later does not say it.
    if (wasUsed && !it.isUsed()) setTimeout(forget, PAUSE_MS / 10);
  };
  const nobody: Presences<object> = { others: NONE, count: 1, set };
  const show = (): void => {
    const { others, count } = presence ?? nobody;
    it.show({ others, count, set });
  };
  const listen = (db: Database | undefined): Stop | undefined => {
    presence = db?.presence.of<object>();
    const stop = presence?.subscribe(show);
    // What was set before, which it takes or has thrown at whoever set it.
    if (state) callBack(() => presence?.set(state));
    show();
    return stop;
  };
  const begin = (): Stop => {
    const leave = follow(opening, listen);
    wasUsed = true;
    return () => {
      leave();
      const [left, said] = [presence, state];
      presence = undefined;
      // Another component may take its place in the same turn.
      soon(() => {
        forget();
        // What the app has said itself stays said.
        if (said && !state) left?.set(null);
      });
    };
  };
  const it = share<Presences<object>>(nobody, begin, nothing);
  return it;
}

/**
 * What finds the documents that the hooks of one doctype have open, by what is wanted: one for all
 * who want the same, whoever gives its token.
 */
export function openingsOf<Defined extends Mutations>(
  doctype: Doctype<Defined>,
): (wanted: Wanted<Defined>) => Opening<Defined> {
  const opened = new Map<string, Opening<Defined>>();
  /** Of documents that the app has opened itself, and of one that it has not yet. */
  const given = new WeakMap<object, Opening<Defined>>();
  return (wanted) => {
    if ('db' in wanted) {
      const key = wanted.db ?? given;
      const opening = given.get(key) ?? openingOf(wanted.db);
      given.set(key, opening);
      return opening;
    }
    const { token, ...options } = wanted;
    // The same text for the same document, and whether there is a token for it.
    const key = JSON.stringify(Object.entries({ ...options, token: !token }).sort());
    const latest = token && (() => opening.token?.() as string);
    const start = () => open(doctype, { ...options, token: latest });
    const opening: Opening<Defined> = opened.get(key) ?? openingOf(undefined, start, opened, key);
    opening.token = token;
    return opening;
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
        throw new DocumentClosedError('the document is not open: mutate once it is');
      };
      return made[name];
    },
  });
}

/** The same text for the same query, and for what is none where the same is wrong. */
function keyOf(bound: BoundQuery | TidelogError): string {
  return JSON.stringify(bound, (_, it) =>
    /number|bigint/.test(typeof it) || it instanceof Uint8Array ? { [typeof it]: `${it}` } : it,
  );
}
