import { afterEach, beforeEach, expect, type Mock, test, vi } from 'vitest';
import type { FromTab, ToTab } from '../../js/dist/ports.js';
import type { Host } from '../wasm/core.js';

const core = vi.hoisted(() => ({
  BUILD: '+00000000',
  initSync: () => {},
  start: () => {},
  warmUp: vi.fn(),
  isLost: vi.fn(() => false),
  nameCulprit: vi.fn(),
  tabClosed: vi.fn(),
  tabMessages: vi.fn((): boolean | undefined => true),
  pageServerLent: vi.fn(),
  pageServerGone: vi.fn(),
  pageServerFailed: vi.fn(),
}));
vi.mock('../wasm/core.js', () => core);
/** The code of a store that does not load. */
vi.mock('../wasm/page_server.js', () => ({
  BUILD: '+00000000',
  initSync() {
    throw new Error('no room for it');
  },
  close() {
    throw new TypeError('the store has not loaded');
  },
}));
vi.mock('../src/blocks.js', () => ({ openBlocks: async () => ({}) }));
vi.mock('../src/store-host.js', () => ({}));
const renew = vi.hoisted(() => ({ renewScripts: vi.fn(async () => {}) }));
vi.mock('../src/renew.js', () => renew);
vi.mock('../src/shared.js', () => ({
  BUILD: '0.1.0+00000000',
  UNSERVED_KINDS: ['newer-format', 'unavailable'],
  compile: async () => ({}),
  hold: vi.fn(async () => {}),
  transferOf: () => [],
}));

/** One end of a channel: what the core says on it, and how to answer. */
class Port {
  onmessage = (_: { data: unknown }): void => {};
  onmessageerror: (() => void) | undefined;
  readonly said: ToTab[] = [];
  postMessage(message: ToTab): void {
    this.said.push(message);
  }
  close = vi.fn();
}

/** What is said on the channel of all releases. */
let named: unknown[] = [];

class Channel {
  static readonly named: Record<string, Channel> = {};
  onmessage: ((event: { data: unknown }) => void) | undefined;
  constructor(name: string) {
    Channel.named[name] = this;
  }
  postMessage(lock: unknown): void {
    named.push(lock);
  }
}

const self = {
  name: 'tidelog-core-0.1.0+00000000-3',
  onconnect: (_: { ports: unknown[] }): void => {},
  close: vi.fn(),
  addEventListener: (type: string, listener: (event: object) => void) => {
    listeners[type] = listener;
  },
};

/** What is to hear of errors. */
const listeners: Record<string, (event: object) => void> = {};

beforeEach(() => {
  named = [];
  vi.resetModules();
  vi.stubGlobal('self', self);
  vi.stubGlobal('location', { href: 'https://app.example/worker.js' });
  vi.stubGlobal('BroadcastChannel', Channel);
  // A tab's lock is never had while it lives.
  const request = () => new Promise(() => {});
  vi.stubGlobal('navigator', { locks: { request, query: async () => ({}) } });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.clearAllMocks();
  core.isLost.mockReturnValue(false);
});

const BUILD = '0.1.0+00000000';

/** What a page server says that has the store. */
const READY = { data: { type: 'ready', settledAt: 0, inBlocks: false } };

/** What tabs count as they go to a core. */
let hellos = 0;

/** A core at work, to which tabs can come. */
async function atWork() {
  (await import('../src/core.js')).runCore();
  return async (lock: string, isNew = true) => {
    const port = new Port();
    self.onconnect({ ports: [port] });
    const say = (data: FromTab): void => port.onmessage({ data });
    say({ type: 'hello', lock, core: ++hellos, isNew, build: BUILD, urls: {} as never });
    await vi.waitFor(() => expect(port.said[0]).toMatchObject({ type: 'welcome' }), {
      timeout: 4_000,
    });
    return { port, say };
  };
}

test('what a page server is asked first does not wait for a warm-up', async () => {
  const { runCore } = await import('../src/core.js');
  vi.useFakeTimers();
  runCore();
  const [tab, way] = [new Port(), new Port()];
  self.onconnect({ ports: [tab] });
  const say = (data: FromTab): void => tab.onmessage({ data });
  say({ type: 'hello', lock: 'tab', core: ++hellos, isNew: true, build: BUILD, urls: {} as never });
  await vi.advanceTimersByTimeAsync(5);
  say({ type: 'lend', worker: 1, port: way as never });
  way.onmessage(READY);
  expect(core.pageServerLent).toHaveBeenCalledTimes(1);
  expect(core.warmUp).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  expect(core.warmUp).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(100);
  expect(core.warmUp).toHaveBeenCalledTimes(1);
});

