import { afterEach, expect, test, vi } from 'vitest';

const [NOTHING, MORE] = [0, 1];

/** A store, and what it leaves to be done. */
const store = vi.hoisted(() => ({
  BUILD: '+00000000',
  left: 1,
  initSync: () => {},
  serve: vi.fn(() => store.left),
  lose: vi.fn(),
  proceed: vi.fn(() => store.left),
  rest: vi.fn(() => store.left),
  close: () => {},
}));
vi.mock('../wasm/page_server.js', () => store);

/** Whether what the store is kept in is still there. */
let isThere = true;

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  for (const mock of [store.serve, store.proceed, store.rest, store.lose]) mock.mockReset();
  for (const mock of [store.serve, store.proceed, store.rest]) {
    mock.mockImplementation(() => store.left);
  }
  isThere = true;
});

/** A channel whose messages are counted, and come when the test says so. */
class Channel {
  static last: Channel;
  sent = 0;
  port1 = { onmessage: () => {}, close: vi.fn() };
  port2 = { postMessage: () => (this.sent += 1), close: vi.fn() };

  constructor() {
    Channel.last = this;
  }
}

/** What a store says to its host. */
interface Replies {
  opened(): void;
  flushed(): void;
  failed(kind: number, reason: string): void;
  tell(owner: number, tab: number, messages: Uint8Array): void;
}

const newPort = () => ({
  onmessage: (_: unknown) => {},
  onmessageerror: undefined as (() => void) | undefined,
  postMessage: vi.fn(),
  close: vi.fn(),
});

/** A store that is open, unless it says something else, and what it can say. */
async function opened(say = (to: Replies): void => to.opened()) {
  vi.stubGlobal('MessageChannel', Channel);
  const { StoreHost } = await import('../src/store-host.js');
  const again = vi.fn();
  const host = new StoreHost(again);
  let replies: Replies | undefined;
  const open = (to: Replies) => {
    replies = to;
    say(to);
  };
  const giveUp = vi.fn();
  const keep = { inBlocks: false, settledAt: 0, isThere: async () => isThere, open, giveUp };
  await host.start(Promise.resolve(keep));
  const serve = () => {
    const port = newPort();
    host.serve(port as unknown as MessagePort);
    return port;
  };
  return { host, serve, again, giveUp, replies: replies! };
}

/** A core's port to a store that is open. */
async function served() {
  const port = (await opened()).serve();
  return () => port.onmessage({ data: new Uint8Array(1) });
}

test('a store rests once, a while after the last request', async () => {
  vi.useFakeTimers();
  store.left = NOTHING;
  const ask = await served();
  for (let nth = 0; nth < 3; nth += 1) {
    ask();
    await vi.advanceTimersByTimeAsync(900);
    expect(store.rest).not.toHaveBeenCalled();
  }
  await vi.advanceTimersByTimeAsync(20_000);
  expect(store.rest).toHaveBeenCalledTimes(1);
});

test('a store whose files were cleared writes nothing when it rests', async () => {
  vi.useFakeTimers();
  store.left = NOTHING;
  isThere = false;
  const ask = await served();
  ask();
  await vi.advanceTimersByTimeAsync(20_000);
  expect(store.rest).not.toHaveBeenCalled();
});

test('one slice is on its way at a time, however many messages left something to do', async () => {
  store.left = MORE;
  const ask = await served();
  const slices = Channel.last;
  for (let nth = 0; nth < 3; nth += 1) ask();
  expect(slices.sent).toBe(1);
  slices.port1.onmessage();
  expect(slices.sent).toBe(2);
});

