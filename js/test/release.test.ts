import { expect, test } from 'vitest';
import { isNewer } from '../src/release.js';

test('W7: releases are compared as numbers, and builds of one release are not', () => {
  const lock = (release: string): string => `tidelog-core:${release}`;
  expect(isNewer(lock('0.10.0'), lock('0.9.3+ab'))).toBe(true);
  expect(isNewer(lock('0.9.3+ab'), lock('0.10.0'))).toBe(false);
  expect(isNewer(lock('1.0.0'), lock('0.99.99'))).toBe(true);
  expect(isNewer(lock('1.2.3+cd'), lock('1.2.3+ab'))).toBe(false);
});
