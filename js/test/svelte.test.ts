// The stores of Svelte, whose components are done by hand.

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Database } from '../src/database.js';
import { doctype } from '../src/doctype.js';

const contexts = vi.hoisted(() => new Map<unknown, unknown>());
vi.mock('svelte', () => ({
  getContext: (key: unknown) => contexts.get(key),
  setContext: (key: unknown, value: unknown) => contexts.set(key, value),
  onDestroy: () => {},
}));

beforeEach(() => {
  vi.resetModules();
  vi.stubGlobal('document', {});
});
afterEach(() => vi.unstubAllGlobals());

test('the store of a document tells of another document, and of no other status', async () => {
  const { createHooks } = await import('../src/svelte.js');
  const KIND = doctype({ name: 'notes', migrations: [], mutations: {} });
  const listeners = new Set<() => void>();
  const db = {
    status: {},
    on: (_: string, listener: () => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const { provide, useDocument, useStatus } = createHooks(KIND);
  provide({ db: db as unknown as Database<typeof KIND.mutations> });
  const told: unknown[] = [];
  const statuses: unknown[] = [];
  useDocument().subscribe((it) => told.push(it));
  useStatus().subscribe((it) => statuses.push(it));
  for (const status of [{ pending: 1 }, { pending: 0 }]) {
    db.status = status;
    for (const listener of listeners) listener();
  }
  expect(told).toEqual([db]);
  expect(statuses).toEqual([{}, { pending: 1 }, { pending: 0 }]);
});
