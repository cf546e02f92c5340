// Dragging items within and between lists by pointer events, which mouse, pen and finger share.
// Lists and items are given what marks them; what a finger drags an item by is a `.handle`.

import { type PointerEvent as ReactPointerEvent, useLayoutEffect, useRef, useState } from 'react';

/** Where an item is let go: ahead of another one, or at the end of the list. */
export interface Drop {
  readonly list: string;
  readonly aheadOf: string | undefined;
}

interface Drag {
  readonly id: string;
  /** How far the item is from where it stands, as CSS says it. */
  readonly translate: string;
  readonly drop: Drop | undefined;
}

/** Pixels after which a press is no click any more. */
const SLACK = 5;
/** Pixels from the upper or lower edge of the window in which a drag scrolls, and how far. */
const [EDGE, SCROLL] = [48, 14];

/** What begins a drag, and marks lists and items, also with where the item would be dropped. */
export function useDrag(onDrop: (id: string, drop: Drop) => void) {
  const [drag, setDrag] = useState<Drag>();
  // The lists may change while an item is in the air.
  const latest = useRef(onDrop);
  useLayoutEffect(() => {
    latest.current = onDrop;
  });

  const grab = (id: string, { nativeEvent: from }: ReactPointerEvent) => {
    // A finger anywhere else on the item scrolls the page.
    const isOnHandle = (from.target as Element).matches('.handle');
    if (from.button !== 0 || (from.pointerType !== 'mouse' && !isOnHandle)) return;
    let current: Drag | undefined;
    const ending = new AbortController();
    const { signal } = ending;
    const end = () => {
      ending.abort();
      setDrag(undefined);
    };
    const move = ({ pageX, pageY, clientX, clientY }: PointerEvent) => {
      const [x, y] = [pageX - from.pageX, pageY - from.pageY];
      if (!current && Math.hypot(x, y) < SLACK) return;
      current = { id, translate: `${x}px ${y}px`, drop: dropAt(clientX, clientY, id) };
      setDrag(current);
      if (clientY < EDGE) scrollBy(0, -SCROLL);
      if (clientY > innerHeight - EDGE) scrollBy(0, SCROLL);
    };
    const drop = () => {
      end();
      if (current?.drop) latest.current(id, current.drop);
    };
    addEventListener('pointermove', move, { signal });
    addEventListener('pointerup', drop, { signal });
    addEventListener('pointercancel', end, { signal });
    addEventListener('keydown', ({ key }) => key === 'Escape' && end(), { signal });
  };
  const { drop } = drag ?? {};
  const listMarks = (list: string) => ({
    'data-list': list,
    'data-drop': (drop?.list === list && !drop.aheadOf) || undefined,
  });
  const itemMarks = (item: string) => ({
    'data-item': item,
    'data-drop': drop?.aheadOf === item || undefined,
    'data-dragged': drag?.id === item || undefined,
    style: drag?.id === item ? { translate: drag.translate } : {},
  });
  return { grab, listMarks, itemMarks };
}

function dropAt(x: number, y: number, id: string): Drop | undefined {
  const under = document.elementsFromPoint(x, y) as HTMLElement[];
  const list = under.find((it) => it.dataset.list);
  if (!list) return undefined;
  const items = [...list.querySelectorAll<HTMLElement>('[data-item]')];
  const next = items.find((item) => {
    const { top, height } = item.getBoundingClientRect();
    return item.dataset.item !== id && y < top + height / 2;
  });
  return { list: list.dataset.list!, aheadOf: next?.dataset.item };
}