test('a core whose page server is long in coming warms up meanwhile', async () => {
  const { runCore } = await import('../src/core.js');
  vi.useFakeTimers();
  runCore();
  const tab = new Port();
  self.onconnect({ ports: [tab] });
  const hello = { type: 'hello', lock: 'tab', core: ++hellos, isNew: true, build: BUILD } as const;
  tab.onmessage({ data: { ...hello, urls: {} as never } });
  await vi.advanceTimersByTimeAsync(9);
  expect(core.warmUp).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(10);
  expect(core.warmUp).toHaveBeenCalledTimes(1);
});

test('whoever lent a page server and cannot lend another is heard by those who wait', async () => {
  const enter = await atWork();
  const [lender, other] = [await enter('a'), await enter('b')];
  const way = new Port();
  lender.say({ type: 'lend', worker: 1, port: way as unknown as MessagePort });
  way.onmessage({ data: { type: 'ready', settledAt: 0, inBlocks: false } });
  expect(core.pageServerLent).toHaveBeenCalledTimes(1);

  other.say({ type: 'lendFailed', reason: '404' });
  expect(core.pageServerFailed).not.toHaveBeenCalled();
  lender.say({ type: 'lendEnded' });
  const [, lent] = core.pageServerLent.mock.calls[0]!;
  expect(core.pageServerGone.mock.calls).toEqual([[expect.any(Number), lent]]);
  lender.say({ type: 'lendFailed', reason: '404' });
  const reason = new TextEncoder().encode('404');
  const [, failed] = core.pageServerFailed.mock.calls[0]!;
  expect(core.pageServerFailed.mock.calls).toEqual([[expect.any(Number), failed, 1, reason]]);
});

test('a page server that was lent late, and has ended, takes no place for good', async () => {
  const enter = await atWork();
  const [late, serving] = [await enter('a'), await enter('b')];
  const ways = [new Port(), new Port(), new Port()];
  const ports = ways as unknown as MessagePort[];
  serving.say({ type: 'lend', worker: 1, port: ports[0]! });
  late.say({ type: 'lend', worker: 1, port: ports[1]! });
  for (const way of ways.slice(0, 2)) way.onmessage(READY);
  expect(serving.port.said.at(-1)).not.toEqual({ type: 'lendAgain' });
  expect(ways[0]!.said.at(-1)).toEqual({ type: 'use' });
  late.say({ type: 'lendEnded' });
  expect(core.pageServerGone).toHaveBeenCalledTimes(2);
  expect(serving.port.said.at(-1)).toEqual({ type: 'lendAgain' });

  serving.say({ type: 'lend', worker: 1, port: ports[2]! });
  ways[2]!.onmessage(READY);
  serving.say({ type: 'lendEnded' });
  expect(core.pageServerGone).toHaveBeenCalledTimes(3);
  expect(late.port.said.at(-1)).not.toEqual({ type: 'lendAgain' });
});

test('a page server has ended, said or not, where another one has the store', async () => {
  const enter = await atWork();
  const [first, second] = [await enter('a'), await enter('b')];
  const [way, next] = [new Port(), new Port()];
  first.say({ type: 'lend', worker: 1, port: way as unknown as MessagePort });
  way.onmessage({ data: { type: 'ready', settledAt: 0, inBlocks: false } });
  expect(core.pageServerGone).not.toHaveBeenCalled();

  second.say({ type: 'lend', worker: 1, port: next as unknown as MessagePort });
  expect(core.pageServerGone).not.toHaveBeenCalled();
  next.onmessage({ data: { type: 'failed', kind: 'unavailable', reason: 'no' } });
  const [, lent] = core.pageServerLent.mock.calls[0]!;
  expect(core.pageServerGone.mock.calls).toEqual([[expect.any(Number), lent]]);
  expect(core.pageServerFailed).toHaveBeenCalledTimes(1);
});

