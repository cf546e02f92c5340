import { afterEach, expect, test, vi } from 'vitest';
import { renewScripts } from '../src/renew.js';

afterEach(() => vi.unstubAllGlobals());

/** What is asked for anew where a server has these files. */
async function renewed(files: Record<string, string>) {
  const fetched = vi.fn(async (url: string, _: RequestInit) => {
    if (url.endsWith('/down.js')) throw new TypeError('the line is dead');
    const text = files[url.replace('https://app.example/', '')];
    return new Response(text, { status: text === undefined ? 404 : 200 });
  });
  vi.stubGlobal('fetch', fetched);
  vi.stubGlobal('location', { href: 'https://app.example/worker/worker.js' });
  await renewScripts();
  for (const [, { cache }] of fetched.mock.calls) expect(cache).toBe('no-cache');
  return fetched.mock.calls.map(([url]) => url.replace('https://app.example/', '')).sort();
}

const inWorker = (name: string): string => `worker/${name}.js`;

test('a script is asked for anew, and once each of what it imports', async () => {
  const files = {
    'worker/worker.js': "import { runCore } from './core.js';\nimport './down.js';",
    'worker/core.js': 'import * as core from \'../wasm/core.js\';import{a}from"./shared.js"',
    'worker/shared.js': "export * from './core.js'; import x from 'elsewhere';",
    'wasm/core.js': "export const BUILD = '+1';",
  };
  const all = ['wasm/core.js', ...['core', 'down', 'shared', 'worker'].map(inWorker)];
  expect(await renewed(files)).toEqual(all);
});

test('nothing follows from a page that stands where a script was', async () => {
  expect(await renewed({})).toEqual(['worker/worker.js']);
});

test('a script without end is not followed for ever', async () => {
  const files: Record<string, string> = { 'worker/worker.js': "import './0.js'" };
  for (let nth = 0; nth < 200; nth++) files[`worker/${nth}.js`] = `import './${nth + 1}.js'`;
  expect((await renewed(files)).length).toBe(64);
});
