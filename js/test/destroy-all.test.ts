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
  const getDirectory = () => new Promise(() => {});
  vi.stubGlobal('navigator', { storage: { getDirectory } });
  const destroyed = destroyAll().catch((error) => error);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(await Promise.race([destroyed, 'pending'])).toBeInstanceOf(StorageError);
});

test('a database that somebody holds on to is not waited for without end', async () => {
  vi.useFakeTimers();
  browserThatSays('NotFoundError');
  vi.stubGlobal('indexedDB', { deleteDatabase: () => ({}) });
  const destroyed = destroyAll().catch((error) => error);
  await vi.advanceTimersByTimeAsync(10_000);
  const within = new Promise((resolve) => setTimeout(resolve, 0, 'pending'));
  await vi.advanceTimersByTimeAsync(0);
  expect(await Promise.race([destroyed, within])).toBeInstanceOf(StorageError);
});
