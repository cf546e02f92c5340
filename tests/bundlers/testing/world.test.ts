import {
  Database,
  DoctypeMismatchError,
  DocumentClosedError,
  InvalidOptionError,
  MutationArgumentError,
  RejectedError,
  type Rejection,
} from 'tidelog';
import { type Client, type World, world } from 'tidelog/testing';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { albums, todos, todosWithNotes } from './todos.js';

type Todos = typeof todos.mutations;

/** What Jest and sinon put another clock's into the place of. */
const FAKED: NonNullable<Parameters<typeof vi.useFakeTimers>[0]>['toFake'] = [
  'Date',
  'performance',
  'queueMicrotask',
  'setImmediate',
  'setInterval',
  'setTimeout',
];

let w: World<Todos>;
let ada: Client<Todos>;
let bob: Client<Todos>;

beforeEach(async () => {
  w = await world(todos);
  ada = await w.client();
  bob = await w.client({ user: 'bob' });
});

afterEach(() => {
  vi.useRealTimers();
  return w.close();
});

const titles = async (db: Database<Todos>): Promise<unknown[]> =>
  (await db.values('select title from todo order by title')).flat();

test('what one client issues is confirmed and seen by the other', async () => {
  expect(ada.db).toBeInstanceOf(Database);
  const receipt = ada.db.mutate.add({ title: 'milk' });
  expect(await receipt).toEqual({ lsn: 1 });
  expect((await receipt.confirmed).lsn).toBeGreaterThan(0);
  await w.settle();
  expect(await titles(bob.db)).toEqual(['milk']);
  expect(bob.db.status).toMatchObject({ connection: 'online', pending: 0, storage: 'memory' });
  expect(() => ada.db.mutate.add({ title: 1 as never })).toThrow(MutationArgumentError);
});

test('clients see who else is present, while they are online', async () => {
  const names = (client: Client<Todos>) =>
    client.db.presence.of<{ name: string }>().others.map(({ state }) => state.name);
  ada.db.presence.set({ name: 'Ada' });
  bob.db.presence.set({ name: 'Bob' });
  await w.pass(100);
  expect([names(ada), names(bob)]).toEqual([['Bob'], ['Ada']]);
  ada.offline();
  ada.db.presence.set({ name: 'Ada, back again' });
  await w.pass(100);
  expect([ada.db.presence.count, names(bob)]).toEqual([1, []]);
  ada.online();
  await w.pass(100);
  expect([names(ada), names(bob)]).toEqual([['Bob'], ['Ada, back again']]);
  await ada.db.close();
  await w.pass(100);
  expect(bob.db.presence.count).toBe(1);
  expect(() => ada.db.presence.set({ name: 'Ada' })).toThrow(DocumentClosedError);
});

test('what is issued offline waits, and comes to the other client once it is online', async () => {
  ada.offline();
  await ada.db.mutate.add({ title: 'milk' });
  await bob.db.mutate.add({ title: 'bread' });
  await w.settle();
  expect(ada.db.status).toMatchObject({ connection: 'offline', pending: 1 });
  expect(await titles(ada.db)).toEqual(['milk']);
  expect(await titles(bob.db)).toEqual(['bread']);

  ada.online();
  await w.settle();
  expect(await titles(ada.db)).toEqual(['bread', 'milk']);
  expect(await titles(bob.db)).toEqual(['bread', 'milk']);
  expect(ada.db.status.pending).toBe(0);
});

test('of two mutations that do not go together one is rejected, and its client told', async () => {
  const told: Rejection[] = [];
  ada.db.on('rejected', (rejection) => told.push(rejection));
  ada.offline();
  const late = ada.db.mutate.add({ title: 'milk' });
  await late;
  await bob.db.mutate.add({ title: 'milk' });
  ada.online();
  await w.settle();
  await expect(late.confirmed).rejects.toBeInstanceOf(RejectedError);
  expect(told).toMatchObject([{ mutation: 'add', args: late.args, lsn: 1 }]);
  expect(await ada.db.values('select id from todo')).toEqual(
    await bob.db.values('select id from todo'),
  );
  await expect(ada.db.mutate.done({ title: 'bread' })).rejects.toMatchObject({
    reason: 'no such to-do',
  });
});

