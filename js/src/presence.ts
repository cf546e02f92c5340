/** Who is present with a document, as an app sees it. */

import { callAll, soon } from './call-back.js';
import { DocumentClosedError, InvalidOptionError } from './errors.js';
import type { News } from './messages.js';

/** Bytes of a state as JSON; see `PRESENCE_STATE_SIZE_MAX` in crate `types`. */
const STATE_SIZE_MAX = 4096;

/** Others who are seen at most; see `PRESENCE_SEEN_MAX`. */
const SEEN_MAX = 100;

/** Nobody, and no rows. */
export const NONE: readonly never[] = [];

/** Somebody else who is present. The same object for as long as nothing of it has changed. */
export interface Other<State = Readonly<Record<string, unknown>>> {
  /** Tells it from all others for as long as it is present. */
  readonly key: string;
  /** Who it is, by its token's `sub`; null on a development server. */
  readonly user: string | null;
  /** The browser, or rather what is at work in it: the same for all of its tabs. */
  readonly client: string;
  /** What it says of itself. */
  readonly state: State;
}

type Listener<State> = (others: readonly Other<State>[]) => void;

/** What an unsubscribing function is for. */
type Stop = () => void;

/**
 * Who else has a document open at this moment, and what this one tells them of itself: volatile, on
 * no disk. Nothing of it travels before it is first used.
 *
 * @example
 * ```ts
 * db.presence.set({ name: 'Ada', at: { x: 3, y: 4 } });
 * const stop = db.presence.subscribe((others) => {
 *   console.log(db.presence.count, others.map(({ user, state }) => [user, state]));
 * });
 * ```
 */
export class Presence<State extends object = Readonly<Record<string, unknown>>> {
  /** @internal Vue leaves what has this as it is: a proxy around it has none of its state. */
  readonly __v_skip: true = true;
  readonly #say: (state: string | null) => void;
  readonly #listeners = new Set<Listener<State>>();
  readonly #seen = new Map<number, Other<State>>();
  #others: readonly Other<State>[] = NONE;
  #count = 1;
  #state: string | null = null;
  #isDue = false;
  #isClosed = false;

  /**
   * @internal
   * @param say tells the engine.
   */
  constructor(say: (state: string | null) => void) {
    this.#say = say;
    this.#sayIt();
  }

  /**
   * The others who are present, those first who came first, and 100 of them at most. A new array
   * whenever something has changed. None without a server, or while it is not there.
   */
  get others(): readonly Other<State>[] {
    return this.#others;
  }

  /** How many are here: this one, and all others who are present, seen or not. */
  get count(): number {
    return this.#count;
  }

  /**
   * Is present, and says this of itself until the next call; with null, is present no longer. What
   * is set while there is no server is said once there is one. Of what is set more than ten times a
   * second the newest is told.
   *
   * @param state an object of what JSON can say, 4 KiB of it at most.
   */
  set(state: State | null): void {
    const text = state === null ? null : textOf(state);
    if (this.#isClosed) {
      if (text === null) return;
      throw new DocumentClosedError('the document was closed: open it again');
    }
    if (text === this.#state) return;
    this.#state = text;
    this.#sayIt();
  }

  /**
   * Calls `listener` whenever {@link others} or {@link count} have changed.
   *
   * @returns stops it. Safe to call more than once.
   */
  subscribe(listener: Listener<State>): Stop {
    const own: Listener<State> = (others) => listener(others);
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  /**
   * The same, with states of this type. What comes is not checked: an older release of the app may
   * say less.
   *
   * @example
   * ```ts
   * const presence = db.presence.of<{ name: string }>();
   * const names = presence.others.map(({ state }) => state.name);
   * ```
   */
  of<Known extends object>(): Presence<Known> {
    return this as unknown as Presence<Known>;
  }

  /** What is said in one turn is said once. */
  #sayIt(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    soon(() => {
      this.#isDue = false;
      if (!this.#isClosed) this.#say(this.#state);
    });
  }

  /** @internal The engine says who is present. */
  take({ count, keys, others }: Omit<Extract<News, { type: 'presence' }>, 'type'>): void {
    if (this.#isClosed) return;
    if (keys) {
      const stay = new Set(keys);
      for (const key of this.#seen.keys()) if (!stay.has(key)) this.#seen.delete(key);
    }
    for (const { key, who, state } of others) {
      const { user, client } = who ?? this.#seen.get(key) ?? {};
      const read = stateOf<State>(state);
      // What another app says may be nothing that this one can read.
      if (client === undefined || !read) this.#seen.delete(key);
      else this.#seen.set(key, { key: String(key), user: user ?? null, client, state: read });
    }
    if (keys || others.length > 0) {
      const inOrder = [...this.#seen].sort(([one], [other]) => one - other);
      this.#others = inOrder.slice(0, SEEN_MAX).map(([, other]) => other);
    }
    this.#count = count;
    this.#tell();
  }

  /** @internal Nobody else can be seen for now. */
  lose(): void {
    if (this.#count > 1 || this.#others.length > 0) this.take({ count: 1, keys: [], others: [] });
  }

  /** @internal The document is closed. */
  endWith(): void {
    this.lose();
    this.#isClosed = true;
    this.#listeners.clear();
  }

  #tell(): void {
    callAll(this.#listeners, (listener) => listener(this.#others));
  }
}

/** The state as it travels. */
function textOf(state: object): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(state);
  } catch (error) {
    throw new InvalidOptionError(`a presence has to be what JSON can say: ${error}`);
  }
  if (!text?.startsWith('{')) {
    throw new InvalidOptionError('a presence has to be an object that JSON can say, or null');
  }
  const size = new TextEncoder().encode(text).length;
  if (size > STATE_SIZE_MAX) {
    throw new InvalidOptionError(
      `a presence of ${size} bytes is over ${STATE_SIZE_MAX}: say less, or keep it in the document`,
    );
  }
  return text;
}

/** What somebody says of itself, if it is an object. */
function stateOf<State>(text: string): State | undefined {
  try {
    const state: unknown = JSON.parse(text);
    return typeof state === 'object' && state ? (state as State) : undefined;
  } catch {
    return undefined;
  }
}
