import { afterEach, beforeEach, expect, type Mock, test, vi } from 'vitest';
import type { Prepare } from '../../js/dist/ports.js';

vi.mock('../src/files.js', () => ({ findFiles: async () => ({}), openFiles: async () => ({}) }));
const renew = vi.hoisted(() => ({ renewScripts: vi.fn() }));
vi.mock('../src/renew.js', () => renew);
vi.mock('../src/store-host.js', () => ({
  loadStore: vi.fn(async () => {}),
  StoreHost: class {},
  warmUp: () => {},
}));

/** The worker, and what it said. */
const self = { onmessage: (_: { data: Prepare }): void => {}, postMessage: vi.fn() };

beforeEach(() => {
  vi.stubGlobal('self', self);
  // The store is another worker's.
  vi.stubGlobal('navigator', { locks: { request: () => new Promise(() => {}) } });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.clearAllMocks();
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