test('what an earlier core says late of its tabs is not said of others', async () => {
  const { serve, replies } = await opened();
  const [before, present] = [serve(), serve()];
  const [theirs, ours] = [newPort(), newPort()];
  present.onmessage({ data: { type: 'use' } });
  before.onmessage({ data: { type: 'use' } });
  present.onmessage({ data: { type: 'tab', tab: 1, port: ours } });
  before.onmessage({ data: { type: 'tab', tab: 1, port: theirs } });
  before.onmessage({ data: { type: 'tab', tab: 1 } });
  replies.tell(1, 1, new Uint8Array(1));
  expect(theirs.postMessage).not.toHaveBeenCalled();
  expect(ours.postMessage).toHaveBeenCalledTimes(1);
});

test('a store is used by the core that said so last, and by no other one', async () => {
  const { host, serve } = await opened();
  const [before, present] = [serve(), serve()];
  expect(host.isUsedBy('core 1')).toBe(false);
  present.onmessage({ data: { type: 'use', lock: 'core 2' } });
  before.onmessage({ data: { type: 'use', lock: 'core 1' } });
  expect(['core 1', 'core 2'].map((lock) => host.isUsedBy(lock))).toEqual([false, true]);
  before.onmessage({ data: { type: 'use' } });
  expect(host.isUsedBy('core 2')).toBe(true);
  present.onmessage({ data: { type: 'use' } });
  expect(host.isUsedBy('core 2')).toBe(false);
});

test('a core tells its tabs on their ways until another way to the store is used', async () => {
  const { serve, replies } = await opened();
  const [before, next] = [serve(), newPort()];
  before.onmessage({ data: { type: 'use' } });
  before.onmessage({ data: { type: 'tab', tab: 1, port: next } });
  const other = serve();
  // It counts on them for what it hands over before it hears of the other way.
  replies.tell(0, 1, new Uint8Array(1));
  expect([next.postMessage, next.close].map(({ mock }) => mock.calls.length)).toEqual([1, 0]);
  other.onmessage({ data: { type: 'use' } });
  replies.tell(0, 1, new Uint8Array(1));
  expect([next.postMessage, next.close].map(({ mock }) => mock.calls.length)).toEqual([1, 1]);
});

test('no way to a tab is left open that nobody uses any more', async () => {
  const { serve } = await opened();
  const owner = serve();
  owner.onmessage({ data: { type: 'use' } });
  const [first, second, third] = [newPort(), newPort(), newPort()];
  owner.onmessage({ data: { type: 'tab', tab: 1, port: first } });
  owner.onmessage({ data: { type: 'tab', tab: 1, port: second } });
  owner.onmessage({ data: { type: 'tab', tab: 2, port: third } });
  const closed = () => [first, second, third].map(({ close }) => close.mock.calls.length);
  expect(closed()).toEqual([1, 0, 0]);
  owner.onmessage({ data: { type: 'tab', tab: 1 } });
  expect(closed()).toEqual([1, 1, 0]);
  serve().onmessage({ data: { type: 'use' } });
  expect(closed()).toEqual([1, 1, 1]);
});

test('a store that was let go of leaves no way open', async () => {
  const { host, serve } = await opened();
  const { port1, port2 } = Channel.last;
  const ways = [serve(), serve(), newPort()];
  ways[1]!.onmessage({ data: { type: 'use' } });
  ways[1]!.onmessage({ data: { type: 'tab', tab: 1, port: ways[2] } });
  host.close();
  const closed = [...ways, port1, port2].map(({ close }) => close.mock.calls.length);
  expect(closed).toEqual([1, 1, 1, 1, 1]);
});

test('a store that misses what it was asked is opened anew', async () => {
  const { serve, again } = await opened();
  serve().onmessageerror?.();
  expect(again).toHaveBeenCalledTimes(1);
});

test('the last copy is left to the core that knows it until another one begins anew', async () => {
  store.left = NOTHING;
  const { host, serve, again } = await opened();
  const port = serve();
  host.lost();
  const [unused, other] = [serve(), serve()];
  expect(again).not.toHaveBeenCalled();
  for (const way of [unused, other]) expect(way.postMessage).not.toHaveBeenCalled();
  port.onmessage({ data: new Uint8Array(1) });
  expect(store.serve).toHaveBeenCalledTimes(1);
  other.onmessage({ data: { type: 'use' } });
  expect(again).toHaveBeenCalledTimes(1);
});

