import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Database } from '../src/database.js';
import { openAnew, sayWhoAnswers } from '../src/dev.js';
import {
  DoctypeMismatchError,
  DocumentClosedError,
  DocumentInUseError,
  EngineError,
  ServerUnreachableError,
  type TidelogError,
} from '../src/errors.js';

let asked: string[] = [];
/** What else is done, one behind the other. */
let turns = Promise.resolve();

beforeEach(() => {
  asked = [];
  turns = Promise.resolve();
  vi.spyOn(console, 'warn').mockImplementation(() => {});
  const request = (_name: string, work: () => Promise<unknown>): Promise<unknown> => {
    const done = turns.then(work);
    turns = done.then(
      () => {},
      () => {},
    );
    return done;
  };
  vi.stubGlobal('navigator', { locks: { request } });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const MISMATCH = new DoctypeMismatchError('migration 1 of list was edited');
const DOCUMENT = 'a/b';
const MISSING = { status: 404, text: 'no such document\n' };
const THERE = { status: 200, text: JSON.stringify({ document: DOCUMENT }) };
const DELETED = { status: 204, text: '' };

/**
 * A document of which the copies here and at the server have seen another migration, or have not.
 */
function device(copies: { here?: TidelogError; there?: TidelogError }) {
  const left = { ...copies };
  const open = async () => {
    asked.push('open');
    if (left.here) throw left.here;
    return {
      on: () => () => {},
      close: async () => {
        asked.push('close');
      },
      sync: async () => {
        if (left.there) throw left.there;
      },
    } as never;
  };
  const destroy = async (): Promise<void> => {
    asked.push('destroy');
    delete left.here;
  };
  const answer = ({ method }: { method: string }) => {
    if (method === 'DELETE') delete left.there;
    return method === 'DELETE' ? DELETED : THERE;
  };
  return { left, open, destroy, answer };
}

type Answer = (init: { method: string }) => { status: number; text: string };

function answers(answer: Answer): void {
  vi.stubGlobal('fetch', async (url: string, init: { method: string }) => {
    asked.push(`${init.method} ${url}`);
    const { status, text } = answer(init);
    return { status, text: async () => text };
  });
}

const SERVER = 'ws://localhost:1/';
const URL_THERE = 'http://localhost:1/v1/documents/a%2Fb';

function openIt(it: ReturnType<typeof device>, server: string | undefined = SERVER) {
  const { open, destroy } = it;
  return openAnew({ document: DOCUMENT, server, open, destroy });
}

test('what was not edited is opened, and that is all', async () => {
  await openIt(device({}));
  expect(asked).toEqual(['open']);
});

test('a copy that has seen another migration begins anew, and its server keeps all', async () => {
  const it = device({ here: MISMATCH });
  answers(it.answer);
  await openIt(it);
  expect(asked).toEqual(['open', 'open', `GET ${URL_THERE}`, 'destroy', 'open']);
});

test('so does what its server has, where that has seen it too', async () => {
  const it = device({ here: MISMATCH, there: MISMATCH });
  answers(it.answer);
  await openIt(it);
  const [get, remove] = [`GET ${URL_THERE}`, `DELETE ${URL_THERE}`];
  const there = [get, 'destroy', remove, 'open'];
  expect(asked).toEqual(['open', 'open', get, 'destroy', 'open', ...there]);
});

test('a copy that a server refuses begins anew with it', async () => {
  const it = device({ there: MISMATCH });
  answers(it.answer);
  await openIt(it);
  const there = [`GET ${URL_THERE}`, 'destroy', `DELETE ${URL_THERE}`, 'open'];
  expect(asked).toEqual(['open', 'close', 'open', ...there]);
});

test('a server that refuses it is believed before the answer is here', async () => {
  const it = device({ there: MISMATCH });
  answers(it.answer);
  const open = async () => {
    const db = (await it.open()) as object;
    if (!it.left.there) return db as never;
    let tell: (status: object) => void;
    const on = (_: string, listener: typeof tell): (() => void) => {
      tell = listener;
      return () => {};
    };
    const sync = ({ signal }: { signal: AbortSignal }): Promise<void> =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason));
        tell({ connection: 'offline', error: MISMATCH });
      });
    return { ...db, on, sync } as never;
  };
  await openIt({ ...it, open });
  const there = [`GET ${URL_THERE}`, 'destroy', `DELETE ${URL_THERE}`, 'open'];
  expect(asked).toEqual(['open', 'close', 'open', ...there]);
});

test('nothing is deleted at a server that cannot be here', async () => {
  const it = device({ there: MISMATCH });
  answers(it.answer);
  const inUse = new DocumentInUseError('a tab is asleep');
  const destroy = () => Promise.reject(inUse);
  const opening = openAnew({ document: DOCUMENT, server: SERVER, open: it.open, destroy });
  await expect(opening).rejects.toBe(inUse);
  expect(asked.filter((what) => what.startsWith('DELETE'))).toEqual([]);
});

