import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import * as tidelog from '../src/index.js';

const read = (path: string): string => readFileSync(new URL(path, import.meta.url), 'utf8');
const manifest = JSON.parse(read('../package.json'));
const { version, exports } = manifest;

test('the release is the same wherever it has to stand literally', () => {
  // The build puts a hash of what it made in the place of the zeros.
  const release = `${version}+00000000`;
  for (const file of ['../src/release.ts', '../../worker/src/shared.ts']) {
    expect(read(file)).toContain(`BUILD = '${release}'`);
  }
});

test('bundlers find the workers in the literal form that they look for', () => {
  const compact = (text: string): string => text.replace(/\s+/g, ' ');
  expect(compact(read('../src/engine.ts'))).toContain(
    `new SharedWorker(new URL('./worker/worker.js', import.meta.url), ` +
      `{ /* @vite-ignore */ type: 'module',`,
  );
  expect(compact(read('../src/lending-worker.ts'))).toContain(
    `new Worker(new URL('./worker/worker.js', import.meta.url), { type: 'module',`,
  );
});

test('it depends on nothing, and its workers wait for nothing while they load', () => {
  const needs = Object.keys(manifest).filter((key) => /dependencies/i.test(key));
  expect(needs).toEqual(['peerDependencies', 'peerDependenciesMeta']);
  for (const peer of Object.keys(manifest.peerDependencies)) {
    expect(manifest.peerDependenciesMeta[peer]).toEqual({ optional: true });
  }
  const folder = new URL('../../worker/src/', import.meta.url);
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts')) continue;
    // A worker that awaits at its top misses the messages that come meanwhile.
    expect(readFileSync(new URL(file, folder), 'utf8')).not.toMatch(/^(\w.*)?\bawait /m);
  }
});

test('every file that a page loads can be named from outside', () => {
  expect(Object.keys(exports)).toEqual([
    '.',
    './events',
    './react',
    './vue',
    './svelte',
    './solid',
    './kysely',
    './drizzle',
    './node',
    './testing',
    './vite',
    './worker/worker.js',
    './wasm/core.js',
    './wasm/core_bg.wasm',
    './wasm/page_server.js',
    './wasm/page_server_bg.wasm',
    './package.json',
  ]);
  expect(Object.keys(exports['.'])[0]).toBe('types');
});

test('importing it does nothing, and opening without a browser says what is missing', async () => {
  const kind = tidelog.doctype({ name: 'a', migrations: [], mutations: {} });
  await expect(tidelog.open(kind, { document: 'd' })).rejects.toBeInstanceOf(tidelog.EngineError);
  await expect(tidelog.destroy('d')).rejects.toMatchObject({ code: 'engine', outcome: 'none' });
});

test('every error has a code of its own and the name of its class', () => {
  const classes = Object.entries(tidelog).filter(([name]) => name.endsWith('Error'));
  const codes = new Set<string>();
  for (const [name, Class] of classes) {
    if (name === 'TidelogError') continue;
    const error = new (Class as typeof tidelog.EngineError)('what');
    expect(error).toBeInstanceOf(tidelog.TidelogError);
    expect(error.name).toBe(name);
    expect(String(error)).toBe(`${name}: what`);
    codes.add(error.code);
  }
  expect(codes.size).toBe(32);
});
