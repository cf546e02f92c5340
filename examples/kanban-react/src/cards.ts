// The cards of the board, and what can be done with them.

import { useState } from 'react';
import { type Drop, useDrag } from '../../shared/react/drag.ts';
import { usePlaces } from '../../shared/react/places.ts';
import { neighbourOf } from '../../shared/react/steps.tsx';
import { useUndo } from '../../shared/react/undo.tsx';
import { LANES, useLive, useMutate } from './doctype.ts';

export type Card = { id: string; title: string; lane: string; place: string; comments: number };
export type Cards = ReturnType<typeof useCards>;
export type Lane = { id: string; title: string; items: readonly Card[] };

export function useCards() {
  const shown = useLive<Card>(`
    select id, title, lane, place,
           (select count(*) from comment where comment.card = card.id) as comments
    from card where removed = 0 order by place`);
  const { rows } = shown;
  const lanes: readonly Lane[] = Object.entries(LANES).map(([id, title]) => {
    return { id, title, items: rows.filter(({ lane }) => lane === id) };
  });
  const laneOf = (id: string) => lanes.find((lane) => lane.id === id)!;
  const { add, move, remove, restore } = useMutate();
  const undo = useUndo();
  const places = usePlaces(rows);
  const [openId, setOpenId] = useState<string>();

  const addTo = ({ id: lane, title: name, items }: Lane, title: string) => {
    const [id, place] = [crypto.randomUUID(), places.atEnd(items)];
    const issue = () => add({ id, title, lane, place });
    return undo.carryOut(`Added “${title}” to ${name}`, issue, () => remove({ id }));
  };

  const put = async (id: string, { list: lane, aheadOf }: Drop) => {
    const card = rows.find((it) => it.id === id);
    const { title, items } = laneOf(lane);
    const to = card && places.ahead(items, id, aheadOf);
    if (!to) return;
    const { place, index, length } = to;
    const isDone = await undo.carryOut(
      `Moved “${card.title}” to ${title}, ${index + 1} of ${length}`,
      () => move({ id, lane, place }),
      () => move({ id, lane: card.lane, place: card.place, was: place }),
    );
    if (!isDone) places.notMoved();
  };

  const take = ({ id, title, lane }: Card) => {
    const next = neighbourOf(id, laneOf(lane).items);
    document.getElementById(next ? `${next.id}-title` : `${lane}-add`)?.focus();
    const [issue, inverse] = [() => remove({ id }), () => restore({ id })];
    undo.carryOut(`Removed “${title}”`, issue, inverse);
  };
  return { ...shown, ...useDrag(put), lanes, undo, openId, setOpenId, addTo, put, take };
}
