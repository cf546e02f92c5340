import { afterEach, expect, test, vi } from 'vitest';
import { destroyAll } from '../src/destroy-all.js';
import { StorageError } from '../src/errors.js';

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** A browser whose files answer the wish to remove them so. */
function browserThatSays(name: string): void {
  const removeEntry = async (): Promise<void> => {
    throw Object.assign(new Error(name), { name });
  };
  vi.stubGlobal('navigator', { storage: { getDirectory: async () => ({ removeEntry }) } });
  const deleteDatabase = (): object => {
    const deleting = { onsuccess: () => {} };
    queueMicrotask(() => deleting.onsuccess());
    return deleting;
  };
  vi.stubGlobal('indexedDB', { deleteDatabase });
}

/** A browser that removes files by this. */
function browserThatRemoves(removeEntry: () => Promise<void>): void {
  browserThatSays('NotFoundError');
  vi.stubGlobal('navigator', { storage: { getDirectory: async () => ({ removeEntry }) } });
}

/** Why everything could not be deleted within ten seconds; undefined if it could, or still may. */
async function whyNot(atOnce = (): void => {}): Promise<unknown> {
  let why: unknown;
  destroyAll().catch((error) => {
    why = error;
    atOnce();
  });
  await vi.advanceTimersByTimeAsync(10_000);
  return why;
}

const HELD = Object.assign(new Error('held'), { name: 'NoModificationAllowedError' });

test('W20: what is not known to be gone is not said to be gone', async () => {
  browserThatSays('UnknownError');
  await expect(destroyAll()).rejects.toBeInstanceOf(StorageError);
});

test('a window that may keep nothing has nothing to remove', async () => {
  browserThatSays('SecurityError');
  const deleteDatabase = (): never => {
    throw new DOMException('not here', 'SecurityError');
  };
  vi.stubGlobal('indexedDB', { deleteDatabase });
  await expect(destroyAll()).resolves.toBeUndefined();
});

test('a site that keeps nothing has nothing to remove', async () => {
  browserThatSays('NotFoundError');
  await expect(destroyAll()).resolves.toBeUndefined();
});

test('files of which the browser says nothing are not waited for without end', async () => {
  vi.useFakeTimers();
  browserThatSays('NotFoundError');
  const removeEntry = vi.fn();
  const getDirectory = () => new Promise((resolve) => setTimeout(resolve, 12_000, { removeEntry }));
  vi.stubGlobal('navigator', { storage: { getDirectory } });
  expect(await whyNot()).toMatchObject({ code: 'storage', outcome: 'none' });
  await vi.advanceTimersByTimeAsync(10_000);
  expect(removeEntry).not.toHaveBeenCalled();
});

test('what somebody holds on to is left alone once that was said', async () => {
  vi.useFakeTimers();
  const from = Date.now();
  const removeEntry = vi.fn(async () => {
    if (Date.now() - from < 9_000) throw HELD;
  });
  browserThatRemoves(removeEntry);
  const deleteDatabase = vi.fn();
  vi.stubGlobal('indexedDB', { deleteDatabase });
  const told = vi.spyOn(BroadcastChannel.prototype, 'postMessage');
  // A hidden tab, whose timers come once a second.
  const { setTimeout } = globalThis;
  vi.stubGlobal('setTimeout', (then: () => void, ms: number) =>
    setTimeout(then, Math.max(ms, 1_000)),
  );
  const counts = () => [removeEntry.mock.calls.length, told.mock.calls.length];
  let before = [0, 0];
  const why = await whyNot(() => {
    before = counts();
  });
  expect(why).toMatchObject({ code: 'storage', outcome: 'none' });
  expect(before[0]).toBeGreaterThan(5);
  await vi.advanceTimersByTimeAsync(100_000);
  expect(counts()).toEqual(before);
  expect(deleteDatabase).not.toHaveBeenCalled();
});

test('what the browser may still remove, or did in part, is not known to be there', async () => {
  vi.useFakeTimers();
  browserThatRemoves(() => new Promise((resolve) => setTimeout(resolve, 12_000)));
  const deleteDatabase = vi.fn();
  vi.stubGlobal('indexedDB', { deleteDatabase });
  expect(await whyNot()).toMatchObject({ code: 'storage', outcome: 'unknown' });
  await vi.advanceTimersByTimeAsync(10_000);
  expect(deleteDatabase).not.toHaveBeenCalled();
  browserThatSays('UnknownError');
  expect(await whyNot()).toMatchObject({ code: 'storage', outcome: 'unknown' });
});

test('a database that somebody holds on to is not waited for without end', async () => {
  vi.useFakeTimers();
  browserThatSays('NotFoundError');
  vi.stubGlobal('indexedDB', { deleteDatabase: () => ({}) });
  expect(await whyNot()).toMatchObject({ code: 'storage', outcome: 'unknown' });
});

test('files and database together are not waited for longer than one of them', async () => {
  vi.useFakeTimers();
  const from = Date.now();
  browserThatRemoves(async () => {
    if (Date.now() - from < 5_000) throw HELD;
  });
  vi.stubGlobal('indexedDB', { deleteDatabase: () => ({}) });
  expect(await whyNot()).toMatchObject({ code: 'storage', outcome: 'unknown' });
});

test('a removal that was carried out leaves no timer behind', async () => {
  vi.useFakeTimers();
  browserThatRemoves(async () => {});
  await destroyAll();
  expect(vi.getTimerCount()).toBe(0);
});