test('a live query has the rows of all clients, and the same where nothing changed', async () => {
  const seen: number[] = [];
  const live = ada.db.live<{ title: string }>('select title from todo order by title');
  live.subscribe((rows) => seen.push(rows?.length ?? -1));
  await w.settle();
  await bob.db.mutate.add({ title: 'bread' });
  await w.settle();
  const [bread] = live.rows!;
  await bob.db.mutate.add({ title: 'milk' });
  await w.settle();
  expect(seen).toEqual([0, 1, 2]);
  expect(live.rows![0]).toBe(bread);
  live.close();
});

test('the clock stands still until it is moved, and mutations are of its time', async () => {
  const start = Date.UTC(2025, 0, 1);
  expect(w.now).toBe(start);
  await ada.db.mutate.add({ title: 'milk' });
  await w.settle();
  expect(w.now).toBe(start);
  await w.pass(600_000);
  await ada.db.mutate.add({ title: 'bread' });
  await w.settle();
  expect(await bob.db.values('select at from todo order by at')).toEqual([
    [start],
    [start + 600_000],
  ]);
  const startsAt = new Date('2031-05-06T07:08:09Z');
  await using other = await world(todos, { startsAt });
  expect(other.now).toBe(startsAt.getTime());
});

test('timers of the test runner that are not real hold nothing up', async () => {
  vi.useFakeTimers({ toFake: FAKED });
  await ada.db.mutate.add({ title: 'milk' });
  await w.settle();
  expect(await titles(bob.db)).toEqual(['milk']);

  const live = bob.db.live('select title from todo');
  const shown: unknown[] = [];
  for (const late of [false, true]) {
    live.subscribe((rows) => shown.push(late, rows?.length));
    await w.settle();
  }
  expect(shown).toEqual([false, 1, true, 1]);
});

test('what a listener throws is not caught, also with timers that are not real', async () => {
  const heard = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  try {
    const thrown = new Promise((resolve) => process.once('uncaughtException', resolve));
    vi.useFakeTimers({ toFake: FAKED });
    const oops = new Error('oops');
    const stop = ada.db.on('status', () => {
      stop();
      throw oops;
    });
    ada.offline();
    await w.settle();
    expect(await thrown).toBe(oops);
  } finally {
    for (const listener of heard) process.on('uncaughtException', listener);
  }
});

test('the same seed draws the same ids', async () => {
  const drawn = async (seed: number): Promise<string[]> => {
    await using it = await world(todos, { seed });
    const { db } = await it.client();
    const ids = ['milk', 'bread'].map((title) => db.mutate.add({ title }).args.id);
    await it.settle();
    expect(await db.values('select id from todo order by at, rowid')).toEqual(
      ids.map((id) => [id]),
    );
    return ids;
  };
  expect(await drawn(3)).toEqual(await drawn(3));
  expect(await drawn(3)).not.toEqual(await drawn(4));
});

test('a reload keeps what is on the disk, and whoever listens next is told', async () => {
  ada.offline();
  await ada.db.mutate.add({ title: 'milk' });
  await bob.db.mutate.add({ title: 'milk' });
  const before = ada.db;
  const db = await ada.reload();
  expect(db).toBe(ada.db);
  await expect(before.query('select 1')).rejects.toBeInstanceOf(DocumentClosedError);
  expect([await titles(db), db.status.pending]).toEqual([['milk'], 1]);
  ada.online();
  await w.settle();
  const told: string[] = [];
  db.on('rejected', ({ mutation }) => told.push(mutation));
  await w.settle();
  expect(told).toEqual(['add']);
});

test('a second tab is the same device', async () => {
  ada.offline();
  const tab = await ada.tab();
  await tab.mutate.add({ title: 'milk' });
  expect(await titles(ada.db)).toEqual(['milk']);
  await w.settle();
  expect(await titles(bob.db)).toEqual([]);
});

