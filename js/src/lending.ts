/**
 * When a tab lends a page server: a part of {@link Tab}, and a machine like it.
 *
 * Two locks, which it does not see, let all tabs of a site agree. The worker that serves holds that
 * of the store; one more worker waits for it, loaded and warm, and its tab has the *turn*. A
 * script that does not load never holds the store, and gives up the turn.
 *
 * A tab gets in line while it still looks for a core, so that the two workers of a site that nobody
 * has open start at once. A worker is lent to the core as it is started, or once that is found. It
 * says there by itself when it has the store: a tab whose main thread is blocked by then holds
 * nobody up.
 *
 * ```text
 *       a core is looked for       turn         loaded         serves
 *   idle ──────────────────▶ queued ──▶ loading ──▶ waiting ──▶ serving
 *    ▲                          ▲          └──────┬─────┴─────────┘
 *    │ no core                  │ the time has    ▼ failed
 *    └──────────────────────────┴──────────── pausing
 * ```
 */

import type { Unserved } from './ports.js';
import { NEVER, pause } from './time.js';

/**
 * How long a page server's worker may load at first; Firefox does not always say that it cannot.
 */
const LOAD_MS = 10_000;

/** The longest that it may. */
const LOAD_MS_MAX = 60_000;

/** A worker that served for so long did not fail for the reason of those before it. */
const STEADY_MS = 60_000;

/** Something that happened to a tab's page server. `worker` is the number it was spawned by. */
export type LendingNews =
  /** It is our turn to have a page server at hand. */
  | { readonly type: 'turn' }
  /** The browser does not let us wait for it. */
  | { readonly type: 'noTurn'; readonly reason: string }
  /** Our page server's worker is loaded and waits in line; has the store. */
  | { readonly type: 'loaded' | 'serves'; readonly worker: number }
  /** It cannot go on. */
  | { readonly type: 'broke'; readonly worker: number; readonly why?: Unserved | undefined }
  /** It cannot load what it needs. */
  | { readonly type: 'unloaded'; readonly worker: number; readonly reason: string };

/** All that lending is told. */
export type LendingInput =
  | LendingNews
  /** A core is being looked for, and may want one as soon as it is found. */
  | { readonly type: 'expected' }
  /** There is a core that has none, to which one can be lent; there is no core any more. */
  | { readonly type: 'wanted' | 'unwanted' }
  /** The core has had none for long, and nobody lends it one. */
  | { readonly type: 'missed' }
  /** Nothing may be held any more. */
  | { readonly type: 'stop' }
  /** Time has passed. */
  | { readonly type: 'wake' };

/** Something to be done. */
export type LendingEffect =
  /** `turn` when no other tab has a page server waiting; give that up. */
  | { readonly type: 'queue' | 'endTurn' }
  /** Start a page server's worker; end it; give the core a way to it. */
  | { readonly type: 'spawn' | 'end' | 'lend'; readonly worker: number }
  /** Tell the core that what it was lent has ended. */
  | { readonly type: 'lendEnded'; readonly why: Unserved | undefined }
  /** Tell the core why we cannot lend. */
  | { readonly type: 'cannotLend'; readonly reason: string };

/** How far a tab is. */
type State = 'idle' | 'queued' | 'loading' | 'waiting' | 'serving' | 'pausing';

/** The states in which a tab has a worker. */
const HAS_WORKER = /loading|waiting|serving/;

/** One tab's part in lending. */
export class Lending {
  #state: State = 'idle';
  #isWanted = false;
  #hasTried = false;
  /** The newest worker; what earlier ones say is not believed. */
  #worker = 0;
  #servesSince = 0;
  /** Workers that failed one after another. */
  #failures = 0;
  /** Why we could not lend, while there was no core that could be told. */
  #untold: string | undefined;
  #dueAt: number = NEVER;
  #now = 0;
  #out: LendingEffect[] = [];

  /** When `wake` is wanted. */
  get dueAt(): number {
    return this.#dueAt;
  }

