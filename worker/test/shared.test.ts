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
