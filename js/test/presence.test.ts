import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { DocumentClosedError, InvalidOptionError } from '../src/errors.js';
import { Presence } from '../src/presence.js';

type State = { readonly at?: unknown };

/** A presence, and what it has said. */
function presence() {
  const said: (string | null)[] = [];
  const one = new Presence<State>((state) => said.push(state));
  return { one, said };
}

const turn = async (): Promise<void> => {
  for (let turns = 0; turns < 3; turns++) await Promise.resolve();
};

const other = (key: number, at: unknown, user: string | null = null) => ({
  key,
  who: { user, client: 'c0ffee' },
  state: JSON.stringify({ at }),
});

beforeEach(() => vi.stubGlobal('reportError', () => {}));
afterEach(() => vi.unstubAllGlobals());

test('what is set in one turn is said once, and the last of it', async () => {
  const { one, said } = presence();
  one.set({ at: 1 });
  one.set({ at: 2 });
  await turn();
  expect(said).toEqual(['{"at":2}']);
  one.set({ at: 2 });
  await turn();
  expect(said).toHaveLength(1);
  one.set(null);
  await turn();
  expect(said).toEqual(['{"at":2}', null]);
});

test('who only looks says so', async () => {
  const { said } = presence();
  await turn();
  expect(said).toEqual([null]);
});

test('what is no object of JSON, or too large, is refused and changes nothing', async () => {
  const { one, said } = presence();
  one.set({ at: 'here' });
  const loop: { at?: unknown } = {};
  loop.at = loop;
  const large = 'x'.repeat(4096 - JSON.stringify({ at: '' }).length);
  for (const wrong of [loop, { at: 1n }, [], 'a', 7, () => {}, undefined, { at: `${large}x` }]) {
    expect(() => one.set(wrong as State)).toThrow(InvalidOptionError);
  }
  expect(() => one.set({ at: 'ü'.repeat(2044) })).toThrow(/4097 bytes is over 4096/);
  await turn();
  expect(said).toEqual(['{"at":"here"}']);
  one.set({ at: large });
  await turn();
  expect(said).toHaveLength(2);
});

test('others keep their identity for as long as nothing of them changes', () => {
  const { one } = presence();
  const told: (readonly unknown[])[] = [];
  one.subscribe((others) => told.push(others));
  one.take({ count: 3, keys: [4, 9], others: [other(9, 1), other(4, 2, 'ada')] });
  const [ada, second] = one.others;
  expect(ada).toEqual({ key: '4', user: 'ada', client: 'c0ffee', state: { at: 2 } });
  expect(one.others.map(({ key }) => key)).toEqual(['4', '9']);
  one.take({ count: 3, keys: null, others: [{ key: 9, who: null, state: '{"at":5}' }] });
  expect(one.others[0]).toBe(ada);
  expect(one.others[1]).toMatchObject({ key: '9', client: 'c0ffee', state: { at: 5 } });
  expect(one.others[1]).not.toBe(second);
  const before = one.others;
  one.take({ count: 7, keys: null, others: [] });
  expect(one.others).toBe(before);
  expect([one.count, told.length]).toEqual([7, 3]);
  one.take({ count: 2, keys: [4], others: [] });
  expect(one.others).toEqual([ada]);
});

test('of more than a hundred the first are seen, and none of whom nothing can be read', () => {
  const { one } = presence();
  const keys = Array.from({ length: 101 }, (_, at) => at + 1);
  one.take({ count: 200, keys, others: keys.map((key) => other(key, key)) });
  expect(one.others).toHaveLength(100);
  expect(one.others.at(-1)?.key).toBe('100');
  const nonsense = ['{', '7', 'null', ''].map((state, at) => ({ ...other(at + 1, 0), state }));
  const unknown = { key: 500, who: null, state: '{}' };
  one.take({ count: 200, keys: [1, 2, 3, 4, 5], others: [...nonsense, unknown] });
  expect(one.others.map(({ key }) => key)).toEqual(['5']);
});

test('a listener that throws, or listens twice, harms no other one', () => {
  const { one } = presence();
  const told: string[] = [];
  const twice = (): number => told.push('twice');
  one.subscribe(() => {
    throw new Error('of the app');
  });
  const stop = one.subscribe(twice);
  one.subscribe(twice);
  one.take({ count: 2, keys: [1], others: [other(1, 1)] });
  stop();
  stop();
  one.take({ count: 1, keys: [], others: [] });
  expect(told).toEqual(['twice', 'twice', 'twice']);
});

test('a listener that another one has stopped is not called', () => {
  const { one } = presence();
  const told: string[] = [];
  one.subscribe(() => {
    told.push('first');
    stop();
  });
  const stop = one.subscribe(() => told.push('second'));
  one.take({ count: 2, keys: [1], others: [other(1, 1)] });
  expect(told).toEqual(['first']);
});

test('nobody is seen once the engine is lost, or the document closed', async () => {
  const { one, said } = presence();
  let told = 0;
  one.subscribe(() => told++);
  one.take({ count: 2, keys: [1], others: [other(1, 1)] });
  one.lose();
  expect([one.count, one.others, told]).toEqual([1, [], 2]);
  one.lose();
  expect(told).toBe(2);
  one.take({ count: 2, keys: [1], others: [other(1, 1)] });
  one.set({ at: 3 });
  one.endWith();
  expect([one.count, one.others, told]).toEqual([1, [], 4]);
  one.take({ count: 2, keys: [1], others: [other(1, 1)] });
  expect(one.others).toEqual([]);
  one.set(null);
  expect(() => one.set({ at: 4 })).toThrow(DocumentClosedError);
  await turn();
  expect(said).toEqual([]);
});