test('a tab whose list cannot be read is left, so that it comes back and asks again', async () => {
  const enter = await atWork();
  const [tab, other] = [await enter('a'), await enter('b')];
  core.tabMessages.mockReturnValueOnce(false);
  tab.say(new Uint8Array(3));
  expect(tab.port.said.at(-1)).toEqual({ type: 'unread' });
  expect(tab.port.close).toHaveBeenCalledTimes(1);
  expect(core.tabClosed).toHaveBeenCalledTimes(1);
  // What it said behind that may build on it.
  tab.say(new Uint8Array(4));
  expect(core.tabMessages).toHaveBeenCalledTimes(1);
  expect(other.port.said.at(-1)).not.toEqual({ type: 'unread' });
  expect(self.close).not.toHaveBeenCalled();
  const back = await enter('a');
  back.say(new Uint8Array(4));
  expect(core.tabMessages).toHaveBeenCalledTimes(2);
});

test('why a page server failed is told, whoever of its tab and itself says so first', async () => {
  const enter = await atWork();
  const { say } = await enter('a');
  const failed = { type: 'failed', kind: 'unavailable', reason: 'no room' } as const;
  const way = new Port();
  say({ type: 'lend', worker: 1, port: way as unknown as MessagePort });
  say({ type: 'lendEnded', why: failed });
  way.onmessage({ data: failed });
  const reason = new TextEncoder().encode('no room');
  const [[, server]] = core.pageServerGone.mock.calls as [number, number][];
  expect(core.pageServerFailed.mock.calls).toEqual([[expect.any(Number), server, 1, reason]]);
});

test('a core names those that have to give way, and ends when it is named itself', async () => {
  const enter = await atWork();
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  const { port, say } = await enter('a');
  say({ type: 'takeOver', locks: ['tidelog-core:0.0.9+00000001'] });
  expect(named).toEqual(['tidelog-core:0.0.9+00000001']);
  vi.advanceTimersByTime(1_000);
  expect(self.close).not.toHaveBeenCalled();

  say({ type: 'takeOver', locks: [`tidelog-core:${BUILD}`] });
  vi.advanceTimersByTime(1_000);
  expect(port.said.at(-1)).toEqual({ type: 'replaced' });
  expect(self.close).toHaveBeenCalled();
});

test('a core that misses what it was told ends, so that all is said again', async () => {
  const enter = await atWork();
  const [lender, other] = [await enter('a'), await enter('b')];
  const way = new Port();
  lender.say({ type: 'lend', worker: 1, port: way as unknown as MessagePort });
  for (const port of [way, other.port]) port.onmessageerror?.();
  expect(self.close).toHaveBeenCalledTimes(2);
  expect(other.port.said.at(-1)).toMatchObject({ type: 'died' });
});

test.each([
  ['one document', (host: Host) => host.culprit('d', 'u'), { document: 'd', user: 'u' }],
  ['none', () => {}, undefined],
  [
    'what leaves nothing that could be asked',
    () => {
      throw new Error('unreachable');
    },
    undefined,
  ],
])('a core that fails says that it was at work on %s', async (_, name, culprit) => {
  const enter = await atWork();
  const { port, say } = await enter('a');
  core.nameCulprit.mockImplementation(name);
  core.tabMessages.mockImplementation(() => {
    throw new Error('BUG');
  });
  say(new Uint8Array(8));
  const last = { type: 'died', reason: expect.stringContaining('BUG'), culprit };
  expect(port.said.at(-1)).toEqual(last);
  expect(self.close).toHaveBeenCalledTimes(1);
});

test.each([
  ['is thrown', (error: Error) => listeners.error!({ error })],
  ['is rejected', (error: Error) => listeners.unhandledrejection!({ reason: error })],
])('what %s in a core and caught by nobody is its end', async (_, fail) => {
  const enter = await atWork();
  const { port } = await enter('a');
  fail(new Error('unreachable'));
  const reason = 'the core failed: Error: unreachable';
  expect(port.said.at(-1)).toEqual({ type: 'died', reason, culprit: undefined });
  expect(self.close).toHaveBeenCalledTimes(1);
});

test('an event of an error without the error itself is no end of a core', async () => {
  const enter = await atWork();
  await enter('a');
  listeners.error!({ message: 'AbortError' });
  expect(self.close).not.toHaveBeenCalled();
});

test('of a tab whose lock is refused the end is noticed too, and its port is closed', async () => {
  let [refused, free] = [1, (): void => {}];
  const request = async (_: string, granted: () => void) => {
    if (refused-- > 0) throw new DOMException('not now');
    await new Promise<void>((resolve) => {
      free = resolve;
    });
    granted();
  };
  vi.stubGlobal('navigator', { locks: { request, query: async () => ({}) } });
  const enter = await atWork();
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  const { port } = await enter('a');
  await vi.advanceTimersByTimeAsync(1_000);
  expect(core.tabClosed).not.toHaveBeenCalled();
  free();
  await vi.advanceTimersByTimeAsync(0);
  expect(core.tabClosed).toHaveBeenCalledTimes(1);
  expect(port.close).toHaveBeenCalledTimes(1);
});

