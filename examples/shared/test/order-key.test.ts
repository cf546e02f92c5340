import { expect, test } from 'vitest';
import { keyBetween } from '../order-key.ts';

/** Tails whose digits are as close to each other as they come, at both ends of the alphabet. */
const tail = (n: number) => `00000000-0000-4000-8000-${n.toString(16).padStart(12, '0')}`;

/** The same numbers on every run. */
function* chance(seed: number): Generator<number, never> {
  for (let state = seed; ; ) {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    yield state / 2 ** 31;
  }
}

test('a key lies between its neighbours wherever cards are put', () => {
  const random = chance(42);
  const keys: string[] = [];
  for (let n = 1; n <= 2_000; n++) {
    const index = Math.floor(random.next().value * (keys.length + 1));
    const [before, after] = [keys[index - 1] ?? '', keys[index] ?? ''];
    const key = keyBetween(before, after, tail(Math.floor(random.next().value * 2 ** 48)));
    expect(key > before && (after === '' || key < after), `${before} ${key} ${after}`).toBe(true);
    keys.splice(index, 0, key);
  }
});

test('there is room at the top, at the end and in one gap, time after time', () => {
  let [first, last] = ['', ''];
  for (let n = 1; n <= 300; n++) {
    const [top, end] = [keyBetween('', first, tail(n)), keyBetween(last, '', tail(n))];
    expect(first === '' || top < first).toBe(true);
    expect(end > last).toBe(true);
    [first, last] = [top, end];
  }
  let [low, high] = [keyBetween('', '', tail(1)), keyBetween('', '', tail(2))];
  for (let n = 3; n <= 300; n++) {
    const key = keyBetween(low, high, tail(n));
    expect(low < key && key < high).toBe(true);
    if (n % 2) low = key;
    else high = key;
  }
});

test('devices that put cards into one gap make keys of their own, with room between them', () => {
  const [before, after] = [
    keyBetween('', '', tail(1)),
    keyBetween(keyBetween('', '', tail(1)), '', tail(2)),
  ];
  const keys = [3, 4, 5].map((n) => keyBetween(before, after, tail(n))).sort();
  expect(new Set(keys).size).toBe(3);
  for (const [index, key] of keys.entries()) {
    const next = keys[index + 1] ?? after;
    const between = keyBetween(key, next, tail(6 + index));
    expect(key < between && between < next).toBe(true);
  }
});

test('neighbours in the wrong order are told of', () => {
  expect(() => keyBetween('b', 'a', tail(1))).toThrow('BUG');
  expect(() => keyBetween('a', 'a', tail(1))).toThrow('BUG');
});
