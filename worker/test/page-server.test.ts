import { afterEach, beforeEach, expect, type Mock, test, vi } from 'vitest';
import type { FromPageServer, Prepare, Unserved } from '../../js/dist/ports.js';

vi.mock('../src/files.js', () => ({ findFiles: async () => ({}), openFiles: async () => ({}) }));
const renew = vi.hoisted(() => ({ renewScripts: vi.fn() }));
vi.mock('../src/renew.js', () => renew);
vi.mock('../src/store-host.js', () => ({
  loadStore: vi.fn(async () => {}),
  StoreHost: class {
    constructor(again: (why?: Unserved) => void) {
      host.again = again;
    }
    start = async () => {};
    lost = () => done.push('lost');
    close = () => done.push('closed');
    isUsedBy = (lock: string) => lock === 'core 2';
  },
  warmUp: () => {},
}));

/** What was done, in order. */
const done: unknown[] = vi.hoisted(() => []);

/** How the store asks for another page server in the place of this one. */
const host = vi.hoisted(() => ({ again: (_?: Unserved): void => {} }));

/** The worker, and what it said. */
const self = {
  onmessage: (_: { data: Prepare }): void => {},
  postMessage: vi.fn((said: FromPageServer) => done.push(said.type)),
  close: () => done.push('ended'),
};

beforeEach(() => {
  vi.stubGlobal('self', self);
  // The store is another worker's.
  vi.stubGlobal('navigator', { locks: { request: () => new Promise(() => {}) } });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.clearAllMocks();
  vi.resetModules();
  done.length = 0;
});

test.each([
  ['of the same build waits for the store', '0.1.0+00000000', 'loaded', 1],
  ['of another build says that it cannot serve', '0.0.9+00000001', 'unloaded', 0],
])('a page server for a tab %s', async (_, build, said, loads) => {
  (await import('../src/page-server.js')).runPageServer();
  self.onmessage({ data: { type: 'prepare', build, wasm: undefined } });
  await new Promise((resolve) => setTimeout(resolve));
  expect(self.postMessage.mock.calls).toMatchObject([[{ type: said }]]);
  const { loadStore } = (await import('../src/store-host.js')) as unknown as { loadStore: Mock };
  expect(loadStore).toHaveBeenCalledTimes(loads);
});

test('a page server of another build says so once the cache has what is deployed', async () => {
  let renewed = (): void => {};
  renew.renewScripts.mockReturnValueOnce(
    new Promise<void>((resolve) => {
      renewed = resolve;
    }),
  );
  (await import('../src/page-server.js')).runPageServer();
  self.onmessage({ data: { type: 'prepare', build: '0.0.9+00000001', wasm: undefined } });
  await new Promise((resolve) => setTimeout(resolve));
  // Its tab ends it then, whatever is on its way.
  expect(self.postMessage).not.toHaveBeenCalled();
  renewed();
  await new Promise((resolve) => setTimeout(resolve));
  expect(self.postMessage.mock.calls).toMatchObject([[{ type: 'unloaded' }]]);
});

/** A page server that has the store, and the channels on which it hears that it is to go. */
async function serving() {
  const channels: Record<string, { onmessage: (_?: { data: string }) => void }> = {};
  vi.stubGlobal('BroadcastChannel', function BroadcastChannel(name: string) {
    channels[name] = { onmessage: () => {} };
    return channels[name];
  });
  const request = async (_: string, held: () => Promise<void>) => {
    await held();
    done.push('free');
  };
  vi.stubGlobal('navigator', { locks: { request } });
  (await import('../src/page-server.js')).runPageServer();
  self.onmessage({ data: { type: 'prepare', build: '0.1.0+00000000', wasm: undefined } });
  await new Promise((resolve) => setTimeout(resolve));
  expect(done.splice(0)).toEqual(['loaded', 'serves']);
  return channels;
}

test('a page server whose store broke says so, and leaves it, whatever its tab does', async () => {
  await serving();
  const why = { type: 'failed', kind: 'full', reason: 'no room' } as const;
  host.again(why);
  await new Promise((resolve) => setTimeout(resolve));
  expect(self.postMessage).toHaveBeenLastCalledWith({ type: 'broke', why });
  expect(done.splice(0)).toEqual(['broke', 'ended', 'free']);
});

test('a page server whose files are to be removed closes them before it leaves', async () => {
  (await serving())['tidelog-destroy']!.onmessage();
  await new Promise((resolve) => setTimeout(resolve));
  expect(done.splice(0)).toEqual(['lost', 'closed', 'broke', 'ended', 'free']);
});

test('a page server leaves that is missed by a core which has no way to it', async () => {
  const missing = (await serving())['tidelog-missing']!;
  missing.onmessage({ data: 'core 2' });
  expect(done).toEqual([]);
  missing.onmessage({ data: 'core 3' });
  await new Promise((resolve) => setTimeout(resolve));
  expect(done.splice(0)).toEqual(['closed', 'broke', 'ended', 'free']);
});

test('a page server says once that it leaves', async () => {
  const channels = await serving();
  // A store that could not be opened asks for another one as soon as its data are cleared.
  host.again();
  channels['tidelog-destroy']!.onmessage();
  expect(done.splice(0)).toEqual(['broke', 'ended', 'lost', 'closed']);
});
