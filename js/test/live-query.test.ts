import { afterEach, expect, test, vi } from 'vitest';
import { DocumentClosedError, QueryError, StorageError, type TidelogError } from '../src/errors.js';
import { LiveQuery } from '../src/live-query.js';
import type { Answer } from '../src/messages.js';

const NO_ROWS: Answer = {
  type: 'rows',
  rows: { columns: [], count: 0, cells: new Uint8Array(0) },
};

/** A live query that runs, with rows that somebody takes. */
function watched() {
  let take: ((answer: Answer | TidelogError, isPassing?: boolean) => void) | undefined;
  let isRunning = false;
  let starts = 0;
  const query = new LiveQuery((taker) => {
    take = taker;
    isRunning = true;
    starts++;
    return () => {
      isRunning = false;
    };
  });
  return {
    query,
    isRunning: () => isRunning,
    starts: () => starts,
    take: (answer: Answer | TidelogError, isPassing?: boolean) => take!(answer, isPassing),
  };
}

const oneRow = (column: string): Answer => ({
  type: 'rows',
  rows: { columns: [column], count: 1, cells: new Uint8Array([1, 0, 0, 0, 0]) },
});

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

afterEach(() => vi.restoreAllMocks());

test('it runs from its first listener to its last, and again', async () => {
  const { query, isRunning, starts, take } = watched();
  expect(starts()).toBe(0);
  const stops = [query.subscribe(() => {}), query.subscribe(() => {})];
  take(oneRow('a'));
  const { rows } = query;
  stops[0]!();
  stops[0]!();
  await turn();
  expect([isRunning(), starts()]).toEqual([true, 1]);
  stops[1]!();
  await turn();
  expect([isRunning(), starts()]).toEqual([false, 1]);
  expect(query.rows).toBe(rows);
  const heard: unknown[] = [];
  query.subscribe((rows) => heard.push(rows));
  await turn();
  expect([isRunning(), starts()]).toEqual([true, 2]);
  // What it had is of another time.
  expect(heard).toEqual([]);
  take(oneRow('a'));
  expect(heard).toEqual([rows]);
  expect(heard[0]).toBe(rows);
});

test('who lets go and listens again in one turn does not start it anew', async () => {
  const { query, starts } = watched();
  query.subscribe(() => {})();
  query.subscribe(() => {});
  await turn();
  expect(starts()).toBe(1);
});

test('a loop is given nothing that was read before it began', async () => {
  const { query, take } = watched();
  query.subscribe(() => {})();
  take(oneRow('old'));
  await turn();
  const first = query[Symbol.asyncIterator]().next();
  take(oneRow('new'));
  expect((await first).value).toEqual([{ new: null }]);
});

test('one that was closed says so to whoever wants to listen', () => {
  const { query, starts } = watched();
  query.close();
  expect(() => query.subscribe(() => {})).toThrow(DocumentClosedError);
  expect(() => query[Symbol.asyncIterator]()).toThrow(DocumentClosedError);
  expect(starts()).toBe(0);
});

test('a loop is ended by `close`, and told that the document is closed', async () => {
  for (const why of [undefined, new DocumentClosedError('the document was closed')]) {
    const { query, take, isRunning } = watched();
    const heard: unknown[] = [];
    query.subscribe((_, error) => heard.push(error));
    const rows = query[Symbol.asyncIterator]();
    const first = rows.next();
    take(NO_ROWS);
    await first;
    const next = rows.next();
    if (why) query.endWith(why);
    else query.close();
    if (why) await expect(next).rejects.toBe(why);
    else expect(await next).toEqual({ done: true, value: undefined });
    expect(heard).toEqual(why ? [null, why] : [null]);
    expect(isRunning()).toBe(false);
  }
});

test('what is wrong is written to the console where a listener would not hear of it', () => {
  const { query, take } = watched();
  const written = vi.spyOn(console, 'error').mockImplementation(() => {});
  query.subscribe((_rows, _error) => {});
  take(new QueryError('no such table'));
  expect(written).not.toHaveBeenCalled();
  query.subscribe((_rows) => {});
  const error = new StorageError('the device is full');
  take(error);
  expect(written.mock.calls).toEqual([[expect.any(String), error]]);
  query.endWith(new DocumentClosedError('the document was closed'));
  expect(written).toHaveBeenCalledTimes(1);
});

test('W13: a loop that is left ends the watch', async () => {
  const { query, isRunning, take } = watched();
  const loop = (async () => {
    for await (const _ of query) break;
  })();
  take(NO_ROWS);
  await loop;
  await turn();
  expect(isRunning()).toBe(false);
});

test('an iterator that waits for rows can be given up', async () => {
  const { query, isRunning, take } = watched();
  const rows = query[Symbol.asyncIterator]();
  take(NO_ROWS);
  expect(await rows.next()).toEqual({ done: false, value: [] });
  const waiting = rows.next();
  expect(await rows.return?.()).toEqual({ done: true, value: undefined });
  expect(await waiting).toEqual({ done: true, value: undefined });
  await turn();
  expect(isRunning()).toBe(false);
});

test('a loop goes on over what passes, and ends by what does not', async () => {
  const { query, take } = watched();
  const rows = query[Symbol.asyncIterator]();
  take(NO_ROWS);
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
  const rows = query[Symbol.asyncIterator]();
  take(new StorageError('the device is full'), true);
  await expect(rows.next()).rejects.toThrow(StorageError);
});

test('an error ends with the rows, though they are the ones of before', () => {
  const { query, take } = watched();
  const errors: (TidelogError | null)[] = [];
  query.subscribe((_, error) => errors.push(error));
  take(NO_ROWS);
  errors.length = 0;
  take(new StorageError('the device is full'), true);
  take(NO_ROWS);
  take(NO_ROWS);
  expect(query.error).toBe(null);
  expect(errors.map((error) => error?.code)).toEqual(['storage', undefined]);
});

test('nobody is called once it is closed', async () => {
  const { query, take } = watched();
  const heard: unknown[] = [];
  query.subscribe(() => {});
  take(NO_ROWS);
  query.subscribe((rows) => heard.push(rows));
  query.close();
  take(oneRow('a'));
  await turn();
  expect(heard).toEqual([]);
});

test('W13: unless somebody else listens', async () => {
  const { query, isRunning, take } = watched();
  const stop = query.subscribe(() => {});
  take(NO_ROWS);
  for await (const _ of query) break;
  const rows = query[Symbol.asyncIterator]();
  await rows.return?.();
  await rows.return?.();
  await turn();
  expect(isRunning()).toBe(true);
  stop();
  await turn();
  expect(isRunning()).toBe(false);
});
