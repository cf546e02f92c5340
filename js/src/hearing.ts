/** How much of what the core said was heard: it holds back what nobody waits for until it knows. */

import type { Bytes } from './codec.js';

/** What the core counts for a message beside its values; see `tab_flow.rs` in crate `client`. */
const MESSAGE_SIZE = 256;

/** Lists of messages and bytes from the core after which it is told that they were heard. */
const UNTOLD_LISTS_MAX = 16;
const UNTOLD_SIZE_MAX = 65_536;

/**
 * Bytes of a list of messages, about as the core counts them. For arguments of a rejection it may
 * count several times as many: a tab that is behind by that has over `UNTOLD_SIZE_MAX` to tell.
 */
export function sizeOf(list: Bytes): number {
  const count = new DataView(list.buffer, list.byteOffset).getUint32(0, true);
  return list.length + count * MESSAGE_SIZE;
}

/** Counts what was heard and not told yet. */
export class Hearing {
  #lists = 0;
  #size = 0;

  /**
   * A list of so many bytes was heard. Gives how many lists the core is told of now, if any: some
   * at least where it waits for a word.
   */
  heard(size: number, isAwaited: boolean): number {
    this.#lists++;
    this.#size += size;
    const isMuch = this.#lists >= UNTOLD_LISTS_MAX || this.#size >= UNTOLD_SIZE_MAX;
    if (!isMuch && !isAwaited) return 0;
    const lists = this.#lists;
    this.reset();
    return lists;
  }

  /** Another core knows nothing of it. */
  reset(): void {
    this.#lists = 0;
    this.#size = 0;
  }
}
