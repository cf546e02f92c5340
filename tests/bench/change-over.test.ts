import { expect, test } from 'vitest';
import { changeOver } from './change-over.mjs';

const at = (what: string, from: number) => ({ what, from, to: from + 1 });

test('a change-over goes from its first page to the last write to the log before it', () => {
  const spans = [
    at('write pages', 100), // Room that is made in the file is none of it.
    ...[900, 1_000].map((from) => at('write log-a', from)),
    ...[1_010, 1_020].map((from) => at('write pages', from)),
    at('flush pages', 1_030),
    ...[1_040, 1_060].map((from) => at('write log-b', from)),
    at('write log-a', 1_050),
    ...[1_070, 1_080].map((from) => at('write log-b', from)),
  ];
  expect(changeOver(spans)).toEqual({ from: 1_010, to: 1_051 });
});

test('where no page file is flushed there is no change-over', () => {
  expect(changeOver([at('write log-a', 1), at('write pages', 2)])).toBeUndefined();
});

test('room that is made in the log before it, and the next change-over, are none of it', () => {
  const spans = [
    at('write log-a', 1),
    at('write pages', 10),
    at('flush pages', 12),
    at('write log-a', 14),
    at('write log-b', 500),
    at('write log-a', 505),
    at('flush pages', 512),
    at('write log-a', 514),
  ];
  expect(changeOver(spans)).toEqual({ from: 10, to: 15 });
});