test('a tab whose lock is had while it lives hears that it has others than its core', async () => {
  const request = async (_: string, granted: () => void) => granted();
  vi.stubGlobal('navigator', { locks: { request, query: async () => ({}) } });
  (await import('../src/core.js')).runCore();
  const port = new Port();
  self.onconnect({ ports: [port] });
  port.onmessage({ data: { type: 'hello', lock: 'a', isNew: true, build: BUILD, urls: {} } });
  await vi.waitFor(() => expect(port.close).toHaveBeenCalledTimes(1));
  expect(port.said).toEqual([{ type: 'apart' }]);
});

test('a tab that says hello again leaves no port behind', async () => {
  const enter = await atWork();
  const [before, after] = [await enter('a'), await enter('a')];
  expect(before.port.close).toHaveBeenCalledTimes(1);
  expect(after.port.close).not.toHaveBeenCalled();
});

test('an older hello of a tab, heard late, takes no place from a newer one', async () => {
  const enter = await atWork();
  const { port, say } = await enter('a');
  const late = new Port();
  self.onconnect({ ports: [late] });
  const hello = { type: 'hello', lock: 'a', isNew: true, build: BUILD, urls: {} };
  late.onmessage({ data: { ...hello, core: hellos - 1 } });
  expect([late, port].map(({ close }) => close.mock.calls.length)).toEqual([1, 0]);
  late.onmessage({ data: new Uint8Array(3) });
  expect(core.tabMessages).not.toHaveBeenCalled();
  say(new Uint8Array(4));
  expect(core.tabMessages).toHaveBeenCalledTimes(1);
  expect(core.tabClosed).not.toHaveBeenCalled();
});

test('no way to a page server is left open that has ended or was replaced', async () => {
  const enter = await atWork();
  const [first, second] = [await enter('a'), await enter('b')];
  const ways = [new Port(), new Port()];
  const lend = (port: unknown) => ({ type: 'lend', worker: 1, port: port as MessagePort }) as const;
  const closed = () => ways.map(({ close }) => close.mock.calls.length);
  first.say(lend(ways[0]));
  ways[0]!.onmessage(READY);
  second.say(lend(ways[1]));
  expect(closed()).toEqual([0, 0]);
  ways[1]!.onmessage(READY);
  expect(closed()).toEqual([1, 0]);
  second.say({ type: 'lendEnded' });
  expect(closed()).toEqual([1, 1]);
});

/** A core whose data were cleared, and what it was lent. */
async function atLoss() {
  const enter = await atWork();
  const [lender, other] = [await enter('a'), await enter('b')];
  const way = new Port();
  lender.say({ type: 'lend', worker: 1, port: way as unknown as MessagePort });
  way.onmessage({ data: { type: 'ready', settledAt: 0, inBlocks: false } });
  way.onmessage({ data: { type: 'failed', kind: 'lost', reason: '' } });
  core.isLost.mockReturnValue(true);
  return { enter, lender, other, way };
}

test('a core with the last copy lives on where a page comes back, until a new one', async () => {
  const { enter, other } = await atLoss();
  core.tabMessages.mockReturnValueOnce(false);
  other.say(new Uint8Array(3));
  for (const lock of ['b', 'c']) await enter(lock, false);
  expect(self.close).not.toHaveBeenCalled();
  const { port } = await enter('d');
  expect(self.close).toHaveBeenCalledTimes(1);
  expect(port.said.at(-1)).toMatchObject({ type: 'died' });
});

test.each<[string, (by: Awaited<ReturnType<typeof atLoss>>) => void]>([
  ['has ended', ({ lender }) => lender.say({ type: 'lendEnded' })],
  [
    'has ended, and another store was lent',
    ({ lender }) => {
      const port = new Port();
      lender.say({ type: 'lend', worker: 2, port: port as unknown as MessagePort });
      port.onmessage({ data: { type: 'ready', settledAt: 0, inBlocks: false } });
    },
  ],
  [
    'can be read no more',
    ({ way }) => way.onmessage({ data: { type: 'failed', kind: 'unavailable', reason: '' } }),
  ],
])('where the last copy %s, a core ends for any page that comes back', async (_, happen) => {
  const by = await atLoss();
  happen(by);
  expect(self.close).not.toHaveBeenCalled();
  const { port } = await by.enter('b', false);
  expect(self.close).toHaveBeenCalledTimes(1);
  expect(port.said.at(-1)).toMatchObject({ type: 'died' });
});

