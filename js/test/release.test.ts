import { expect, test } from 'vitest';
import { isNewer, winsOver } from '../src/release.js';

test('W7: releases are compared as numbers, and builds of one release are not', () => {
  const lock = (release: string): string => `tidelog-core:${release}`;
  expect(isNewer(lock('0.10.0'), lock('0.9.3+ab'))).toBe(true);
  expect(isNewer(lock('0.9.3+ab'), lock('0.10.0'))).toBe(false);
  expect(isNewer(lock('1.0.0'), lock('0.99.99'))).toBe(true);
  expect(isNewer(lock('1.2.3+cd'), lock('1.2.3+ab'))).toBe(false);
});

test('of any two locks one wins', () => {
  const [older, one, other] = ['0.9.0+ff', '0.10.0+ab', '0.10.0+cd'].map((it) => `lock:${it}`);
  const pairs = [older, one, other].flatMap((a) => [older, one, other].map((b) => [a!, b!]));
  const wins = pairs.filter(([a, b]) => winsOver(a!, b!));
  expect(wins).toEqual([
    [one, older],
    [other, older],
    [other, one],
  ]);
});
