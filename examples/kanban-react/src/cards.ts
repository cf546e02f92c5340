// The cards of the board, and what can be done with them.

import { useLayoutEffect, useRef } from 'react';
import type { Deeds } from './deeds.ts';
import { type Card, LANES, type LaneId, useMutate } from './doctype.ts';
import type { Drop } from './drag.ts';
import { keyBetween } from './order-key.ts';

export type Cards = ReturnType<typeof useCards>;

export function useCards(rows: readonly Card[], carryOut: Deeds['carryOut']) {
  const { add, move, remove, restore } = useMutate();
  /** The key that was made last for the end of a lane, whose card may not be among the rows yet. */
  const ends = useRef<Partial<Record<LaneId, string>>>({});
  /** The newest move: the rows before it, its key, and what had the focus, which it takes away. */
  const moved = useRef<{ rows: readonly Card[]; place: string; control: string }>(undefined);
  const of = (lane: LaneId) => rows.filter((card) => card.lane === lane);

  const addTo = (lane: LaneId, title: string) => {
    const id = crypto.randomUUID();
    const [last, made] = [of(lane).at(-1)?.place ?? '', ends.current[lane] ?? ''];
    const place = keyBetween(last > made ? last : made);
    ends.current[lane] = place;
    return carryOut({
      said: `Added “${title}” to ${titleOf(lane)}`,
      issue: () => add({ id, title, lane, place }),
      inverse: () => remove({ id }),
    });
  };

  const put = async (card: Card, { lane, aheadOf }: Drop) => {
    const { id, title } = card;
    const others = of(lane).filter((it) => it.id !== id);
    const found = others.findIndex((it) => it.id === aheadOf);
    const index = found < 0 ? others.length : found;
    if (of(lane)[index]?.id === id) return;
    // A key that is held comes again before the board shows what it did.
    if (moved.current?.rows === rows) return;
    const place = keyBetween(others[index - 1]?.place, others[index]?.place);
    const moving = { rows, place, control: document.activeElement?.id ?? '' };
    moved.current = moving;
    const isDone = await carryOut({
      said: `Moved “${title}” to ${titleOf(lane)}, ${index + 1} of ${others.length + 1}`,
      issue: () => move({ id, lane, place }),
      inverse: () => move({ id, lane: card.lane, place: card.place, was: place }),
    });
    if (!isDone && moved.current === moving) moved.current = undefined;
  };
  useLayoutEffect(() => {
    if (!moved.current || !rows.some(({ place }) => place === moved.current?.place)) return;
    document.getElementById(moved.current.control)?.focus();
    moved.current = undefined;
  }, [rows]);

  const take = ({ id, title, lane }: Card) => {
    const index = of(lane).findIndex((it) => it.id === id);
    const next = of(lane)[index + 1] ?? of(lane)[index - 1];
    document.getElementById(next ? `${next.id}-title` : `${lane}-add`)?.focus();
    carryOut({
      said: `Removed “${title}”`,
      issue: () => remove({ id }),
      inverse: () => restore({ id }),
    });
  };
  return { of, addTo, put, take };
}

/** A step from where a card stands. One that leads nowhere has no place to drop it. */
export interface Step {
  readonly key: string;
  readonly sign: string;
  readonly label: string;
  readonly to: Drop | undefined;
}

/** Where the arrow keys, and the buttons that do the same, take a card. */
export function stepsOf({ id, lane }: Card, of: Cards['of']): readonly Step[] {
  const index = of(lane).findIndex((it) => it.id === id);
  const [up, down, behind] = [-1, 1, 2].map((by) => of(lane)[index + by]);
  const aside = (key: string, sign: string, by: number): Step => {
    const next = LANES[LANES.findIndex((it) => it.id === lane) + by];
    const to = next && { lane: next.id, aheadOf: of(next.id)[index]?.id };
    return { key, sign, label: next ? `Move to ${next.title}` : 'No lane on this side', to };
  };
  return [
    aside('ArrowLeft', '←', -1),
    { key: 'ArrowUp', sign: '↑', label: 'Move up', to: up && { lane, aheadOf: up.id } },
    { key: 'ArrowDown', sign: '↓', label: 'Move down', to: down && { lane, aheadOf: behind?.id } },
    aside('ArrowRight', '→', 1),
  ];
}

const titleOf = (lane: LaneId) => LANES.find(({ id }) => id === lane)!.title;