test('a core whose data somebody has removed ends, as soon as it has noticed', async () => {
  const { other } = await atLoss();
  core.tabMessages.mockReturnValue(true);
  const removed = Channel.named['tidelog-removed']!;
  core.isLost.mockReturnValue(false);
  removed.onmessage!({ data: null });
  other.say(new Uint8Array(3));
  expect(self.close).not.toHaveBeenCalled();
  core.isLost.mockReturnValue(true);
  other.say(new Uint8Array(3));
  expect(self.close).toHaveBeenCalledTimes(1);
});

test('a core whose data were removed long ago is not taken for one of those', async () => {
  const { other } = await atLoss();
  core.tabMessages.mockReturnValue(true);
  core.isLost.mockReturnValue(false);
  vi.useFakeTimers({ toFake: ['performance'] });
  Channel.named['tidelog-removed']!.onmessage!({ data: null });
  vi.advanceTimersByTime(10_000);
  core.isLost.mockReturnValue(true);
  other.say(new Uint8Array(3));
  expect(self.close).not.toHaveBeenCalled();
});

test('a core whose store was another one ends for any page that comes back', async () => {
  const enter = await atWork();
  await enter('a');
  core.isLost.mockReturnValue(true);
  await enter('b', false);
  expect(self.close).toHaveBeenCalledTimes(1);
});

test('the last copy is kept for nobody where the only page comes back', async () => {
  const enter = await atWork();
  const { say } = await enter('a');
  const way = new Port();
  say({ type: 'lend', worker: 1, port: way as unknown as MessagePort });
  way.onmessage({ data: { type: 'failed', kind: 'lost', reason: '' } });
  core.isLost.mockReturnValue(true);
  await enter('a', false);
  expect(self.close).toHaveBeenCalledTimes(1);
});

test.each([
  [
    'was not understood',
    (say: (data: FromTab) => void) => {
      core.tabMessages.mockReturnValueOnce(false);
      say(new Uint8Array(3));
    },
  ],
  ['did not hear an answer', () => {}],
])('the last copy stays in use where the tab that lent it %s', async (_, leave) => {
  const { enter, lender, way } = await atLoss();
  leave(lender.say);
  const back = await enter('a', false);
  const again = new Port();
  back.say({ type: 'lend', worker: 1, port: again as unknown as MessagePort });
  expect(core.pageServerGone).not.toHaveBeenCalled();
  expect([again.said, again.close.mock.calls.length]).toEqual([[], 1]);
  const [, lent] = core.pageServerLent.mock.calls[0]!;
  expect(back.port.said.at(-1)).toEqual({ type: 'reach', server: lent });

  // It has ended without a word while the tab was away.
  const next = new Port();
  back.say({ type: 'lend', worker: 2, port: next as unknown as MessagePort });
  expect(core.pageServerGone).toHaveBeenCalledTimes(1);
  expect([way.said[0], next.said[0]]).toEqual([
    { type: 'use', lock: expect.any(String) },
    { type: 'use', lock: expect.any(String) },
  ]);
  next.onmessage(READY);
  back.say({ type: 'lendEnded' });
  expect(core.pageServerGone).toHaveBeenCalledTimes(2);
});

test('what another tab lends late takes no place from the last copy', async () => {
  const { lender, other, way } = await atLoss();
  const late = new Port();
  other.say({ type: 'lend', worker: 1, port: late as unknown as MessagePort });
  late.onmessage(READY);
  expect(core.pageServerGone).not.toHaveBeenCalled();
  expect(core.pageServerLent).toHaveBeenCalledTimes(1);
  expect(way.close).not.toHaveBeenCalled();

  // It came in time, and what is heard late is that the last copy has ended.
  lender.say({ type: 'lendEnded' });
  expect(core.pageServerGone).toHaveBeenCalledTimes(1);
  expect(core.pageServerLent).toHaveBeenCalledTimes(2);
  expect([late.said[0], late.close.mock.calls.length]).toEqual([
    { type: 'use', lock: expect.any(String) },
    0,
  ]);
});

