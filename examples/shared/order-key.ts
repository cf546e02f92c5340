// Where something stands in an order that people make: a text by which the rows are sorted.
//
// A key is a fraction in these digits, so there is always room for one more between two others, and
// to move a row changes that row alone. It ends in a UUID that is drawn for it. Two devices that
// put rows into the same gap while they are offline therefore never make the same key: each row
// has a place of its own, and whoever sorts them gets the same order, without the server having to
// decide anything.

/** In the order of their bytes, by which SQLite and JavaScript both compare text. */
const DIGITS = '-0123456789abcdefghijklmnopqrstuvwxyz';

/**
 * A new key between those of two neighbours; an empty text where there is none.
 *
 * @param tail a UUID in lower case. It does not end in the least digit, so another key fits ahead
 *   of every key.
 */
export function keyBetween(before = '', after = '', tail: string = crypto.randomUUID()): string {
  if (after && before >= after) throw new Error(`BUG: no key between ${before} and ${after}`);
  let key = '';
  let isBelow = after === '';
  for (let at = 0; ; at++) {
    const low = DIGITS.indexOf(before[at] ?? '-');
    const high = isBelow ? DIGITS.length : DIGITS.indexOf(after[at] ?? '-');
    if (high - low > 1) return key + DIGITS[(low + high) >> 1] + tail;
    // No digit lies between: the key goes on as `before` does, which is below `after` from where
    // they part, whatever follows.
    key += DIGITS[low];
    isBelow ||= low < high;
  }
}
