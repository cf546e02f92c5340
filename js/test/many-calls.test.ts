import { afterEach, expect, test, vi } from 'vitest';
import { Connection } from '../src/connection.js';

const NOWHERE = { workerUrl: undefined, coreWasmUrl: undefined, pageServerWasmUrl: undefined };

/** More than a function can have arguments. */
const CALLS = 150_000;

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test('a core is asked for all that is open, however much that is', async () => {
  vi.useFakeTimers();
  let count = 0;
  const postMessage = (message: object): void => {
    if (!(message instanceof Uint8Array)) return;
    count += new DataView(message.buffer).getUint32(0, true);
  };
  const request = async (_: string, ...rest: unknown[]) => {
    await (rest.at(-1) as () => unknown)();
  };
  vi.stubGlobal('navigator', { locks: { query: async () => ({}), request } });
  vi.stubGlobal('location', { href: 'https://app.example/' });
  vi.stubGlobal(
    'SharedWorker',
    class {
      readonly port = { postMessage };
    },
  );
  const connection = new Connection(NOWHERE);
  for (let nth = 0; nth < CALLS; nth++) {
    connection.call('sync', { handle: 1 }, () => {}, false);
  }
  await vi.advanceTimersByTimeAsync(0);
  expect(count).toBe(CALLS);
}, 60_000);
