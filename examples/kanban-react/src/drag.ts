// Dragging cards by pointer events, which mouse, pen and finger share.

import { type PointerEvent as ReactPointerEvent, useLayoutEffect, useRef, useState } from 'react';
import type { LaneId } from './doctype.ts';

/** Where a card is let go: ahead of another one, or at the end of the lane. */
export interface Drop {
  readonly lane: LaneId;
  readonly aheadOf: string | undefined;
}

export interface Drag {
  readonly id: string;
  /** How far the card is from where it stands, in pixels. */
  readonly by: readonly [x: number, y: number];
  readonly drop: Drop | null;
}

/** Pixels after which a press is no click any more. */
const SLACK = 5;
/** Pixels from the upper or lower edge of the window in which a drag scrolls, and how far. */
const [EDGE, SCROLL] = [48, 14];

/** What is being dragged, and what begins that. */
export function useDrag(onDrop: (id: string, drop: Drop) => void) {
  const [drag, setDrag] = useState<Drag | null>(null);
  // The board may change while a card is in the air.
  const latest = useRef(onDrop);
  useLayoutEffect(() => {
    latest.current = onDrop;
  });

  const grab = (id: string, { nativeEvent: from }: ReactPointerEvent) => {
    // A finger anywhere else on the card scrolls the page.
    const isOnHandle = (from.target as Element).matches('.handle');
    if (from.button !== 0 || (from.pointerType !== 'mouse' && !isOnHandle)) return;
    let current: Drag | null = null;
    const ending = new AbortController();
    const { signal } = ending;
    const end = () => {
      ending.abort();
      setDrag(null);
    };
    const move = ({ pageX, pageY, clientX, clientY }: PointerEvent) => {
      const by = [pageX - from.pageX, pageY - from.pageY] as const;
      if (!current && Math.hypot(...by) < SLACK) return;
      current = { id, by, drop: dropAt(clientX, clientY, id) };
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
  return { drag, grab };
}

function dropAt(x: number, y: number, id: string): Drop | null {
  const under = document.elementsFromPoint(x, y) as HTMLElement[];
  const lane = under.find((it) => it.dataset.lane);
  if (!lane) return null;
  const others = [...lane.querySelectorAll<HTMLElement>('[data-card]')];
  const next = others.find((other) => {
    const { top, height } = other.getBoundingClientRect();
    return other.dataset.card !== id && y < top + height / 2;
  });
  return { lane: lane.dataset.lane as LaneId, aheadOf: next?.dataset.card };
}
