import { afterEach, expect, test, vi } from 'vitest';
import { openAnew } from '../src/dev.js';
import { DoctypeMismatchError } from '../src/errors.js';

afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const MISMATCH = new DoctypeMismatchError('migration 1 was edited');

/** Opens a document whose migration was edited. Says what was done, and what came of it. */
async function openEdited(server: string | undefined, answer: () => Promise<unknown>) {
  vi.spyOn(console, 'warn').mockImplementation(() => {});
  const done: string[] = [];
  vi.stubGlobal('fetch', (url: string) => {
    done.push(`delete ${url}`);
    return answer();
  });
  const db = { on: () => () => {} };
  const steps = {
    document: 'a/b',
    server,
    open: async () => {
      done.push('open');
      if (done.filter((it) => it === 'open').length === 1) throw MISMATCH;
      return db as never;
    },
    destroy: async () => {
      done.push('destroy');
    },
  };
  const came = await openAnew(steps).catch((error) => error);
  return { done, isOpen: came === db, error: came === db ? undefined : came };
}

const THERE = 'delete http://localhost:1/v1/documents/a%2Fb';

test.each([
  { ok: true, status: 200 },
  { ok: false, status: 404 },
])('a document begins anew on its server, and then here: $status', async (answer) => {
  const { done, isOpen } = await openEdited('ws://localhost:1/', async () => answer);
  expect(done).toEqual(['open', THERE, 'destroy', 'open']);
  expect(isOpen).toBe(true);
});

test('a local document begins anew here', async () => {
  const { done, isOpen } = await openEdited(undefined, async () => ({}));
  expect([done, isOpen]).toEqual([['open', 'destroy', 'open'], true]);
});

test.each<[string, () => Promise<unknown>]>([
  ['refuses', async () => ({ ok: false, status: 403 })],
  ['is away', () => Promise.reject(new TypeError('failed to fetch'))],
])('nothing is lost here where the server %s', async (_, answer) => {
  const { done, error } = await openEdited('ws://localhost:1', answer);
  expect([done, error]).toEqual([['open', THERE], MISMATCH]);
});