test.each([
  ['is damaged', 2, 0],
  ['is full', 3, 1],
])('a store that %s is opened anew once, when its data were cleared', async (_, kind, before) => {
  const { host, again } = await opened((to) => to.failed(kind, 'no'));
  expect(again).toHaveBeenCalledTimes(before);
  host.lost();
  host.lost();
  expect(again).toHaveBeenCalledTimes(1);
});

test('a store that is still opening is given up when its data were cleared', async () => {
  const { host, again, giveUp } = await opened(() => {});
  host.lost();
  host.lost();
  expect([again.mock.calls, giveUp.mock.calls.length]).toEqual([[[undefined]], 1]);
});

test('a store whose place was taken before its keep was found does not open', async () => {
  const { StoreHost } = await import('../src/store-host.js');
  const [again, open, giveUp] = [vi.fn(), vi.fn(), vi.fn()];
  const host = new StoreHost(again);
  host.lost();
  const keep = { inBlocks: true, settledAt: 0, isThere: async () => true, open, giveUp };
  await host.start(Promise.resolve(keep));
  expect([again, open, giveUp].map(({ mock }) => mock.calls.length)).toEqual([1, 0, 1]);
});

test('whoever opens a store anew is told why the one before broke', async () => {
  const { serve, again, replies } = await opened();
  const port = serve();
  store.serve.mockImplementationOnce(() => {
    replies.failed(3, 'no room to flush');
    return NOTHING;
  });
  port.onmessage({ data: new Uint8Array(1) });
  const why = { type: 'failed', kind: 'full', reason: 'no room to flush' };
  expect(again.mock.calls).toEqual([[why]]);
  expect(port.postMessage).toHaveBeenLastCalledWith(why);
  // It is asked nothing more.
  port.onmessage({ data: new Uint8Array(1) });
  expect(store.serve).toHaveBeenCalledTimes(1);
});

test('whoever opens a store anew is told what the one before has thrown', async () => {
  vi.spyOn(console, 'error').mockImplementationOnce(() => {});
  const { serve, again } = await opened();
  store.serve.mockImplementationOnce(() => {
    throw new Error('unreachable');
  });
  serve().onmessage({ data: new Uint8Array(1) });
  const why = { type: 'failed', kind: 'unavailable', reason: 'Error: unreachable' };
  expect(again.mock.calls).toEqual([[why]]);
});

test('a store whose keep the browser has closed is opened anew, once', async () => {
  const { host, again } = await opened();
  await host.closed(Promise.resolve(true));
  await host.closed(Promise.resolve(true));
  expect(again.mock.calls).toEqual([[undefined]]);
});

test('nothing is done with a store that was closed until it is known what happened', async () => {
  vi.useFakeTimers();
  for (const isThere of [true, false]) {
    // A store that cannot write any more breaks.
    store.left = NOTHING;
    store.lose.mockImplementation(() => {
      for (const mock of [store.serve, store.rest]) mock.mockImplementation(() => NOTHING);
    });
    const { host, serve, again, replies } = await opened();
    const port = serve();
    const ask = () => port.onmessage({ data: new Uint8Array(1) });
    ask();
    const fail = () => {
      replies.failed(1, 'the database is closed');
      return NOTHING;
    };
    for (const mock of [store.serve, store.rest]) mock.mockImplementation(fail);
    let answer = (_: boolean) => {};
    const closed = host.closed(new Promise((resolve) => (answer = resolve)));
    ask();
    await vi.advanceTimersByTimeAsync(20_000);
    expect([store.serve, store.rest, again].map(({ mock }) => mock.calls.length)).toEqual([
      1, 0, 0,
    ]);
    answer(isThere);
    await closed;
    expect(again).toHaveBeenCalledTimes(isThere ? 1 : 0);
    expect(store.serve).toHaveBeenCalledTimes(isThere ? 1 : 2);
    const told = port.postMessage.mock.calls.map(([{ type, kind }]) => kind ?? type);
    expect(told).toEqual(isThere ? ['ready'] : ['ready', 'lost']);
    // What is there can be read for as long as anybody wants that.
    await vi.advanceTimersByTimeAsync(20_000);
    ask();
    expect(store.serve).toHaveBeenCalledTimes(isThere ? 1 : 3);
    for (const mock of [store.serve, store.rest, store.lose]) mock.mockReset();
    for (const mock of [store.serve, store.rest]) mock.mockImplementation(() => store.left);
  }
});

