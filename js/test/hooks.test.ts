import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Database } from '../src/database.js';
import { doctype, mutation } from '../src/doctype.js';
import { DocumentClosedError, EngineError, QueryError } from '../src/errors.js';
import { LiveQuery, type RunQuery } from '../src/live-query.js';
import type { Answer } from '../src/messages.js';
import type { Status } from '../src/status.js';

const KIND = doctype({
  name: 'notes',
  migrations: [],
  mutations: { add: mutation({ id: 'uuid' }, 'select 1') },
});
type Mutations = typeof KIND.mutations;

const open = vi.hoisted(() => vi.fn());
vi.mock('../src/open.js', () => ({ open }));

/** Of the same copy of the package as the module is. */
let { Presence } = await import('../src/presence.js');

/** The module as a page has it, or a server that renders. */
async function hooks(isPage = true): Promise<typeof import('../src/hooks.js')> {
  vi.resetModules();
  if (isPage) vi.stubGlobal('document', {});
  ({ Presence } = await import('../src/presence.js'));
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
    watch: vi.fn((_bound: unknown) => {
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
  const { openingsOf } = await hooks();
  const { db, answer, isSynced } = notes();
  const watched = openingsOf(KIND)({ db }).watch('select n from note');
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
  const { openingsOf } = await hooks();
  const { db, begun, running } = notes(true);
  const opening = openingsOf(KIND)({ db });
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
  const { openingsOf } = await hooks();
  const { db, listeners } = notes();
  open.mockImplementation(async () => db);
  const openings = openingsOf(KIND);
  const wanted = { document: 'a', server: 'ws://x' };
  const opening = openings(wanted);
  expect(openings({ ...wanted })).toBe(opening);
  expect(openings({ document: 'b' })).not.toBe(opening);
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
  expect([db.closed, opening.db, opening.error]).toEqual([1, undefined, null]);
  // Who was hidden meanwhile has it still.
  opening.subscribe(told);
  await turn();
  expect([open.mock.calls.length, opening.db]).toEqual([2, db]);
  expect(openings(wanted)).toBe(opening);
});

test('a document that opens only once nobody wants it is closed', async () => {
  const { openingsOf } = await hooks();
  const { db } = notes();
  let opened = (_: unknown): void => {};
  open.mockImplementation(
    () =>
      new Promise((resolve) => {
        opened = resolve;
      }),
  );
  const opening = openingsOf(KIND)({ document: 'a' });
  opening.subscribe(() => {})();
  vi.advanceTimersByTime(60_000);
  opened(db);
  await turn();
  expect([db.closed, opening.db]).toEqual([1, undefined]);
});

test('the token is that of the function that was given last', async () => {
  const { openingsOf } = await hooks();
  open.mockImplementation(() => new Promise(() => {}));
  const openings = openingsOf(KIND);
  const opening = openings({ document: 'a', token: () => 'one' });
  opening.subscribe(() => {});
  expect(openings({ document: 'a', token: () => 'two' })).toBe(opening);
  const [, { token }] = open.mock.calls[0]!;
  expect(token()).toBe('two');
  expect(openings({ document: 'a' })).not.toBe(opening);
});

test('one that the app has opened is one for all, and left open', async () => {
  const { openingsOf } = await hooks();
  const { db } = notes(true);
  const openings = openingsOf(KIND);
  const opening = openings({ db });
  expect(openings({ db })).toBe(opening);
  opening.subscribe(() => {})();
  vi.advanceTimersByTime(60_000);
  await turn();
  expect([db.closed, opening.db]).toEqual([0, db]);
});

test('what could not be opened is what every query of it says, until it can be', async () => {
  const { openingsOf } = await hooks();
  const { db, answer } = notes(true);
  const error = new EngineError('no');
  open.mockImplementationOnce(() => Promise.reject(error));
  open.mockImplementation(async () => db);
  const watched = openingsOf(KIND)({ document: 'a' }).watch('select 1');
  watched.subscribe(() => {});
  await turn();
  expect(watched.shown()).toEqual({ rows: [], error, state: 'error' });
  vi.advanceTimersByTime(5_000);
  await turn();
  answer(rows(1));
  expect(watched.shown().state).toBe('ready');
});

test('what cannot be opened is tried anew by whoever comes next', async () => {
  const { loaded, openingsOf } = await hooks();
  const error = new QueryError('no');
  open.mockImplementation(() => Promise.reject(error));
  const openings = openingsOf(KIND);
  const opening = openings({ document: 'a' });
  const stop = opening.subscribe(() => {});
  await turn();
  vi.advanceTimersByTime(60_000);
  expect([open.mock.calls.length, opening.error]).toEqual([1, error]);
  const watched = opening.watch('select 1');
  await loaded(watched);
  expect(watched.shown().error).toBe(error);
  vi.advanceTimersByTime(60_000);
  stop();
  expect([opening.error, watched.shown().state]).toEqual([null, 'loading']);
  openings({ document: 'a' }).subscribe(() => {});
  expect(open).toHaveBeenCalledTimes(2);
});

test('mutations that were taken before a document was open are its own', async () => {
  const { openingsOf } = await hooks();
  const { db } = notes();
  const mutate = { add: vi.fn() };
  Object.assign(db, { mutate });
  open.mockImplementation(async () => db);
  const opening = openingsOf(KIND)({ document: 'a' });
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
  const { openingsOf } = await hooks();
  const { db, isSynced, running } = notes();
  const opening = openingsOf(KIND)({ db });
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
  const { openingsOf } = await hooks();
  const opening = openingsOf(KIND)({ db: notes().db });
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

/** What the live queries that a document was asked for were bound to, or why they were not. */
const boundOf = (db: { watch: unknown }): unknown[] =>
  vi.mocked(db.watch as (bound: unknown) => unknown).mock.calls.map(([bound]) => bound);

test('a query is asked for what it was wanted with, whatever became of that', async () => {
  const { openingsOf } = await hooks();
  const { db } = notes();
  open.mockImplementation(async () => db);
  const openings = openingsOf(KIND);
  const wanted = { document: 'a' };
  const opening = openings(wanted);
  // What `slice` of a Buffer gives is no copy, and other classes have another name.
  class Named {
    list = 'a';
    [Symbol.toStringTag] = 'Named';
  }
  const params = new Named();
  const bytes = [Buffer.from([1]), new Uint8ClampedArray([1]), new Uint8Array([1])];
  opening.watch('select 1', bytes as never).subscribe(() => {});
  opening.watch('select 2', params as never).subscribe(() => {});
  wanted.document = params.list = 'b';
  for (const each of bytes) each[0] = 2;
  await turn();
  expect(open.mock.calls[0]![1]).toEqual({ document: 'a', token: undefined });
  const one = new Uint8Array([1]);
  expect(boundOf(db)).toEqual([
    { sql: 'select 1', params: [one, one, one] },
    { sql: 'select 2', params: { named: [['list', 'a']] } },
  ]);
});

test('what is no parameter of a query it says, and what is one it takes', async () => {
  const { openingsOf } = await hooks();
  const { db } = notes();
  const opening = openingsOf(KIND)({ db });
  const gone = new Uint8Array([1]);
  structuredClone(gone, { transfer: [gone.buffer] });
  const date = new Date();
  const named = Object.assign(Object.create(null), { n: 1 });
  const bytes = new Uint8Array([1]);
  for (const it of [[gone], date, named, 'milk', bytes])
    opening.watch('select 1', it as never).subscribe(() => {});
  expect(boundOf(db)).toEqual([
    new QueryError('parameter 1 of select 1 is bytes that were given away to a worker'),
    { sql: 'select 1', params: { named: [] } },
    { sql: 'select 1', params: { named: [['n', 1]] } },
    new QueryError('the parameters of a query are an array, or an object by their names'),
    { sql: 'select 1', params: { named: [['0', 1]] } },
  ]);
});

test('what nobody has used is kept for a while, and no longer', async () => {
  const { openingsOf } = await hooks();
  const openings = openingsOf(KIND);
  const wanted = { document: 'a' };
  const before = openings(wanted);
  vi.advanceTimersByTime(4_000);
  expect(openings(wanted)).toBe(before);
  vi.advanceTimersByTime(4_000);
  const after = openings(wanted);
  expect(after).not.toBe(before);
  // Who comes to it all the same finds the other one in its place.
  open.mockImplementation(() => new Promise(() => {}));
  after.subscribe(() => {});
  before.subscribe(() => {})();
  vi.advanceTimersByTime(60_000);
  expect(openings(wanted)).toBe(after);
});

test('what opens late is not the document of who came meanwhile', async () => {
  const { openingsOf } = await hooks();
  const [first, second] = [notes().db, notes().db];
  let opened = (_: unknown): void => {};
  open.mockImplementationOnce(() => new Promise((resolve) => (opened = resolve)));
  open.mockRejectedValueOnce(new EngineError('no')).mockResolvedValue(second);
  const opening = openingsOf(KIND)({ document: 'a' });
  opening.subscribe(() => {})();
  vi.advanceTimersByTime(60_000);
  const stop = opening.subscribe(() => {});
  opened(first);
  await turn();
  expect([opening.db, first.closed, opening.error?.message]).toEqual([undefined, 1, 'no']);
  stop();
  opening.subscribe(() => {});
  vi.advanceTimersByTime(60_000);
  await turn();
  expect([open.mock.calls.length, opening.db, opening.error]).toEqual([3, second, null]);
});

test('a document that the app closes while nobody uses it is opened anew at once', async () => {
  const { openingsOf } = await hooks();
  const [first, second] = [notes(true), notes(true)];
  open.mockResolvedValueOnce(first.db).mockResolvedValueOnce(second.db);
  open.mockImplementation(() => new Promise(() => {}));
  const opening = openingsOf(KIND)({ document: 'a' });
  const watched = opening.watch('select 1');
  const stop = watched.subscribe(() => {});
  await turn();
  first.answer(rows(1));
  stop();
  await first.db.close();
  const stopAgain = watched.subscribe(() => {});
  expect([watched.shown().state, opening.error]).toEqual(['syncing', null]);
  await turn();
  expect([opening.db, opening.error]).toEqual([second.db, null]);
  // Who comes as it is closed is not told so.
  stopAgain();
  vi.advanceTimersByTime(60_000);
  opening.subscribe(() => {});
  await turn();
  expect([second.db.closed, opening.db, opening.error]).toEqual([1, undefined, null]);
});

test('what a query shows is begun anew once nobody has looked for a while', async () => {
  const { openingsOf } = await hooks();
  const { db, answer } = notes(true);
  const opening = openingsOf(KIND)({ db });
  const watched = opening.watch('select 1');
  const look = () => watched.subscribe(() => {});
  const leave = look();
  answer(new QueryError('no'));
  expect(watched.shown().state).toBe('error');
  leave();
  expect(watched.shown().state).toBe('loading');
  const leaveAgain = look();
  answer(rows(1));
  leaveAgain();
  expect(watched.shown().state).toBe('ready');
  vi.advanceTimersByTime(60_000);
  look();
  expect(watched.shown().state).toBe('loading');
});

test('who has gone is told of no change', async () => {
  const { openingsOf } = await hooks();
  const { db, isSynced } = notes();
  const opening = openingsOf(KIND)({ db });
  const told = vi.fn();
  opening.subscribe(() => leave());
  const leave = opening.subscribe(told);
  isSynced();
  expect(told).not.toHaveBeenCalled();
});

test('a document that the app closes stays so for its users, and opens anew later', async () => {
  const { openingsOf } = await hooks();
  const [first, second] = [notes(true), notes(true)];
  open.mockResolvedValueOnce(first.db).mockResolvedValueOnce(second.db);
  const openings = openingsOf(KIND);
  const opening = openings({ document: 'a' });
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
  const anew = openings({ document: 'a' });
  const again = anew.watch('select 1');
  again.subscribe(() => {});
  await turn();
  second.answer(rows(1));
  expect([anew.db, again.shown().state]).toEqual([second.db, 'ready']);
});

test('what was shown before a document was closed is not called new once it is open', async () => {
  const { openingsOf } = await hooks();
  const [first, second] = [notes(true), notes(true)];
  open.mockResolvedValueOnce(first.db).mockResolvedValueOnce(second.db);
  const watched = openingsOf(KIND)({ document: 'a' }).watch('select 1');
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
  const { openingsOf } = await hooks();
  const { db, answer } = notes(true);
  const [away, wrong] = [new EngineError('away'), new QueryError('no such table')];
  open.mockRejectedValueOnce(away).mockRejectedValueOnce(away).mockResolvedValue(db);
  const watched = openingsOf(KIND)({ document: 'a' }).watch('select 1');
  watched.subscribe(() => {});
  for (let tries = 0; tries < 3; tries++) {
    await turn();
    vi.advanceTimersByTime(5_000);
  }
  answer(wrong);
  answer(wrong);
  expect(vi.mocked(console.error).mock.calls).toEqual([
    ['a document does not open:', away],
    ['a live query:', wrong],
  ]);
});

test('an app that opens its document itself may not have it yet', async () => {
  const { openingsOf } = await hooks();
  const openings = openingsOf(KIND);
  const opening = openings({ db: undefined });
  const watched = opening.watch('select 1');
  watched.subscribe(() => {});
  await turn();
  expect([watched.shown().state, opening.db]).toEqual(['loading', undefined]);
  expect(openings({ db: notes().db })).not.toBe(opening);
});

test('a document that was closed under it says so, until there is another one', async () => {
  const { openingsOf } = await hooks();
  const [first, second] = [notes(true), notes(true)];
  const error = new DocumentClosedError('closed');
  Object.assign(first.db, {
    watch: () => ({
      rows: undefined,
      error: null,
      subscribe() {
        throw error;
      },
    }),
  });
  open.mockResolvedValueOnce(first.db).mockResolvedValueOnce(second.db);
  const opening = openingsOf(KIND)({ document: 'a' });
  const watched = opening.watch('select 1');
  const leave = watched.subscribe(() => {});
  await turn();
  expect(watched.shown()).toEqual({ rows: [], error, state: 'error' });
  await first.db.close();
  leave();
  watched.subscribe(() => {});
  expect(watched.shown()).toEqual({ rows: [], error: null, state: 'loading' });
  await turn();
  second.answer(rows(1));
  expect(watched.shown().state).toBe('ready');
});

test('who waits for rows has them kept until it is there to show them', async () => {
  const { loaded, openingsOf } = await hooks();
  const { db, answer, running } = notes(true);
  const watched = openingsOf(KIND)({ db }).watch('select n from note');
  const isLoaded = vi.fn();
  void loaded(watched).then(isLoaded);
  expect(loaded(watched)).toBe(loaded(watched));
  await turn();
  expect(isLoaded).not.toHaveBeenCalled();
  answer(rows(1));
  await turn();
  expect(isLoaded).toHaveBeenCalled();
  expect([watched.shown().state, running()]).toEqual(['ready', 1]);
  vi.advanceTimersByTime(60_000);
  await turn();
  expect(running()).toBe(0);
});

test('a server that renders opens nothing, and shows that it is loading', async () => {
  const { LOADING, openingsOf } = await hooks(false);
  const openings = openingsOf(KIND);
  const watched = openings({ document: 'a' }).watch('select 1');
  watched.subscribe(() => {})();
  expect(watched.shown()).toBe(LOADING);
  expect(open).not.toHaveBeenCalled();
  expect(vi.getTimerCount()).toBe(0);
});

test('who is present is shown, and this one is as long as a component has it', async () => {
  const { openingsOf } = await hooks();
  const { db, said } = notes();
  let opened = (_: typeof db): void => {};
  open.mockImplementation(() => new Promise((resolve) => (opened = resolve)));
  const presences = openingsOf(KIND)({ document: 'a' }).presences;
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

test('what is set behind the last component is not said by who looks later', async () => {
  const { openingsOf } = await hooks();
  const { db, said } = notes();
  const { presences } = openingsOf(KIND)({ db });
  const { set } = presences.shown();
  // Before the first one listens, as in a layout effect.
  set({ at: 1 });
  const stop = presences.subscribe(() => {});
  await turn();
  expect(said.splice(0)).toEqual(['{"at":1}']);
  stop();
  await turn();
  expect(said.splice(0)).toEqual([null]);
  set({ at: 2 });
  vi.advanceTimersByTime(600);
  const stopLooking = presences.subscribe(() => {});
  await turn();
  expect(said).toEqual([]);
  // What the app says itself is not taken back by who looks.
  db.presence.set({ at: 3 });
  stopLooking();
  await turn();
  expect(said).toEqual(['{"at":3}']);
});

test('a server that renders shows nobody', async () => {
  const { openingsOf } = await hooks(false);
  const presences = openingsOf(KIND)({ document: 'a' }).presences;
  presences.shown().set({ at: 1 });
  expect(vi.getTimerCount()).toBe(0);
  expect(presences.shown()).toMatchObject({ count: 1, others: [] });
  expect(open).not.toHaveBeenCalled();
});

test('what an app has open is listened to in pages alone', async () => {
  for (const isPage of [true, false]) {
    const { openingsOf } = await hooks(isPage);
    const { db, listeners } = notes();
    const opening = openingsOf(KIND)({ db });
    const stop = opening.onRejected(() => {});
    opening.watch('select 1').subscribe(() => {});
    opening.presences.subscribe(() => {});
    expect([listeners.size > 0, boundOf(db).length > 0]).toEqual([isPage, isPage]);
    stop();
    vi.unstubAllGlobals();
  }
});