test('a client that stays away by itself is left as it is', async () => {
  ada.db.disconnect();
  await ada.db.mutate.add({ title: 'milk' });
  await w.settle();
  expect([ada.db.status.away, ada.db.status.pending]).toEqual([true, 1]);
  ada.db.connect();
  await w.settle();
  expect(await titles(bob.db)).toEqual(['milk']);
});

test('a document that is deleted on the server is missed by those who have it', async () => {
  await ada.db.mutate.add({ title: 'milk' });
  await w.settle();
  const told: string[] = [];
  bob.db.on('error', ({ code }) => told.push(code));
  expect(await w.server.delete()).toBe(true);
  expect(await w.server.delete('another')).toBe(false);
  await w.settle();
  expect(told).toEqual(['document-missing']);
});

test('a client of the next release migrates the document, and the others are told', async () => {
  await ada.db.mutate.add({ title: 'milk' });
  await w.settle();
  const next = await w.client({ doctype: todosWithNotes });
  await w.settle();
  await next.db.mutate.note({ title: 'milk', note: 'of oats' });
  await w.settle();
  expect(ada.db.status.release).toBe('newer-elsewhere');
  await ada.db.mutate.done({ title: 'milk' });
  await w.settle();
  expect(await next.db.query('select done, note from todo')).toEqual([
    { done: 1, note: 'of oats' },
  ]);
});

test('documents of two ids are two documents', async () => {
  const other = await w.client({ document: 'other' });
  await other.db.mutate.add({ title: 'milk' });
  await w.settle();
  expect(await titles(bob.db)).toEqual([]);
});

test('a document of another doctype is refused', async () => {
  const stranger = await w.client({ doctype: albums });
  const told: unknown[] = [];
  stranger.db.on('error', (error) => told.push(error));
  await w.settle();
  expect(told[0]).toBeInstanceOf(DoctypeMismatchError);
});

test('what is closed says so, and what to do', async () => {
  await bob.close();
  await bob.close();
  const { db } = bob;
  await expect(db.query('select 1')).rejects.toBeInstanceOf(DocumentClosedError);
  expect(() => bob.offline()).toThrow(DocumentClosedError);
  await expect(bob.tab()).rejects.toThrow(/make another one with world.client/);
  await expect(bob.reload()).rejects.toBeInstanceOf(DocumentClosedError);
  await w.settle();

  await w.close();
  await w.close();
  expect(() => w.now).toThrow(DocumentClosedError);
  await expect(w.client()).rejects.toThrow(/make another one with world\(\)/);
  await expect(w.settle()).rejects.toBeInstanceOf(DocumentClosedError);
  await expect(w.pass(1)).rejects.toBeInstanceOf(DocumentClosedError);
  await expect(w.server.delete()).rejects.toBeInstanceOf(DocumentClosedError);
  await expect(ada.db.query('select 1')).rejects.toBeInstanceOf(DocumentClosedError);
  expect(() => ada.online()).toThrow(DocumentClosedError);
});

test('what is no option is refused', async () => {
  const refused = (promise: Promise<unknown>, message: RegExp): Promise<void> =>
    expect(promise).rejects.toMatchObject({
      name: InvalidOptionError.name,
      message: expect.stringMatching(message),
    });
  await refused(world({} as never), /give what doctype\(\) returned/);
  await refused(world(todos, { seed: 0.5 }), /seed has to be a whole number/);
  await refused(world(todos, { startsAt: new Date('no') }), /startsAt has to be a Date/);
  await refused(world(todos, { users: [] } as never), /there is no option users/);
  await refused(w.client({ name: 'ada' } as never), /there is no option name/);
  await refused(w.client({ document: 1 } as never), /document has to be a string/);
  await refused(w.client({ document: '' }), /./);
  await refused(w.client({ doctype: {} as never }), /what doctype\(\) returned/);
  await refused(w.pass(-1), /milliseconds from 0 on/);
});