test.each([
  ['cleared, is the last copy', false, ['ready', 'lost'], []],
  ['there, says why as it is opened anew', true, ['ready', 'full'], ['full']],
])('a store whose flush came to nothing, and that is %s', async (_, isThere, told, why) => {
  store.left = NOTHING;
  const { host, serve, again, replies } = await opened();
  const port = serve();
  // What became of a flush is not asked of a store that is lost.
  store.proceed.mockImplementation(() => {
    if (store.lose.mock.calls.length === 0) replies.failed(3, 'no room to flush');
    return NOTHING;
  });
  const answers: ((isThere: boolean) => void)[] = [];
  const answer = () => new Promise<boolean>((resolve) => answers.push(resolve));
  const aborted = host.aborted(answer());
  replies.flushed();
  port.onmessage({ data: new Uint8Array(1) });
  const closed = isThere ? undefined : host.closed(answer());
  expect([store.proceed, store.serve, again].map(({ mock }) => mock.calls.length)).toEqual([
    0, 0, 0,
  ]);
  // The first look may have been too early.
  answers.shift()!(true);
  await aborted;
  expect(again).toHaveBeenCalledTimes(isThere ? 1 : 0);
  for (const resolve of answers) resolve(isThere);
  await Promise.all([aborted, closed]);
  expect(port.postMessage.mock.calls.map(([{ type, kind }]) => kind ?? type)).toEqual(told);
  expect(again.mock.calls.map(([{ kind }]) => kind)).toEqual(why);
  // It is read as before.
  expect(store.serve).toHaveBeenCalledTimes(isThere ? 0 : 1);
});

test('whoever opens a store anew is told why the one before failed', async () => {
  const { again } = await opened((to) => to.failed(3, 'no room'));
  const why = { type: 'failed', kind: 'full', reason: 'no room' };
  expect(again.mock.calls).toEqual([[why]]);
});

test('a store is opened anew without a network, once its code was loaded', async () => {
  vi.resetModules();
  vi.stubGlobal('MessageChannel', Channel);
  const { loadStore, StoreHost } = await import('../src/store-host.js');
  const module = Buffer.from('\0asm\x01\0\0\0\0\x16\x0dtidelog-build00000000');
  const answers = [
    () => Promise.reject(new TypeError('offline')),
    async () => new Response(module),
  ];
  vi.stubGlobal('fetch', () => (answers.shift() ?? (() => Promise.reject('offline again')))());

  /** What a core is told by a store that is opened as it opens one itself. */
  const told = async () => {
    const host = new StoreHost(() => {});
    const port = newPort();
    host.serve(port as unknown as MessagePort);
    const open = (to: Replies) => to.opened();
    const isThere = async () => true;
    const keep = { inBlocks: true, settledAt: 0, isThere, open, giveUp: () => {} };
    await host.start(loadStore('https://app.example/store.wasm').then(() => keep));
    return port.postMessage.mock.calls.map(([{ type }]) => type);
  };
  expect(await told()).toEqual(['failed']);
  for (const _ of [1, 2, 3]) expect(await told()).toEqual(['ready']);
});
