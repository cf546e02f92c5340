import { expect, test, vi } from 'vitest';

const MORE = 1;

/** A store that never comes to an end. */
vi.mock('../wasm/page_server.js', () => ({
  initSync: () => {},
  serve: () => MORE,
  proceed: () => MORE,
}));

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

test('one slice is on its way at a time, however many messages left something to do', async () => {
  vi.stubGlobal('MessageChannel', Channel);
  const { StoreHost } = await import('../src/store-host.js');
  const host = new StoreHost(() => {});
  const slices = Channel.last;
  const port = { onmessage: (_: unknown) => {}, postMessage: () => {} };
  host.serve(port as unknown as MessagePort);
  const open = (replies: { opened(): void }) => replies.opened();
  await host.start(Promise.resolve({ inBlocks: false, settledAt: 0, open }));

  for (let nth = 0; nth < 3; nth += 1) port.onmessage({ data: new Uint8Array(1) });
  expect(slices.sent).toBe(1);
  slices.port1.onmessage();
  expect(slices.sent).toBe(2);
});
