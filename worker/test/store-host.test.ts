import { afterEach, expect, test, vi } from 'vitest';

const [NOTHING, MORE] = [0, 1];

/** A store, and what it leaves to be done. */
const store = vi.hoisted(() => ({
  left: 1,
  initSync: () => {},
  serve: () => store.left,
  proceed: () => store.left,
  rest: vi.fn(() => store.left),
}));
vi.mock('../wasm/page_server.js', () => store);

afterEach(() => void vi.useRealTimers());

/** A channel whose messages are counted, and come when the test says so. */
class Channel {
  static last: Channel;
  sent = 0;
  port1 = { onmessage: () => {} };
  port2 = { postMessage: () => (this.sent += 1) };

  constructor() {
    Channel.last = this;
  }
}

/** A core's port to a store that is open. */
async function served() {
  vi.stubGlobal('MessageChannel', Channel);
  const { StoreHost } = await import('../src/store-host.js');
  const host = new StoreHost(() => {});
  const port = { onmessage: (_: unknown) => {}, postMessage: () => {} };
  host.serve(port as unknown as MessagePort);
  const open = (replies: { opened(): void }) => replies.opened();
  await host.start(Promise.resolve({ inBlocks: false, settledAt: 0, open }));
  return () => port.onmessage({ data: new Uint8Array(1) });
}

test('a store rests once, a while after the last request', async () => {
  vi.useFakeTimers();
  store.left = NOTHING;
  const ask = await served();
  for (let nth = 0; nth < 3; nth += 1) {
    ask();
    vi.advanceTimersByTime(900);
    expect(store.rest).not.toHaveBeenCalled();
  }
  vi.advanceTimersByTime(20_000);
  expect(store.rest).toHaveBeenCalledTimes(1);
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