test('a core goes over to what waited in line, which says by itself that it serves', async () => {
  const enter = await atWork();
  const [lender, next] = [await enter('a'), await enter('b')];
  const ways = [new Port(), new Port()];
  for (const [nth, { say }] of [lender, next].entries()) {
    say({ type: 'lend', worker: 1, port: ways[nth] as unknown as MessagePort });
  }
  ways[0]!.onmessage(READY);
  expect(core.pageServerLent).toHaveBeenCalledTimes(1);
  expect([ways[0]!.said, ways[1]!.said]).toEqual([
    [{ type: 'use', lock: expect.any(String) }],
    [{ type: 'use', lock: expect.any(String) }],
  ]);
  lender.say({ type: 'lendEnded' });
  ways[1]!.onmessage(READY);
  const [[, first], [, second]] = core.pageServerLent.mock.calls as [number, number][];
  expect(second).not.toBe(first);
  expect(core.pageServerGone.mock.calls).toEqual([[expect.any(Number), first]]);
  expect(next.port.said.at(-1)).toEqual({ type: 'reach', server: second });
});

/** Whether a tab is told to lend without its turn. */
const isLendNow = (said: unknown): boolean => (said as { type?: string }).type === 'lendNow';

test('a core misses a page server while one waits in line and none serves', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  const enter = await atWork();
  const { port, say } = await enter('a');
  const lendsNow = (): number => port.said.filter(isLendNow).length;
  await vi.advanceTimersByTimeAsync(10_000);
  expect(named).toEqual([]);
  expect(lendsNow()).toBe(3);
  const way = new Port();
  say({ type: 'lend', worker: 1, port: way as unknown as MessagePort });
  await vi.advanceTimersByTimeAsync(3_000);
  expect(port.said[0]).toEqual({ type: 'welcome', lock: named[0] });
  named = [];
  way.onmessage(READY);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(named).toEqual([]);
  expect(lendsNow()).toBe(3);
  say({ type: 'lendEnded' });
  await vi.advanceTimersByTimeAsync(3_000);
  expect(lendsNow()).toBe(4);
});

test('a core that is lent one without a word has a few other tabs lend at a time', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  const enter = await atWork();
  const { say } = await enter('blocked');
  const others = [];
  for (let nth = 0; nth < 6; nth++) others.push((await enter(`tab ${nth}`)).port);
  const told = (): number[] => others.map(({ said }) => said.filter(isLendNow).length);
  say({ type: 'lend', worker: 1, port: new Port() as unknown as MessagePort });
  await vi.advanceTimersByTimeAsync(3_000);
  // Its worker may wait for what an earlier core used.
  expect([named.length, told()]).toEqual([1, [0, 0, 0, 0, 0, 0]]);
  for (let nth = 0; nth < 3; nth++) {
    const before = told();
    await vi.advanceTimersByTimeAsync(3_000);
    const more = told().map((times, tab) => times - before[tab]!);
    expect(more.filter((times) => times === 1)).toHaveLength(2);
  }
  expect([named.length, told()]).toEqual([4, [1, 1, 1, 1, 1, 1]]);
});

test('a store that takes long to open has not all tabs load workers', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  const enter = await atWork();
  const tabs = [];
  for (let nth = 0; nth < 20; nth++) tabs.push(await enter(`tab ${nth}`));
  let workers = 0;
  for (let nth = 0; nth < 20; nth++) {
    for (const { port, say } of tabs) {
      if (port.said.splice(0).some(isLendNow)) {
        workers += 1;
        say({ type: 'lend', worker: 1, port: new Port() as unknown as MessagePort });
      }
    }
    await vi.advanceTimersByTimeAsync(3_000);
  }
  // It is missed as often as before.
  expect([workers, named.length]).toEqual([8, 19]);
});

test('a core whose data were cleared, which can use none, misses no page server', async () => {
  const { lender, other } = await atLoss();
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  other.say({ type: 'lend', worker: 1, port: new Port() as unknown as MessagePort });
  lender.say({ type: 'lendEnded' });
  await vi.advanceTimersByTimeAsync(10_000);
  expect([named, other.port.said.filter(isLendNow)]).toEqual([[], []]);
});

