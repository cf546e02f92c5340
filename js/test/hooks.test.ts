import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Database } from '../src/database.js';
import { doctype, mutation } from '../src/doctype.js';
import { DocumentClosedError, EngineError, QueryError } from '../src/errors.js';
import { LiveQuery, type RunQuery } from '../src/live-query.js';
import type { Answer } from '../src/messages.js';
import { Presence } from '../src/presence.js';
import type { Status } from '../src/status.js';

const KIND = doctype({
  name: 'notes',
  migrations: [],
  mutations: { add: mutation({ id: 'uuid' }, 'select 1') },
});
type Mutations = typeof KIND.mutations;

const open = vi.hoisted(() => vi.fn());
vi.mock('../src/open.js', () => ({ open }));

/** The module as a page has it, or a server that renders. */
async function hooks(isPage = true): Promise<typeof import('../src/hooks.js')> {
  vi.resetModules();
  if (isPage) vi.stubGlobal('document', {});
  return import('../src/hooks.js');
}

/** An open document whose only query is answered here. */
function notes(synced = false) {
  const listeners = new Set<() => void>();
  const ending = new Set<{ endWith(error: DocumentClosedError): void }>();
  const running = new Set<Parameters<RunQuery>[0]>();
  const said: (string | null)[] = [];
  let begun = 0;
  const db = {
    status: { synced } as Status,
    closed: 0,
    presence: new Presence((state) => said.push(state)),
    live: vi.fn((..._of: unknown[]) => {
      const query: LiveQuery = new LiveQuery((take) => {
        begun++;
        running.add(take);
        ending.add(query);
        return () => running.delete(take);
      });
      return query;
    }),
    endWithIt: (it: { endWith(error: DocumentClosedError): void }) => ending.add(it),
    on: (_: string, listener: () => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: async () => {
      db.closed++;
      for (const it of ending) it.endWith(new DocumentClosedError('closed'));
    },
  };
  return {
    db: db as unknown as Database<Mutations> & { closed: number },
    begun: () => begun,
    running: () => running.size,
    answer(answer: Answer | QueryError) {
      for (const take of running) take(answer);
    },
    isSynced() {
      db.status = { synced: true } as Status;
      for (const listener of listeners) listener();
    },
    listeners,
    said,
  };
}

/** An answer of so many rows, each a number. */
function rows(...numbers: number[]): Answer {
  const cells = new Uint8Array(13 * numbers.length);
  const view = new DataView(cells.buffer);
  numbers.forEach((number, index) => {
    view.setUint32(13 * index, 9, true);
    cells[13 * index + 4] = 1;
    view.setBigInt64(13 * index + 5, BigInt(number), true);
  });
  return { type: 'rows', rows: { columns: ['n'], count: numbers.length, cells } };
}

const turn = async (): Promise<void> => {
  for (let turns = 0; turns < 10; turns++) await Promise.resolve();
};

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(console, 'error').mockImplementation(() => {});
  open.mockReset();
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

test('a query is loading, then syncing, then ready', async () => {
  const { Openings } = await hooks();
  const { db, answer, isSynced } = notes();
  const watched = new Openings(KIND).of({ db }).watch('select n from note');
  const seen = [watched.shown()];
  const stop = watched.subscribe(() => seen.push(watched.shown()));
  answer(rows(1));
  answer(rows(1));
  isSynced();
  isSynced();
  const error = new QueryError('no such table');
  answer(error);
  answer(rows(1, 2));
  stop();
  answer(rows());
  expect(seen.map(({ state, rows }) => [state, rows.length])).toEqual([
    ['loading', 0],
    ['syncing', 1],
    ['ready', 1],
    ['error', 1],
    ['ready', 2],
  ]);
  expect(seen[3]!.error).toBe(error);
  expect(seen[4]!.rows[0]).toBe(seen[1]!.rows[0]);
  expect(watched.shown()).toBe(seen[4]);
});

test('who shows the same shares one query, which runs while anybody looks', async () => {
  const { Openings } = await hooks();
  const { db, begun, running } = notes(true);
  const opening = new Openings(KIND).of({ db });
  const of = (n: number | bigint) => opening.watch('select n from note where n > ?', [n]);
  expect(of(1)).toBe(of(1));
  expect(of(1n)).not.toBe(of(1));
  expect(begun()).toBe(0);
  const stops = [of(1).subscribe(() => {}), of(1).subscribe(() => {})];
  expect([begun(), running()]).toEqual([1, 1]);
  for (const stop of stops) stop();
  // As React does in its strict mode.
  const again = of(1).subscribe(() => {});
  await turn();
  expect([begun(), running()]).toEqual([1, 1]);
  again();
  await turn();
  expect(running()).toBe(0);
  const before = of(1);
  vi.advanceTimersByTime(60_000);
  expect(of(1)).not.toBe(before);
});

test('a document is open while anybody uses it, and a little longer', async () => {
  const { Openings } = await hooks();
  const { db, listeners } = notes();
  open.mockImplementation(async () => db);
  const openings = new Openings(KIND);
  const wanted = { document: 'a', server: 'ws://x' };
  const opening = openings.of(wanted);
  expect(openings.of({ ...wanted })).toBe(opening);
  expect(openings.of({ document: 'b' })).not.toBe(opening);
  expect(open).not.toHaveBeenCalled();
  const told = vi.fn();
  const stop = opening.subscribe(told);
  await turn();
  expect(told).toHaveBeenCalledTimes(1);
  expect(opening.db).toBe(db);
  stop();
  expect(listeners.size).toBe(0);
  vi.advanceTimersByTime(4_000);
  const again = opening.subscribe(told);
  vi.advanceTimersByTime(60_000);
  await turn();
  expect([open.mock.calls.length, db.closed]).toEqual([1, 0]);
  again();
  vi.advanceTimersByTime(60_000);
  await turn();
  expect([db.closed, opening.db]).toEqual([1, undefined]);
  // Who was hidden meanwhile has it still.
  opening.subscribe(told);
  await turn();
  expect([open.mock.calls.length, opening.db]).toEqual([2, db]);
  expect(openings.of(wanted)).toBe(opening);
});

test('a document that opens only once nobody wants it is closed', async () => {
  const { Openings } = await hooks();
  const { db } = notes();
  let opened = (_: unknown): void => {};
  open.mockImplementation(
    () =>
      new Promise((resolve) => {
        opened = resolve;
      }),
  );
  const opening = new Openings(KIND).of({ document: 'a' });
  opening.subscribe(() => {})();
  vi.advanceTimersByTime(60_000);
  opened(db);
  await turn();
  expect([db.closed, opening.db]).toEqual([1, undefined]);
});

test('the token is that of the function that was given last', async () => {
  const { Openings } = await hooks();
  open.mockImplementation(() => new Promise(() => {}));
  const openings = new Openings(KIND);
  const opening = openings.of({ document: 'a', token: () => 'one' });
  opening.subscribe(() => {});
  expect(openings.of({ document: 'a', token: () => 'two' })).toBe(opening);
  const [, { token }] = open.mock.calls[0]!;
  expect(token()).toBe('two');
  expect(openings.of({ document: 'a' })).not.toBe(opening);
});

test('one that the app has opened is one for all, and left open', async () => {
  const { Openings } = await hooks();
  const { db } = notes(true);
  const openings = new Openings(KIND);
  const opening = openings.of({ db });
  expect(openings.of({ db })).toBe(opening);
  opening.subscribe(() => {})();
  vi.advanceTimersByTime(60_000);
  await turn();
  expect([db.closed, opening.db]).toEqual([0, db]);
});

test('what could not be opened is what every query of it says, until it can be', async () => {
  const { Openings } = await hooks();
  const { db, answer } = notes(true);
  const error = new EngineError('no');
  open.mockImplementationOnce(() => Promise.reject(error));
  open.mockImplementation(async () => db);
  const watched = new Openings(KIND).of({ document: 'a' }).watch('select 1');
  watched.subscribe(() => {});
  await turn();
  expect(watched.shown()).toEqual({ rows: [], error, state: 'error' });
  vi.advanceTimersByTime(5_000);
  await turn();
  answer(rows(1));
  expect(watched.shown().state).toBe('ready');
});

test('what cannot be opened is tried anew by whoever comes next', async () => {
  const { Openings } = await hooks();
  const error = new QueryError('no');
  open.mockImplementation(() => Promise.reject(error));
  const openings = new Openings(KIND);
  const opening = openings.of({ document: 'a' });
  const stop = opening.subscribe(() => {});
  await turn();
  vi.advanceTimersByTime(60_000);
  expect([open.mock.calls.length, opening.error]).toEqual([1, error]);
  const watched = opening.watch('select 1');
  await watched.loaded();
  expect(watched.shown().error).toBe(error);
  vi.advanceTimersByTime(60_000);
  stop();
  expect([opening.error, watched.shown().state]).toEqual([null, 'loading']);
  openings.of({ document: 'a' }).subscribe(() => {});
  expect(open).toHaveBeenCalledTimes(2);
});

test('mutations that were taken before a document was open are its own', async () => {
  const { Openings } = await hooks();
  const { db } = notes();
  const mutate = { add: vi.fn() };
  Object.assign(db, { mutate });
  open.mockImplementation(async () => db);
  const opening = new Openings(KIND).of({ document: 'a' });
  const { add } = opening.mutate;
  expect(() => add()).toThrow('the document is not open');
  opening.subscribe(() => {});
  await turn();
  add();
  expect(mutate.add).toHaveBeenCalledTimes(1);
  // Effects that depend on it would run at every render.
  expect(opening.mutate.add).toBe(add);
  expect((opening.mutate as { then?: unknown }).then).toBeUndefined();
});

test('who goes as another one is told leaves nothing running', async () => {
  const { Openings } = await hooks();
  const { db, isSynced, running } = notes();
  const opening = new Openings(KIND).of({ db });
  let leave = (): void => {};
  opening.subscribe(() => leave());
  leave = opening.watch('select 1').subscribe(() => {});
  await turn();
  expect(running()).toBe(1);
  isSynced();
  await turn();
  expect(running()).toBe(0);
});

test('a query is another one for each of its parameters', async () => {
  const { Openings } = await hooks();
  const opening = new Openings(KIND).of({ db: notes().db });
  const all = [[], [1], [1n], ['1'], [null], [undefined], [Number.NaN], [new Uint8Array([1])]];
  const watched = all.map((params) => opening.watch('select ?', params as null[]));
  expect(new Set(watched).size).toBe(all.length);
  expect(opening.watch('select ?', [new Uint8Array([1])])).toBe(watched.at(-1));
  const date = new Date();
  const one = opening.watch('select ?', [date.toISOString()]);
  for (const none of [date, () => {}, Symbol('s'), null]) {
    expect(opening.watch('select ?', [none as never])).not.toBe(one);
  }
});

/** The parameters of the live queries that a document was asked for. */
const paramsOf = (db: { live: unknown }): unknown[] =>
  vi.mocked(db.live as (...asked: unknown[]) => unknown).mock.calls.map(([, params]) => params);

test('a query is asked for what it was wanted with, whatever became of that', async () => {
  const { Openings } = await hooks();
  const { db } = notes();
  open.mockImplementation(async () => db);
  const openings = new Openings(KIND);
  const wanted = { document: 'a' };
  const opening = openings.of(wanted);
  // What `slice` of a Buffer gives is no copy, and other classes have another name.
  class Named {
    list = 'a';
    bytes = [Buffer.from([1]), new Uint8ClampedArray([1]), new Uint8Array([1])];
    [Symbol.toStringTag] = 'Named';
  }
  const params = new Named();
  opening.watch('select 1', params.bytes as never).subscribe(() => {});
  opening.watch('select 2', params as never).subscribe(() => {});
  wanted.document = params.list = 'b';
  for (const bytes of params.bytes) bytes[0] = 2;
  await turn();
  expect(open.mock.calls[0]![1]).toEqual({ document: 'a', token: undefined });
  const [positional, named] = paramsOf(db);
  const one = new Uint8Array([1]);
  expect(positional).toEqual([one, one, one]);
  expect(named).toMatchObject({ list: 'a' });
});

test('what is no parameter is given to the query as it is, which says so', async () => {
  const { Openings } = await hooks();
  const { db } = notes();
  const opening = new Openings(KIND).of({ db });
  const gone = new Uint8Array([1]);
  structuredClone(gone, { transfer: [gone.buffer] });
  const date = new Date();
  const named = Object.assign(Object.create(null), { n: 1 });
  const bytes = new Uint8Array([1]);
  for (const it of [[gone], date, named, 'milk', bytes])
    opening.watch('select 1', it as never).subscribe(() => {});
  const asked = paramsOf(db);
  expect((asked[0] as unknown[])[0]).toBe(gone);
  expect(asked[1]).toBe(date);
  expect(asked[2]).toEqual({ n: 1 });
  expect(asked.slice(3)).toEqual(['milk', bytes]);
});

test('a document that the app closes stays so for its users, and opens anew later', async () => {
  const { Openings } = await hooks();
  const [first, second] = [notes(true), notes(true)];
  open.mockResolvedValueOnce(first.db).mockResolvedValueOnce(second.db);
  const openings = new Openings(KIND);
  const opening = openings.of({ document: 'a' });
  const watched = opening.watch('select 1');
  const stops = [opening.subscribe(() => {}), watched.subscribe(() => {})];
  await turn();
  first.answer(rows(1));
  await first.db.close();
  expect([opening.db, watched.shown().error?.code]).toEqual([undefined, 'document-closed']);
  expect(console.error).not.toHaveBeenCalled();
  vi.advanceTimersByTime(60_000);
  await turn();
  expect(open).toHaveBeenCalledTimes(1);
  for (const stop of stops) stop();
  const anew = openings.of({ document: 'a' });
  const again = anew.watch('select 1');
  again.subscribe(() => {});
  await turn();
  second.answer(rows(1));
  expect([anew.db, again.shown().state]).toEqual([second.db, 'ready']);
});

test('what was shown before a document was closed is not called new once it is open', async () => {
  const { Openings } = await hooks();
  const [first, second] = [notes(true), notes(true)];
  open.mockResolvedValueOnce(first.db).mockResolvedValueOnce(second.db);
  const watched = new Openings(KIND).of({ document: 'a' }).watch('select 1');
  const stop = watched.subscribe(() => {});
  await turn();
  first.answer(rows(1));
  stop();
  vi.advanceTimersByTime(60_000);
  await turn();
  expect(watched.shown().state).toBe('loading');
  watched.subscribe(() => {});
  await turn();
  expect(watched.shown().state).toBe('loading');
  second.answer(rows(1));
  expect(watched.shown().state).toBe('ready');
});

test('what is wrong is said on the console, once', async () => {
  const { Openings } = await hooks();
  const { db, answer } = notes(true);
  const [away, wrong] = [new EngineError('away'), new QueryError('no such table')];
  open.mockRejectedValueOnce(away).mockRejectedValueOnce(away).mockResolvedValue(db);
  const watched = new Openings(KIND).of({ document: 'a' }).watch('select 1');
  watched.subscribe(() => {});
  for (let tries = 0; tries < 3; tries++) {
    await turn();
    vi.advanceTimersByTime(5_000);
  }
  answer(wrong);
  answer(wrong);
  expect(vi.mocked(console.error).mock.calls).toEqual([
    ['a document could not be opened:', away],
    ['a live query:', wrong],
  ]);
});

test('an app that opens its document itself may not have it yet', async () => {
  const { Openings } = await hooks();
  const openings = new Openings(KIND);
  const opening = openings.of({ db: undefined });
  const watched = opening.watch('select 1');
  watched.subscribe(() => {});
  await turn();
  expect([watched.shown().state, opening.db]).toEqual(['loading', undefined]);
  expect(openings.of({ db: notes().db })).not.toBe(opening);
});

test('a document that was closed under it says so', async () => {
  const { Openings } = await hooks();
  const { db } = notes();
  const error = new DocumentClosedError('closed');
  Object.assign(db, {
    live: () => ({
      rows: undefined,
      error: null,
      subscribe() {
        throw error;
      },
    }),
  });
  const watched = new Openings(KIND).of({ db }).watch('select 1');
  watched.subscribe(() => {});
  expect(watched.shown()).toEqual({ rows: [], error, state: 'error' });
});

test('who waits for rows has them kept until it is there to show them', async () => {
  const { Openings } = await hooks();
  const { db, answer, running } = notes(true);
  const watched = new Openings(KIND).of({ db }).watch('select n from note');
  const loaded = vi.fn();
  void watched.loaded().then(loaded);
  await turn();
  expect(loaded).not.toHaveBeenCalled();
  answer(rows(1));
  await turn();
  expect(loaded).toHaveBeenCalled();
  expect([watched.shown().state, running()]).toEqual(['ready', 1]);
  vi.advanceTimersByTime(60_000);
  await turn();
  expect(running()).toBe(0);
});

test('a server that renders opens nothing, and shows that it is loading', async () => {
  const { LOADING, Openings } = await hooks(false);
  const openings = new Openings(KIND);
  const watched = openings.of({ document: 'a' }).watch('select 1');
  expect(watched.shown()).toBe(LOADING);
  expect(open).not.toHaveBeenCalled();
  expect(vi.getTimerCount()).toBe(0);
});

test('who is present is shown, and this one is as long as a component has it', async () => {
  const { Openings } = await hooks();
  const { db, said } = notes();
  let opened = (_: typeof db): void => {};
  open.mockImplementation(() => new Promise((resolve) => (opened = resolve)));
  const presences = new Openings(KIND).of({ document: 'a' }).presences<{ at: number }>();
  const seen: number[] = [];
  const stop = presences.subscribe(() => seen.push(presences.shown().count));
  presences.shown().set({ at: 1 });
  await turn();
  // That somebody looks.
  expect(said.splice(0)).toEqual([null]);
  opened(db);
  await turn();
  expect(said).toEqual(['{"at":1}']);
  const other = { key: 3, who: { user: 'ada', client: 'c' }, state: '{"at":2}' };
  db.presence.take({ count: 2, keys: [3], others: [other] });
  expect(presences.shown()).toMatchObject({ count: 2, others: [{ state: { at: 2 } }] });
  expect(seen).toEqual([2]);
  // Another component takes over in the same turn.
  stop();
  const { set } = presences.shown();
  const stopNext = presences.subscribe(() => {});
  await turn();
  expect(said).toEqual(['{"at":1}']);
  expect(presences.shown().set).toBe(set);
  stopNext();
  await turn();
  expect(said).toEqual(['{"at":1}', null]);
});

test('a server that renders shows nobody', async () => {
  const { Openings } = await hooks(false);
  const presences = new Openings(KIND).of({ document: 'a' }).presences();
  expect(presences.shown()).toMatchObject({ count: 1, others: [] });
  expect(open).not.toHaveBeenCalled();
});
