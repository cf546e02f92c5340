import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Checks } from '../src/node/checks.js';

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

/** Checks that take until they are ended, each of which finds its number. */
function slowChecks() {
  const ends: (() => void)[] = [];
  const told: number[] = [];
  const checks = new Checks(
    () => {
      const number = ends.length + 1;
      return new Promise<number>((resolve) => {
        ends.push(() => resolve(number));
      });
    },
    (found) => told.push(found),
  );
  return { checks, ends, told };
}

test('files that are saved together are checked once', async () => {
  const { checks, ends, told } = slowChecks();
  checks.saved();
  checks.saved();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(ends).toHaveLength(1);
  ends[0]!();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(told).toEqual([1]);
});

test('what is saved during a check is checked behind it, and alone told', async () => {
  const { checks, ends, told } = slowChecks();
  checks.saved();
  await vi.advanceTimersByTimeAsync(1_000);
  for (const _save of [1, 2, 3]) {
    checks.saved();
    await vi.advanceTimersByTimeAsync(1_000);
  }
  expect(ends, 'one at a time').toHaveLength(1);
  ends[0]!();
  await vi.advanceTimersByTimeAsync(1_000);
  expect([ends.length, told]).toEqual([2, []]);
  ends[1]!();
  await vi.advanceTimersByTimeAsync(1_000);
  expect([ends.length, told]).toEqual([2, [2]]);
});
