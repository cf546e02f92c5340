import { expect, test } from 'vitest';
import type { TidelogError } from '../src/errors.js';
import { LiveQuery } from '../src/live-query.js';
import type { Answer } from '../src/messages.js';

const NO_ROWS: Answer = {
  type: 'rows',
  rows: { columns: [], count: 0, cells: new Uint8Array(0) },
};

function watched(): { query: LiveQuery; isStopped: () => boolean } {
  let take: ((answer: Answer | TidelogError) => void) | undefined;
  let stopped = false;
  const query = new LiveQuery((taker) => {
    take = taker;
    return () => {
      stopped = true;
    };
  });
  take!(NO_ROWS);
  return { query, isStopped: () => stopped };
}

test('W13: a loop that is left ends the watch', async () => {
  const { query, isStopped } = watched();
  for await (const _ of query) break;
  expect(isStopped()).toBe(true);
});

test('an iterator that waits for rows can be given up', async () => {
  const { query, isStopped } = watched();
  const rows = query[Symbol.asyncIterator]();
  expect(await rows.next()).toEqual({ done: false, value: [] });
  const waiting = rows.next();
  expect(await rows.return?.()).toEqual({ done: true, value: undefined });
  expect(await waiting).toEqual({ done: true, value: undefined });
  expect(isStopped()).toBe(true);
});

test('nobody is called once it is closed, whenever they began to listen', async () => {
  const { query } = watched();
  const heard: unknown[] = [];
  query.subscribe((rows) => heard.push(rows));
  query.close();
  query.subscribe((rows) => heard.push(rows));
  await new Promise((resolve) => setTimeout(resolve));
  expect(heard).toEqual([]);
});

test('W13: unless somebody else listens', async () => {
  const { query, isStopped } = watched();
  const stop = query.subscribe(() => {});
  for await (const _ of query) break;
  expect(isStopped()).toBe(false);
  const rows = query[Symbol.asyncIterator]();
  await rows.return?.();
  stop();
  await rows.return?.();
  expect(isStopped()).toBe(false);
});
