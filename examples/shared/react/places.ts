// Where items go in lists that people order: keys for them, also for deeds that come faster than
// the lists are drawn.

import { useRef } from 'react';
import { keyBetween } from '../order-key.ts';

interface Item {
  readonly id: string;
  /** Its key, by which the list is sorted. */
  readonly place: string;
}

/** @param shown what changes whenever the lists have. */
export function usePlaces(shown: unknown) {
  /** The key that was made last, whose item may not be in its list yet. */
  const newest = useRef('');
  /** What was shown at the newest move: a key that is held comes again before there is more. */
  const movedIn = useRef<unknown>(undefined);

  /** A key for a new item at the end of a list. */
  const atEnd = (items: readonly Item[]): string => {
    const last = items.at(-1)?.place ?? '';
    newest.current = keyBetween(last > newest.current ? last : newest.current);
    return newest.current;
  };

  /**
   * A key for an item that is put ahead of another one, or at the end, and its index then; none if
   * it stands there, or if an item was just moved.
   */
  const ahead = (items: readonly Item[], id: string, other: string | undefined) => {
    const others = items.filter((it) => it.id !== id);
    const found = others.findIndex((it) => it.id === other);
    const index = found < 0 ? others.length : found;
    if (items[index]?.id === id || movedIn.current === shown) return undefined;
    movedIn.current = shown;
    const place = keyBetween(others[index - 1]?.place, others[index]?.place);
    return { place, index, length: others.length + 1 };
  };

  /** The item was not moved after all, so that another one may be. */
  const notMoved = () => {
    movedIn.current = undefined;
  };
  return { atEnd, ahead, notMoved };
}
