/**
 * A tab's way to the core, whichever is alive: a part of {@link Tab}.
 *
 * ```text
 * off ──▶ connecting ──▶ greeting ──▶ works ──▶ off
 *            shell: finds or starts the core    its lock came free
 * ```
 *
 * Frozen, or in the back/forward cache, it is `hidden`, and no core is looked for.
 */

import type { Effect } from './step.js';
import { NEVER, pause } from './time.js';

/** A core that cannot be told hello for so long, since the browser says nothing, is sought anew. */
const CONNECT_MS = 10_000;

/** A core that says nothing for so long is asked again at another place. */
const WELCOME_MS = 3_000;

/** The same where another core has just died: the port may have gone to that one. */
const WELCOME_ANEW_MS = 1_000;

/** The longest wait for a welcome: over a slow line each place loads the same once more. */
const WELCOME_MS_MAX = 12_000;

/** What a core said last may still be on its way when its end is noticed. */
const LAST_WORDS_MS = 25;

/** After so many refusals a core is sought so many times more seldom. */
const PATIENT = 20;
const SELDOM = 10;

/** A core that has worked for so long did not die for the reason of those before it. */
const STEADY_MS = 9_500;

/** The way to one core after the other. */
export class CoreLink {
  readonly #emit: (effect: Effect) => void;
  stage: 'off' | 'connecting' | 'greeting' | 'works' | 'hidden' = 'off';
  /** A core that this tab could not join, and perhaps as what. */
  #unjoinable: string | undefined;
  /**
   * Where the next core is started. Each try has a place of its own: in Firefox one where a core
   * has just ended may never answer again, as long as there is any tab that asked there.
   */
  #place = 0;
  /** Tries in a row of which nothing has come, not even a refusal, with the present one. */
  tries = 0;
  /** Tries that were refused, and cores that died soon, one after another. */
  #refusals = 0;
  #deaths = 0;
  #welcomedAt = 0;
  /** The core that is, or was last, our own; each try has a number of its own. */
  core = 0;
  /** When the engine is tried anew: after a silence, a death or a refusal. */
  dueAt: number = NEVER;

  constructor(emit: (effect: Effect) => void) {
    this.#emit = emit;
  }

  /** Whether the core has been told hello, and is not known to be gone. */
  get isConnected(): boolean {
    return this.stage === 'greeting' || (this.stage === 'works' && this.dueAt === NEVER);
  }

  start(now: number): void {
    this.stage = 'connecting';
    this.tries++;
    this.dueAt = now + CONNECT_MS;
    const unjoinable = this.#unjoinable;
    this.#emit({ type: 'connect', core: ++this.core, unjoinable, place: this.#place });
  }

  /** The core at this place was told hello. Says whether that is news. */
  connected(now: number, place: number): boolean {
    if (this.stage !== 'connecting') return false;
    this.stage = 'greeting';
    // All who lose the same core meet again behind it.
    this.#place = place + 1;
    const firstMs = this.#deaths > 0 ? WELCOME_ANEW_MS : WELCOME_MS;
    this.dueAt = now + Math.min(firstMs * 2 ** (this.tries - 1), WELCOME_MS_MAX);
    return true;
  }

  welcomed(now: number, lock: string): void {
    if (this.stage !== 'greeting') return;
    this.stage = 'works';
    this.dueAt = NEVER;
    this.#unjoinable = undefined;
    this.#refusals = 0;
    this.tries = 0;
    this.#welcomedAt = now;
    this.#emit({ type: 'watchLock', core: this.core, lock });
  }

  /** No core can be reached, or not that one. Says why to give up; else another one is tried. */
  refused(reason: string, joining: string | undefined): string | undefined {
    // Whatever is wrong with that one, ours may do: its address may be of an older deployment.
    this.#unjoinable = joining;
    this.tries = 0;
    return joining ? undefined : reason;
  }

  /** Another core is at work. Says the same. */
  elsewhere(): string | undefined {
    this.tries = 0;
    return this.#unjoinable && `the core at ${this.#unjoinable} cannot be joined`;
  }

  /** The core's lock came free. */
  lost(now: number): void {
    if (now - this.#welcomedAt > STEADY_MS) this.#deaths = 0;
    const pauseMs = this.#deaths > 0 ? pause(this.#deaths - 1) : 0;
    this.#deaths++;
    this.dueAt = now + LAST_WORDS_MS + pauseMs;
  }

  leave(): void {
    if (this.stage !== 'off') this.#emit({ type: 'leave', core: this.core });
    this.stage = 'off';
    this.dueAt = NEVER;
  }

  /** There is no core for us now. It is tried again if somebody `waits`. */
  giveUp(now: number, waits: boolean): void {
    this.#unjoinable = undefined;
    this.tries = 0;
    // One that has been refused for long may be of an older deployment: its page is to be loaded
    // anew, and asks for workers in vain until then.
    const times = this.#refusals > PATIENT ? SELDOM : 1;
    if (waits) this.dueAt = now + times * pause(this.#refusals++);
  }

  /** What comes late of the present core is of no use any more. */
  hide(): void {
    this.stage = 'hidden';
    this.tries = 0;
    this.#deaths = 0;
    this.core++;
  }

  show(now: number): void {
    if (this.stage === 'hidden') this.start(now);
  }
}
