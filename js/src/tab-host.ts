/** What the code of a tab runs in: a page, or the world of a test with a clock of its own. */

import type { Bytes } from './codec.js';
import { Engine } from './engine.js';

/** The way to a core. */
export type CoreWay = Pick<Engine, 'perform' | 'send' | 'unsaid'>;

/** What a tab has of its surroundings. */
export interface TabHost {
  /** Whether there may be a page, which is shown and hidden, and a device with storage. */
  readonly isBrowser: boolean;
  /** Makes the way to the core. */
  engine(...given: ConstructorParameters<typeof Engine>): CoreWay;
  /** Milliseconds since the epoch. */
  now(): number;
  /** Milliseconds on a clock that never goes back. */
  uptime(): number;
  /** Calls `wake` once, after so many milliseconds. @returns calls that off. */
  wakeIn(ms: number, wake: () => void): () => void;
  /** Calls `next` in a later turn of the event loop, where that has turns of its own. */
  laterTurn?(next: () => void): void;
  /** Fills these bytes at random, and gives them back. */
  draw(bytes: Bytes): Bytes;
  /** A UUID at random. */
  uuid(): string;
}

/** A browser. */
export const BROWSER: TabHost = {
  isBrowser: true,
  engine: (...given) => new Engine(...given),
  now: () => Date.now(),
  uptime: () => performance.now(),
  wakeIn(ms, wake) {
    const timer = setTimeout(wake, ms);
    return () => clearTimeout(timer);
  },
  draw: (bytes) => crypto.getRandomValues(bytes),
  uuid: () => crypto.randomUUID(),
};
