import { expect, test } from 'vitest';
import { QueryError, StorageError, type TidelogError } from '../src/errors.js';
import { LiveQuery } from '../src/live-query.js';
import type { Answer } from '../src/messages.js';

const NO_ROWS: Answer = {
  type: 'rows',
  rows: { columns: [], count: 0, cells: new Uint8Array(0) },
};

function watched() {
  let take: ((answer: Answer | TidelogError, isPassing?: boolean) => void) | undefined;
  let stopped = false;
  const query = new LiveQuery((taker) => {
    take = taker;
    return () => {
      stopped = true;
    };
  });
  take!(NO_ROWS);
  return { query, isStopped: () => stopped, take: take! };
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

test('a loop goes on over what passes, and ends by what does not', async () => {
  const { query, take } = watched();
  const rows = query[Symbol.asyncIterator]();
  await rows.next();
  const next = rows.next();
  take(new StorageError('the device is full'), true);
  await Promise.resolve();
  take({ type: 'rows', rows: { columns: ['a'], count: 0, cells: new Uint8Array(0) } });
  expect(await next).toEqual({ done: false, value: [] });
  const last = rows.next();
  take(new QueryError('no such table'));
  await expect(last).rejects.toThrow(QueryError);
});

test('a loop that has had no rows yet is told why there are none', async () => {
  const { query, take } = watched();
  take(new StorageError('the device is full'), true);
  await expect(query[Symbol.asyncIterator]().next()).rejects.toThrow(StorageError);
});

test('an error ends with the rows, though they are the ones of before', () => {
  const { query, take } = watched();
  const errors: (TidelogError | null)[] = [];
  query.subscribe((_, error) => errors.push(error));
  take(new StorageError('the device is full'), true);
  take(NO_ROWS);
  take(NO_ROWS);
  expect(query.error).toBe(null);
  expect(errors.map((error) => error?.code)).toEqual(['storage', undefined]);
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