  /** Whether the files of a page server are here, or could not be had. */
  get hasTried(): boolean {
    return this.#hasTried;
  }

  /** Takes what happened at `now`. */
  step(now: number, input: LendingInput): readonly LendingEffect[] {
    this.#now = now;
    if (!('worker' in input) || input.worker === this.#worker) this.#take(input);
    const out = this.#out;
    this.#out = [];
    return out;
  }

  #take(input: LendingInput): void {
    switch (input.type) {
      case 'expected':
        if (this.#state === 'idle') this.#queue();
        break;
      case 'wanted':
        this.#isWanted = true;
        if (this.#state === 'idle') this.#queue();
        else if (HAS_WORKER.test(this.#state)) this.#lend();
        else this.#tellUntold();
        break;
      case 'unwanted':
        // The page server outlives the core, and is lent to the next one.
        this.#isWanted = false;
        break;
      case 'turn':
      case 'missed':
        // One that we no longer wait for, or have taken already, is none. Where a core misses one,
        // the tab whose turn it is may be blocked.
        if (this.#state === 'queued') this.#spawn();
        break;
      case 'noTurn':
        if (this.#state === 'queued') this.#cannotLend(input.reason);
        break;
      case 'loaded':
        this.#enter('waiting', NEVER);
        this.#hasTried = true;
        break;
      case 'serves':
        this.#enter('serving', NEVER);
        this.#servesSince = this.#now;
        this.#emit({ type: 'endTurn' });
        break;
      case 'unloaded':
        this.#cannotLend(input.reason);
        break;
      case 'broke':
        this.#pause(input.why);
        break;
      case 'stop':
        this.#stop();
        break;
      case 'wake':
        if (this.#dueAt > this.#now) break;
        if (this.#state === 'loading') this.#cannotLend('its files do not arrive');
        else if (this.#state === 'queued') this.#waits();
        else if (this.#isWanted) this.#queue();
        else this.#stop();
        break;
    }
  }

  #enter(state: State, dueAt: number): void {
    this.#state = state;
    this.#dueAt = dueAt;
  }

  #queue(): void {
    this.#untold = undefined;
    this.#enter('queued', this.#now + LOAD_MS);
    this.#emit({ type: 'queue' });
  }

  /** Another tab is to serve us, and nothing comes to this one meanwhile. */
  #waits(): void {
    this.#hasTried = true;
    this.#dueAt = NEVER;
  }

  #spawn(): void {
    this.#enter('loading', this.#now + Math.min(LOAD_MS * 2 ** this.#failures, LOAD_MS_MAX));
    this.#emit({ type: 'spawn', worker: ++this.#worker });
    if (this.#isWanted) this.#lend();
  }

  #lend(): void {
    this.#emit({ type: 'lend', worker: this.#worker });
  }

  #cannotLend(reason: string): void {
    this.#hasTried = true;
    this.#pause();
    this.#untold = reason;
    if (this.#isWanted) this.#tellUntold();
  }

  #tellUntold(): void {
    const reason = this.#untold;
    this.#untold = undefined;
    if (reason !== undefined) this.#emit({ type: 'cannotLend', reason });
  }

  /** Other tabs have their turn, and then we have another one. */
  #pause(why?: Unserved): void {
    if (this.#state === 'serving' && this.#now - this.#servesSince > STEADY_MS) this.#failures = 0;
    this.#stop(why);
    this.#enter('pausing', this.#now + pause(this.#failures++));
  }

  #stop(why?: Unserved): void {
    const had = this.#state;
    this.#enter('idle', NEVER);
    const hadWorker = HAS_WORKER.test(had);
    if (hadWorker) this.#emit({ type: 'end', worker: this.#worker++ });
    if (/queued|loading|waiting/.test(had)) this.#emit({ type: 'endTurn' });
    if (hadWorker && this.#isWanted) this.#emit({ type: 'lendEnded', why });
  }

  #emit(effect: LendingEffect): void {
    this.#out.push(effect);
  }
}
