/** Looking again and again at what nobody tells of. */

import { inTime } from './in-time.js';

/**
 * Looks so long after it began, and then so long after each look was done, until one has seen
 * enough. Looks that take longer than that do not pile up, nor count as many at once. One that
 * fails, or is not answered in time, has seen nothing, whatever it says later.
 */
export async function lookEvery<Seen>(
  ms: number,
  look: () => Promise<Seen>,
  isEnough: (seen: Seen) => boolean,
): Promise<void> {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, ms));
    const seen = await inTime(look(), 'a look is not answered').then(
      (it) => ({ it }),
      () => undefined,
    );
    if (seen && isEnough(seen.it)) return;
  }
}