test('what waited in line and has ended comes in place of nothing', async () => {
  const enter = await atWork();
  const [lender, next] = [await enter('a'), await enter('b')];
  const ways = [new Port(), new Port()];
  for (const [nth, { say }] of [lender, next].entries()) {
    say({ type: 'lend', worker: 1, port: ways[nth] as unknown as MessagePort });
  }
  ways[0]!.onmessage(READY);
  next.say({ type: 'lendEnded' });
  expect(ways[1]!.close).toHaveBeenCalledTimes(1);
  ways[1]!.onmessage(READY);
  expect(core.pageServerGone).not.toHaveBeenCalled();
  lender.say({ type: 'lendEnded' });
  next.say({ type: 'lendFailed', reason: '404' });
  expect(core.pageServerFailed).toHaveBeenCalledTimes(1);
});

test('a core that keeps the store itself goes over to nothing that was lent', async () => {
  vi.doMock('../src/store-host.js', () => ({
    loadStore: async () => {},
    StoreHost: class {
      serve(): void {}
      async start(): Promise<void> {}
    },
  }));
  const enter = await atWork();
  const [lender, next] = [await enter('a'), await enter('b')];
  const ways = [new Port(), new Port()];
  for (const [nth, { say }] of [lender, next].entries()) {
    say({ type: 'lend', worker: 1, port: ways[nth] as unknown as MessagePort });
  }
  const noFiles = { type: 'failed', kind: 'no-files', reason: '' };
  for (const way of ways) way.onmessage({ data: noFiles });
  expect(ways.map(({ close }) => close.mock.calls.length)).toEqual([2, 1]);
  expect(core.pageServerGone).toHaveBeenCalledTimes(1);
  vi.doMock('../src/store-host.js', () => ({}));
});

test('a core that keeps the store itself tries again while its code does not load', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  vi.doMock('../src/store-host.js', async (original) => original());
  const enter = await atWork();
  const { port, say } = await enter('a');
  const way = new Port();
  say({ type: 'lend', worker: 1, port: way as unknown as MessagePort });
  way.onmessage({ data: { type: 'failed', kind: 'no-files', reason: '' } });
  const failedTwice = (): void => expect(core.pageServerFailed).toHaveBeenCalledTimes(2);
  // A machine that is busy takes its time to load the code.
  await vi.waitFor(failedTwice, { timeout: 4_000 });
  expect(self.close).not.toHaveBeenCalled();
  expect(port.said.at(-1)).not.toMatchObject({ type: 'died' });
  vi.doMock('../src/store-host.js', () => ({}));
});

test('looks at other cores do not pile up, and one that is refused harms nobody', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  const { hold } = (await import('../src/shared.js')) as unknown as { hold: Mock };
  hold.mockReturnValueOnce(new Promise(() => {}));
  let answer = (_: Error): void => {};
  const query = vi.fn(
    () =>
      new Promise((_, reject) => {
        answer = reject;
      }),
  );
  vi.stubGlobal('navigator', { locks: { query, request: () => new Promise(() => {}) } });
  void (await atWork())('a').catch(() => {});
  await vi.advanceTimersByTimeAsync(10_000);
  expect(query).toHaveBeenCalledTimes(1);
  answer(new DOMException('not now'));
  await vi.advanceTimersByTimeAsync(50);
  expect(query).toHaveBeenCalledTimes(2);
});

test('a look at other cores that is never answered is not the last one', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  const { hold } = (await import('../src/shared.js')) as unknown as { hold: Mock };
  hold.mockReturnValueOnce(new Promise(() => {}));
  const query = vi.fn(() => new Promise(() => {}));
  vi.stubGlobal('navigator', { locks: { query, request: () => new Promise(() => {}) } });
  void (await atWork())('a').catch(() => {});
  await vi.advanceTimersByTimeAsync(50_000);
  expect(query.mock.calls.length).toBeGreaterThan(2);
});

/** What a core says in so much time while somebody has the lock of one at this place. */
async function saidOfCoreAt(at: string, mode: LockMode, ms: number) {
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  const { hold } = (await import('../src/shared.js')) as unknown as { hold: Mock };
  hold.mockReturnValueOnce(new Promise(() => {}));
  const name = `tidelog-core:${BUILD} module ${at} 1`;
  const query = async () => ({ held: [{ name, mode }] });
  vi.stubGlobal('navigator', { locks: { query, request: () => new Promise(() => {}) } });
  (await import('../src/core.js')).runCore();
  const port = new Port();
  self.onconnect({ ports: [port] });
  port.onmessage({ data: { type: 'hello', lock: 'a', isNew: true, build: BUILD, urls: {} } });
  // It ends where it is closed.
  for (let passed = 0; passed < ms && self.close.mock.calls.length === 0; passed += 50) {
    await vi.advanceTimersByTimeAsync(50);
  }
  return port.said;
}

