// Working for many documents, whose server and documents are played by hand.

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { doctype } from '../src/doctype.js';
import { DocumentClosedError, InvalidOptionError } from '../src/errors.js';
import { command, stream } from '../src/events.js';
import { type Working, type WorkOptions, workIn } from '../src/node/work.js';
import type { Status } from '../src/status.js';
import { workflow } from '../src/workflows.js';

const KIND = doctype({
  name: 'shop',
  migrations: [],
  mutations: {},
  streams: {
    order: stream({ events: { paid: {} }, commands: { pay: command({}) } }),
    quiet: stream({ events: {} }),
  },
  workflows: { fulfil: workflow({ order: 'text' }) },
});
const ORDER = { initial: 0, commands: { pay: () => [] } };

/** A document that is open, and what was done with it. */
class Desk {
  status = { synced: false, error: null } as Status;
  atWork = 0;
  isClosed = false;
  begun = 0;
  readonly #listeners = new Set<() => void>();
  readonly #endings = new Set<() => void>();

  set(status: Partial<Status>): void {
    this.status = { ...this.status, ...status };
    for (const listener of this.#listeners) listener();
  }

  on(_: string, listener: () => void): void {
    this.#listeners.add(listener);
  }

  handle(): object {
    const desk = this;
    return {
      get atWork() {
        return desk.atWork;
      },
      get begun() {
        return desk.begun;
      },
      close: async () => {
        if (this.atWork > 0) await new Promise<void>((resolve) => this.#endings.add(resolve));
      },
    };
  }

  async close(): Promise<void> {
    this.isClosed = true;
    this.set({ error: new DocumentClosedError('the document was closed: open it again') });
    for (const end of this.#endings) end();
  }
}

/** The documents that are open, by their names, and those that ever were. */
let desks = new Map<string, Desk>();
let opened: string[] = [];
let destroyed: string[] = [];
let errors: string[] = [];
let working: Working | undefined;
/** What each document does as it is opened. */
let begin = (_: Desk): void => {};

const memory = {
  async open(_: unknown, { document, server }: { document: string; server?: string }) {
    const desk = new Desk();
    if (!server) return desk as never;
    opened.push(document);
    desks.set(document, desk);
    begin(desk);
    return desk as never;
  },
  async destroy(document: string) {
    if (desks.delete(document)) destroyed.push(document);
  },
  keep: (until: Promise<void>) => until,
};

/** Tells of these, by their names and what is due there, and of no more. */
function tells(documents: readonly (readonly [string, readonly string[] | null])[]): void {
  const all = documents.map(([document, due]) => `${JSON.stringify({ document, due })}\n`);
  const lines = new TextEncoder().encode(all.join(''));
  vi.stubGlobal('fetch', async (_: URL, { signal }: { signal: AbortSignal }) => {
    const start = (controller: ReadableStreamDefaultController): void => {
      controller.enqueue(lines);
      signal.addEventListener('abort', () => controller.error(signal.reason));
    };
    return new Response(new ReadableStream({ start }));
  });
}

/** Tells of so many documents, and of no more. */
const due = (count: number): void =>
  tells(Array.from({ length: count }, (_, nth) => [`d${nth}`, null] as const));

function works(of: Partial<WorkOptions> = {}, handlers: object = { order: ORDER }): Working {
  const onError = (error: unknown): unknown => errors.push(String(error));
  const options = { server: 'ws://sync.test', documents: '*', onError, ...of };
  working = workIn(memory, KIND as never, options, handlers);
  return working;
}

/** Lets that much time pass; the server says all the while that it is there. */
const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

beforeEach(() => {
  const toFake = ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'];
  vi.useFakeTimers({ toFake: toFake as never });
  [desks, opened, destroyed, errors, working] = [new Map(), [], [], [], undefined];
  begin = () => {};
});
afterEach(async () => {
  for (const desk of desks.values()) desk.atWork = 0;
  await working?.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test('a document stays open until it has come, and as long as others after that', async () => {
  due(1);
  works();
  await pass(20_000);
  expect([opened, destroyed]).toEqual([['d0'], []]);
  desks.get('d0')!.set({ synced: true });
  await pass(2_800);
  expect(destroyed).toEqual([]);
  await pass(500);
  expect([destroyed, errors]).toEqual([['d0'], []]);
});

test('a document stays open in which something quick is done now and then', async () => {
  due(1);
  works();
  await pass(200);
  desks.get('d0')!.set({ synced: true });
  // None of them is at work whenever it is looked at.
  for (let second = 0; second < 20; second += 1) {
    desks.get('d0')!.begun += 1;
    await pass(1_000);
  }
  expect([opened, destroyed]).toEqual([['d0'], []]);
  await pass(3_500);
  expect(destroyed).toEqual(['d0']);
});

test('a document that does not come is told of after a minute, and closed', async () => {
  due(1);
  works();
  // Its server is asked anew meanwhile, after some silence, which is told as well.
  await pass(59_000);
  expect(destroyed).toEqual([]);
  await pass(1_500);
  expect(destroyed).toEqual(['d0']);
  expect(errors).toContain('LateDocumentError: d0 did not come from its server within 60 seconds');
});

test('a document with an error is closed as one that has come', async () => {
  due(1);
  begin = (desk) => desk.set({ error: new Error('refused') as never });
  works();
  await pass(3_500);
  expect([destroyed, errors]).toEqual([['d0'], ['Error: refused']]);
});

test('documents that have not come yet count as being opened', async () => {
  due(20);
  works();
  await pass(1_000);
  expect(opened).toHaveLength(8);
  desks.get('d3')!.set({ synced: true });
  // At once, and not when it is looked next.
  await pass(0);
  expect(opened).toHaveLength(9);
});

test('what others have done before its turn comes is not opened', async () => {
  tells([
    ['d0', null],
    ['d1', ['order']],
    ['d2', ['order']],
    ['d1', []],
    ['d2', ['fulfil']],
  ]);
  begin = (desk) => desk.set({ synced: true });
  works({ documentsMax: 1 });
  await pass(10_000);
  expect(opened).toEqual(['d0', 'd2']);
});

test('of many that are due at once each is opened in its turn, few at a time', async () => {
  due(1_000);
  let most = 0;
  begin = (desk) => {
    most = Math.max(most, desks.size);
    desk.set({ synced: true });
    [desk.atWork, desk.begun] = [1, 1];
    setTimeout(() => {
      desk.atWork = 0;
    }, 20);
  };
  works();
  await pass(20_000);
  expect(opened).toEqual(Array.from({ length: 1_000 }, (_, nth) => `d${nth}`));
  expect([most, desks.size, errors]).toEqual([64, 0, []]);
});

test('nothing is told of what its signal ends, which is listened to no more', async () => {
  due(3);
  begin = (desk) => desk.set({ synced: true });
  const end = new AbortController();
  const left = vi.spyOn(end.signal, 'removeEventListener');
  const it = works({ signal: end.signal });
  await pass(1_000);
  const open = [...desks.values()];
  end.abort();
  await it.close();
  expect(open.map(({ isClosed }) => isClosed)).toEqual([true, true, true]);
  expect([errors, destroyed.length]).toEqual([[], 3]);
  expect(left).toHaveBeenCalledWith('abort', expect.any(Function));
});

test('who closes first may end it at once after a while', async () => {
  due(1);
  begin = (desk) => {
    desk.set({ synced: true });
    desk.atWork = 1;
  };
  const end = new AbortController();
  const it = works({ signal: end.signal });
  await pass(1_000);
  let isClosed = false;
  const closing = it.close().then(() => {
    isClosed = true;
  });
  await pass(10_000);
  expect(isClosed).toBe(false);
  end.abort();
  await closing;
  expect(errors).toEqual([]);
});

test.each<[string, Partial<WorkOptions>, object]>([
  ['concurrency', { concurrency: 0 }, { order: ORDER }],
  ['no command', {}, { order: { initial: 0, commands: { pai: () => [] } } }],
  ['no function', {}, { order: { initial: 0, commands: { pay: 7 } } }],
  ['no commands', {}, { quiet: { initial: 0, commands: {} } }],
  ['no version', {}, { fulfil: { 7: async () => {} } }],
  ['no function that runs it', {}, { fulfil: {} }],
])('what handling a document would throw is thrown at the start: %s', (_, of, handlers) => {
  due(0);
  expect(() => works(of, handlers)).toThrow(InvalidOptionError);
});

test('a copy that cannot be handled is destroyed', async () => {
  due(1);
  begin = (desk) => {
    desk.handle = () => {
      throw new Error('not so');
    };
  };
  works();
  await pass(500);
  expect([desks.size, destroyed, errors]).toEqual([0, ['d0'], ['Error: not so']]);
});

/** Tells of documents when it is asked to, or that it is there. */
function tellsLater(): (document?: string, due?: readonly string[] | null) => void {
  let told: ReadableStreamDefaultController | undefined;
  vi.stubGlobal('fetch', async (_: URL, { signal }: { signal: AbortSignal }) => {
    const start = (controller: ReadableStreamDefaultController): void => {
      told = controller;
      signal.addEventListener('abort', () => controller.error(signal.reason));
    };
    return new Response(new ReadableStream({ start }));
  });
  return (document, due) => {
    const line = document === undefined ? '' : JSON.stringify({ document, due });
    told!.enqueue(new TextEncoder().encode(`${line}\n`));
  };
}

// Each minute another worker has been faster; then that one has died.
test('a document is opened in time once those who did all there was do no more', async () => {
  const say = tellsLater();
  begin = (desk) => desk.set({ synced: true });
  works();
  await pass(1_000);
  for (let minute = 0; minute < 12; minute += 1) {
    say('d0', null);
    await pass(400);
    say('d0', []);
    for (let second = 0; second < 60; second += 5) {
      await pass(5_000);
      say();
    }
  }
  expect(opened.length).toBeGreaterThan(8);
  expect(desks.size).toBe(0);
  const before = opened.length;
  say('d0', null);
  await pass(16_000);
  expect(opened.length).toBe(before + 1);
});

test('a document in which nobody can do anything is opened ever more seldom', async () => {
  const say = tellsLater();
  begin = (desk) => desk.set({ synced: true });
  works();
  await pass(1_000);
  // It is told again as soon as it is closed, and each ten seconds.
  for (let second = 0; second < 1_800; second += 1) {
    if (second % 10 === 0 || destroyed.length === opened.length) say('d0', null);
    await pass(1_000);
  }
  expect(opened.length).toBeGreaterThan(8);
  expect(opened.length).toBeLessThan(20);
});

test('what is left alone for a while takes no place from what is open', async () => {
  const say = tellsLater();
  begin = (desk) => desk.set({ synced: true });
  works({ documentsMax: 1 });
  await pass(1_000);
  for (let time = 1; time <= 6; time += 1) {
    say('vain', null);
    while (destroyed.length < time) await pass(100);
  }
  // It waits for half a minute.
  say('vain', null);
  say('d0', null);
  await pass(100);
  desks.get('d0')!.begun = 1;
  await pass(2_500);
  expect([...desks.keys()]).toEqual(['d0']);
  await pass(1_500);
  expect(destroyed.at(-1)).toBe('d0');
});
