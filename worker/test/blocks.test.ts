import { afterEach, expect, test, vi } from 'vitest';

vi.mock('../wasm/page_server.js', () => ({}));

afterEach(() => vi.unstubAllGlobals());

test('a lock that was refused once is asked for again', async () => {
  const { openBlocks } = await import('../src/blocks.js');
  const request = vi.fn(async (_: string, granted: () => unknown) => void granted());
  request.mockRejectedValueOnce(new DOMException('not now'));
  vi.stubGlobal('navigator', { locks: { request } });
  const open = vi.fn(() => {
    throw new DOMException('not here');
  });
  vi.stubGlobal('indexedDB', { open });
  await expect(openBlocks(() => {})).rejects.toThrow('not now');
  await expect(openBlocks(() => {})).rejects.toThrow('not here');
});