const HERE = 'https://app.example/worker.js 3';
const ELSEWHERE = 'https://app.example/other.js 3';
const NEXT_TO_IT = 'https://app.example/worker.js 2';

test('a core waits for its place whatever tabs share of a core that died elsewhere', async () => {
  expect(await saidOfCoreAt(ELSEWHERE, 'shared', 10_000)).toEqual([]);
});

test.each([ELSEWHERE, NEXT_TO_IT])(
  'a core that came too late sends its tabs to the one at %s, and ends',
  async (at) => {
    expect(await saidOfCoreAt(at, 'exclusive', 1_000)).toEqual([{ type: 'elsewhere' }]);
    expect(self.close).toHaveBeenCalledTimes(1);
  },
);

test('a core waits for one that its own place led to, but not for ever', async () => {
  expect(await saidOfCoreAt(HERE, 'exclusive', 3_500)).toEqual([]);
  vi.resetModules();
  expect(await saidOfCoreAt(HERE, 'exclusive', 10_000)).toEqual([{ type: 'elsewhere' }]);
  expect(self.close).toHaveBeenCalledTimes(1);
});

test('a look that comes back once the core has its place does not end it', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  let [grant, found] = [() => {}, (_: object): void => {}];
  const { hold } = (await import('../src/shared.js')) as unknown as { hold: Mock };
  hold.mockReturnValueOnce(
    new Promise<void>((resolve) => {
      grant = resolve;
    }),
  );
  const query = () =>
    new Promise((resolve) => {
      found = resolve;
    });
  vi.stubGlobal('navigator', { locks: { query, request: () => new Promise(() => {}) } });
  const entered = (await atWork())('a');
  await vi.advanceTimersByTimeAsync(50);
  grant();
  await entered;
  const name = `tidelog-core:${BUILD} module ${ELSEWHERE} 1`;
  found({ held: [{ name, mode: 'exclusive' }] });
  await vi.advanceTimersByTimeAsync(50);
  expect(self.close).not.toHaveBeenCalled();
});

test('a script that only tabs of another build came to ends, and was never the core', async () => {
  const { hold } = (await import('../src/shared.js')) as unknown as { hold: Mock };
  (await import('../src/core.js')).runCore();
  const port = new Port();
  self.onconnect({ ports: [port] });
  port.onmessage({
    data: { type: 'hello', lock: 'a', isNew: true, build: '0.0.9+00000001', urls: {} },
  });
  port.onmessage({ data: new Uint8Array(8) });
  await new Promise((resolve) => setTimeout(resolve));
  expect(port.said).toEqual([{ type: 'otherBuild' }]);
  expect(hold).not.toHaveBeenCalled();
  expect(self.close).toHaveBeenCalledTimes(1);
});

test('a script of another build has those of the server fetched before it ends', async () => {
  let renewed = (): void => {};
  renew.renewScripts.mockReturnValueOnce(
    new Promise<void>((resolve) => {
      renewed = resolve;
    }),
  );
  (await import('../src/core.js')).runCore();
  const hello = { type: 'hello', lock: 'a', isNew: true, build: '0.0.9+00000001', urls: {} };
  for (const _ of [1, 2]) {
    const port = new Port();
    self.onconnect({ ports: [port] });
    port.onmessage({ data: hello });
    expect(port.said).toEqual([{ type: 'otherBuild' }]);
  }
  expect([renew.renewScripts.mock.calls.length, self.close.mock.calls.length]).toEqual([1, 0]);
  renewed();
  await new Promise((resolve) => setTimeout(resolve));
  expect(self.close).toHaveBeenCalled();
});

test('a core takes nothing from a tab of another build, and goes on for its own', async () => {
  const enter = await atWork();
  await enter('a');
  const port = new Port();
  self.onconnect({ ports: [port] });
  port.onmessage({
    data: { type: 'hello', lock: 'b', isNew: true, build: '0.2.0+00000001', urls: {} },
  });
  port.onmessage({ data: new Uint8Array(8) });
  port.onmessage({ data: { type: 'takeOver', locks: [`tidelog-core:${BUILD}`] } });
  expect(port.said).toEqual([{ type: 'otherBuild' }]);
  expect(core.tabMessages).not.toHaveBeenCalled();
  expect(self.close).not.toHaveBeenCalled();
});
