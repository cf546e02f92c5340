// Moving an item within and between lists without dragging it: by the arrow keys, and by buttons.

import {
  type FocusEvent,
  type KeyboardEvent,
  type PointerEvent,
  useLayoutEffect,
  useRef,
} from 'react';
import type { Drop } from './drag.ts';

/** A list beside others, which come from left to right. */
export interface List {
  readonly id: string;
  readonly title: string;
  readonly items: readonly { readonly id: string }[];
}

/** From where an item stands. One that leads nowhere has no place to drop it. */
function stepsOf(id: string, lists: readonly List[]) {
  const at = lists.findIndex(({ items }) => items.some((it) => it.id === id));
  const { id: list = '', items = [] } = lists[at] ?? {};
  const index = items.findIndex((it) => it.id === id);
  const [up, down, behind] = [-1, 1, 2].map((by) => items[index + by]);
  const step = (key: string, sign: string, label: string, to?: Drop) => ({ key, sign, label, to });
  const aside = (key: string, sign: string, next: List | undefined) => {
    if (!next) return step(key, sign, 'Nothing on this side');
    const to = { list: next.id, aheadOf: next.items[index]?.id };
    return step(key, sign, `Move to ${next.title}`, to);
  };
  return [
    aside('ArrowLeft', '←', lists[at - 1]),
    step('ArrowUp', '↑', 'Move up', up && { list, aheadOf: up.id }),
    step('ArrowDown', '↓', 'Move down', down && { list, aheadOf: behind?.id }),
    aside('ArrowRight', '→', lists[at + 1]),
  ];
}

/** Where the focus goes when an item goes. */
export function neighbourOf<T extends { readonly id: string }>(id: string, items: readonly T[]) {
  const index = items.findIndex((it) => it.id === id);
  return items[index + 1] ?? items[index - 1];
}

type Put = (id: string, to: Drop) => void;

/** Takes an item where an arrow key points. */
function onArrow(event: KeyboardEvent, id: string, lists: readonly List[], put: Put) {
  const step = stepsOf(id, lists).find(({ key }) => key === event.key);
  if (step) event.preventDefault();
  if (step?.to) put(id, step.to);
}

interface HandleProps {
  id: string;
  /** What the item is called. */
  name: string;
  lists: readonly List[];
  put: Put;
  onPointerDown(event: PointerEvent): void;
}

/** What an item is dragged by, or moved with the arrow keys while it has the focus. */
export function Handle({ id, name, lists, put, onPointerDown }: HandleProps) {
  return (
    <button
      id={`${id}-handle`}
      className="handle"
      type="button"
      data-testid="handle"
      aria-label={`Move “${name}”`}
      aria-describedby="keys"
      onKeyDown={(event) => onArrow(event, id, lists, put)}
      onPointerDown={onPointerDown}
    />
  );
}

export function StepButtons({ id, lists, put }: { id: string; lists: readonly List[]; put: Put }) {
  return stepsOf(id, lists).map(({ key, sign, label, to }) => (
    <button
      key={key}
      id={`${id}-${key}`}
      className="icon"
      type="button"
      title={label}
      aria-label={label}
      aria-disabled={!to}
      data-testid={key}
      onClick={() => to && put(id, to)}
    >
      {sign}
    </button>
  ));
}

/**
 * What an element is given so that the focus stays in it as `rows` change: an item that goes to
 * another list is made anew there. What can have the focus needs an id.
 */
export function useKeptFocus(rows: unknown) {
  const focused = useRef('');
  useLayoutEffect(() => {
    if (rows && document.activeElement === document.body) {
      document.getElementById(focused.current)?.focus();
    }
  }, [rows]);
  const onFocus = ({ target }: FocusEvent) => {
    focused.current = target.id;
  };
  const onBlur = () => {
    focused.current = '';
  };
  return { onFocus, onBlur };
}
