import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { compile } from '../src/shared.js';

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test('what does not arrive is not waited for without end', async () => {
  vi.useFakeTimers();
  const fetch = (_: string, { signal }: RequestInit = {}) =>
    new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
  vi.stubGlobal('fetch', fetch);
  const compiled = compile('https://app.example/core.wasm').catch((error) => error);
  await vi.advanceTimersByTimeAsync(300_000);
  expect(String(await Promise.race([compiled, 'pending']))).toContain('does not arrive');
});

test.each(['application/wasm', 'text/plain'])(
  'a body of %s that stalls behind its headers is not waited for without end',
  async (type) => {
    // The beginning of a module, and then nothing.
    const server = createServer((_, response) => {
      response.writeHead(200, { 'content-type': type });
      response.write(new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    let [answered, isOver] = [(): void => {}, false];
    const headers = new Promise<void>((resolve) => {
      answered = resolve;
    });
    const real = fetch;
    vi.stubGlobal('fetch', async (url: string, options: RequestInit) => {
      const response = await real(url, options);
      answered();
      return response;
    });
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const compiled = compile(`http://127.0.0.1:${port}/core.wasm`).catch((error) => error);
    void compiled.then(() => {
      isOver = true;
    });
    try {
      await headers;
      await vi.advanceTimersByTimeAsync(60_000);
      expect(isOver).toBe(false);
      await vi.advanceTimersByTimeAsync(60_000);
      expect(String(await compiled)).toContain('does not arrive');
    } finally {
      server.closeAllConnections();
      server.close();
    }
  },
);
