import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { compile } from '../src/shared.js';

/** What the bindings beside a module say of their build. */
const OURS = '+00000000';

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test('what does not arrive is not waited for without end', async () => {
  vi.useFakeTimers();
  const fetch = (_: string, { signal }: RequestInit = {}) =>
    new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
  vi.stubGlobal('fetch', fetch);
  const compiled = compile('https://app.example/core.wasm', OURS).catch((error) => error);
  await vi.advanceTimersByTimeAsync(300_000);
  expect(String(await Promise.race([compiled, 'pending']))).toContain('does not arrive');
});

/** A module that does nothing but name its build, if that. */
function moduleOf(build: string | undefined): Uint8Array<ArrayBuffer> {
  const section = build === undefined ? [] : [0, 22, 13, ...Buffer.from(`tidelog-build${build}`)];
  return new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...section]);
}

describe.each(['application/wasm', 'text/plain'])('of files that come as %s', (type) => {
  /** What is fetched, one after another; gives how it was asked for. */
  function answers(...builds: (string | undefined)[]): (string | undefined)[] {
    const asked: (string | undefined)[] = [];
    vi.stubGlobal('fetch', async (_: string, { cache }: RequestInit) => {
      asked.push(cache);
      const headers = { 'content-type': type };
      return new Response(moduleOf(builds[asked.length - 1]), { headers });
    });
    return asked;
  }

  const [SAME, OTHER] = ['00000000', '00000001'];

  test('a module of the build of the script is taken', async () => {
    const asked = answers(SAME);
    expect(await compile('/core.wasm', OURS)).toBeInstanceOf(WebAssembly.Module);
    expect(asked).toEqual(['default']);
  });

  test('one of another build that a cache has kept is asked for again', async () => {
    const asked = answers(OTHER, SAME);
    expect(await compile('/core.wasm', OURS)).toBeInstanceOf(WebAssembly.Module);
    expect(asked).toEqual(['default', 'no-cache']);
  });

  test.each([
    ['another build', '+00000001'],
    ['a build that named none', undefined],
  ])('bindings of %s run no module, and say why', async (_, bindings) => {
    const asked = answers(SAME, SAME);
    const compiled = compile('/core.wasm', bindings as string);
    await expect(compiled).rejects.toThrow('two releases of the app: load this page');
    expect(asked).toEqual([]);
  });

  test.each([
    ['lie beside the module', '/wasm/core_bg.wasm', ['/wasm/core.js no-cache']],
    ['came bundled with the script', '/assets/core_bg-4f1c.wasm', []],
  ])(
    'bindings of another build that %s are renewed for the next worker',
    async (_, url, expected) => {
      const asked: string[] = [];
      const body = vi.fn(async () => new ArrayBuffer(0));
      vi.stubGlobal('fetch', async (at: string, { cache }: RequestInit) => {
        asked.push(`${at} ${cache}`);
        return { ok: true, arrayBuffer: body };
      });
      await expect(compile(url, '+00000001')).rejects.toThrow('two releases of the app');
      expect(asked).toEqual(expected);
      // A browser keeps what has arrived.
      expect(body).toHaveBeenCalledTimes(expected.length);
    },
  );

  test('bindings that cannot be asked for say no more than that they are of another', async () => {
    vi.stubGlobal('fetch', () => Promise.reject(new TypeError('offline')));
    const compiled = compile('/wasm/core_bg.wasm', '+00000001');
    await expect(compiled).rejects.toThrow('two releases of the app');
  });

  test.each([[OTHER], [undefined]])('one that says %s is refused, and why', async (build) => {
    const asked = answers(build, build, build);
    await expect(compile('/core.wasm', OURS)).rejects.toThrow(
      'two releases of the app: load this page',
    );
    expect(asked).toEqual(['default', 'no-cache']);
  });
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
    const compiled = compile(`http://127.0.0.1:${port}/core.wasm`, OURS).catch((error) => error);
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
