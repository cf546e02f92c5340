// How a world ends: by close(), by what its engine dies of, and where it would never come to rest.

import { type Database, DocumentClosedError, EngineError } from 'tidelog';
import { type Client, type World, world } from 'tidelog/testing';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { World as Cores } from '../node_modules/tidelog/dist/world/world.js';
import { todos } from './todos.js';

type Todos = typeof todos.mutations;

let w: World<Todos>;
let ada: Client<Todos>;

beforeEach(async () => {
  w = await world(todos);
  ada = await w.client();
});

afterEach(() => {
  vi.restoreAllMocks();
  return w.close();
});

const rejects = (promise: Promise<unknown>, error: object): Promise<void> =>
  expect(promise).rejects.toMatchObject(error);

const CLOSED = { code: 'document-closed' };
const WORLD_CLOSED = { ...CLOSED, message: expect.stringMatching(/make another one with world/) };
const DEAD = { code: 'engine', message: expect.stringMatching(/^the engine died: /) };

test('what is issued once the world is closed fails, and is given back', async () => {
  await w.close();
  const receipt = ada.db.mutate.add({ title: 'milk' });
  await expect(receipt).rejects.toBeInstanceOf(DocumentClosedError);
  expect(receipt.args).toEqual({ id: expect.stringMatching(/^[-0-9a-f]{36}$/), title: 'milk' });
  expect(ada.db.on('rejected', () => {})).toBeTypeOf('function');
  ada.db.connect();
});

test('what is under way as the world is closed says that it was', async () => {
  const unopened = [
    rejects(w.client(), WORLD_CLOSED),
    rejects(ada.tab(), CLOSED),
    rejects(ada.reload(), CLOSED),
  ];
  const waiting = [w.pass(3_600_000), w.settle(), w.pass(3_600_000)];
  const [first, , last] = waiting.map((it) => rejects(it, WORLD_CLOSED).then(() => 'closed'));
  await w.close();
  await Promise.all(unopened);
  expect(await Promise.all([first, last])).toEqual(['closed', 'closed']);
});

/** The module that is the world is told what it cannot read, which it dies of. */
function dieOf(act: () => Promise<unknown>): Promise<unknown> {
  const { hear } = Cores.prototype;
  vi.spyOn(console, 'error').mockImplementation(() => {});
  vi.spyOn(Cores.prototype, 'hear').mockImplementationOnce(function (this: Cores, tab) {
    hear.call(this, tab, new Uint8Array(3));
  });
  return act();
}

test('all that is under way fails as the engine dies, and the world can be closed', async () => {
  const told: unknown[] = [];
  ada.db.live('select title from todo').subscribe((_, error) => told.push(error));
  ada.db.on('error', ({ message }) => told.push(message));
  ada.offline();
  const bob = await w.client();
  const receipt = ada.db.mutate.add({ title: 'milk' });
  await receipt;
  const failed = [
    rejects(receipt.confirmed, { ...CLOSED, outcome: 'unknown' }),
    rejects(bob.db.sync(), DEAD),
    rejects(w.settle(), DEAD),
    rejects(w.pass(1000), DEAD),
  ];
  await rejects(
    dieOf(() => ada.db.query('select 1')),
    DEAD,
  );
  await Promise.all(failed);
  expect(told).toContainEqual(expect.stringMatching(/^the engine died/));
  expect(told.at(-1)).toBeInstanceOf(DocumentClosedError);

  expect(w.now).toBe(Date.UTC(2025, 0, 1));
  await rejects(ada.db.mutate.add({ title: 'bread' }), CLOSED);
  await rejects(bob.db.query('select 1'), CLOSED);
  await rejects(w.client(), DEAD);
  await rejects(w.settle(), DEAD);
  expect(() => ada.online()).toThrow(EngineError);
  await w.close();
  await rejects(w.settle(), WORLD_CLOSED);
});

test('who opens a document as the engine dies is told so', async () => {
  await rejects(
    dieOf(() => w.client()),
    DEAD,
  );
});

test('an engine that dies as the clock is moved ends what waits for that', async () => {
  vi.spyOn(Cores.prototype, 'pass').mockImplementationOnce(() => {
    throw new WebAssembly.RuntimeError('unreachable');
  });
  const asked = rejects(ada.db.sync(), DEAD);
  ada.offline();
  await rejects(w.pass(1), DEAD);
  await asked;
});

/** Issues one more as soon as it sees one, for ever. */
function issueAgainAndAgain(db: Database<Todos>, whose: string): void {
  let count = 0;
  db.live('select rowid from todo order by rowid desc limit 1').subscribe((_, error) => {
    if (!error) db.mutate.add({ title: `${whose} ${count++}` }).catch(() => {});
  });
}

test('a world that never comes to rest says so', { timeout: 60_000 }, async () => {
  const bob = await w.client();
  issueAgainAndAgain(ada.db, 'ada');
  issueAgainAndAgain(await bob.tab(), 'bob');
  await rejects(w.settle(), {
    code: 'engine',
    message: expect.stringMatching(/has not settled .* at one time .*online.* issued again/),
  });
  await w.close();
});