test('a document that another tab begins anew meanwhile is opened once that is done', async () => {
  const it = device({ there: new DocumentClosedError('another tab deletes it') });
  const open = (): Promise<never> => {
    const opened = it.open() as Promise<never>;
    if (asked.length > 1) delete it.left.there;
    return opened;
  };
  await openAnew({ document: DOCUMENT, server: SERVER, open, destroy: it.destroy });
  expect(asked).toEqual(['open', 'open']);
});

test('what a copy was migrated to otherwise at its server was edited too', async () => {
  const said = 'its server has migrated it otherwise than the 2 migrations of this list do';
  const it = device({ here: new DoctypeMismatchError(said) });
  answers(it.answer);
  await openIt(it);
  expect(asked).toContain('destroy');
});

test('of two who open it one begins it anew', async () => {
  const it = device({ here: MISMATCH, there: MISMATCH });
  answers(it.answer);
  await Promise.all([openIt(it), openIt(it)]);
  expect(asked.filter((what) => what === 'destroy')).toHaveLength(2);
  expect(asked.filter((what) => what.startsWith('DELETE'))).toHaveLength(1);
});

test('a local document begins anew here', async () => {
  const it = device({ here: MISMATCH });
  const { open, destroy } = it;
  await openAnew({ document: DOCUMENT, server: undefined, open, destroy });
  expect(asked).toEqual(['open', 'open', 'destroy', 'open']);
});

test.each<[string, Answer]>([
  ['refuses', () => ({ status: 403, text: '' })],
  ['is another one, that has no such page', () => ({ status: 404, text: 'Not Found' })],
  ['is another one, that answers all', () => ({ status: 200, text: '<!doctype html>' })],
  [
    'is away',
    () => {
      throw new TypeError('failed to fetch');
    },
  ],
])('nothing is lost where the server %s', async (_, answer) => {
  answers(answer);
  await expect(openIt(device({ here: MISMATCH }))).rejects.toBe(MISMATCH);
  await openIt(device({ there: MISMATCH }));
  expect(asked).not.toContain('destroy');
});

test('a document that was never of this doctype is none whose migration was edited', async () => {
  const other = new DoctypeMismatchError('a/b is of doctype todos, and not of list');
  answers(() => DELETED);
  await expect(openIt(device({ here: other }))).rejects.toBe(other);
  await openIt(device({ there: other }));
  const failed = new EngineError('no engine');
  await expect(openIt(device({ here: failed }))).rejects.toBe(failed);
  expect(asked).toEqual(['open', 'open', 'open']);
});

test('a document that is missing at its server begins anew here', async () => {
  answers(() => MISSING);
  await openIt(device({ here: MISMATCH }));
  expect(asked).toContain('destroy');
});

test('a server that does not answer holds nobody up', async () => {
  vi.useFakeTimers();
  const it = device({});
  const open = async () => {
    await it.open();
    const wait = ({ signal }: { signal: AbortSignal }): Promise<void> =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason));
      });
    return { on: () => () => {}, sync: wait } as never;
  };
  const opening = openAnew({ document: DOCUMENT, server: SERVER, open, destroy: it.destroy });
  await vi.advanceTimersByTimeAsync(3_000);
  await opening;
  expect(asked).toEqual(['open']);
});

test('of a server that is not reached it is said what is at its address', async () => {
  vi.useFakeTimers();
  const error = new ServerUnreachableError('it does not answer');
  const status = { error } as Database['status'];
  const fetched = vi.fn(async (_url: string, _options: object) => ({}));
  vi.stubGlobal('fetch', fetched);
  const saying = sayWhoAnswers({ status }, 'ws://sync.test:8787/');
  await vi.runAllTimersAsync();
  await saying;
  expect(fetched.mock.calls[0]![0]).toBe('http://sync.test:8787/healthz');
  // Of another origin nothing but that can be seen: it has to be enough.
  expect(fetched.mock.calls[0]![1]).toMatchObject({ mode: 'no-cors' });
  expect(console.warn).toHaveBeenLastCalledWith(
    expect.stringMatching(/^tidelog: http:..sync.test:8787 answers, but not as a Tidelog server/),
  );
  fetched.mockRejectedValue(new TypeError('refused'));
  await sayWhoAnswers({ status }, new URL('wss://sync.test'));
  expect(console.warn).toHaveBeenLastCalledWith(
    expect.stringMatching(/^tidelog: nothing answers at https:..sync.test: start the server/),
  );
  // It may be reached by then.
  await sayWhoAnswers({ status: { ...status, error: null } }, 'ws://sync.test');
  expect(console.warn).toHaveBeenCalledTimes(2);
});

test('a server that has just begun is not called another one', async () => {
  vi.useFakeTimers();
  const error = new ServerUnreachableError('it does not answer');
  const db = { status: { error } as Database['status'] };
  const fetched = vi.fn(async () => ({}));
  vi.stubGlobal('fetch', fetched);
  const saying = sayWhoAnswers(db, 'ws://sync.test:8787/');
  await vi.advanceTimersByTimeAsync(4_000);
  expect(fetched).toHaveBeenCalledTimes(1);
  // The next try of the document reaches it.
  db.status = { ...db.status, error: null };
  await vi.runAllTimersAsync();
  await saying;
  expect(console.warn).not.toHaveBeenCalled();
});
