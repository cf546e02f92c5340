// What a page downloads of the package's JavaScript, as Vite bundles it and brotli compresses it.
// Each limit is what there was when it was set, and two in a hundred more: whoever needs more says
// so here.
//
// Of the app's 16.7 kB the tab's decisions take 3.1 kB, an open document 1.9, ports, locks and
// workers 1.6, doctypes and arguments 1.6, the texts of errors 1.3 in all modules, the calls of a
// tab 1.0, bytes and messages 1.6, options 0.8, rows 0.6, live queries 0.5, presence 0.5. Brotli
// finds most of what repeats: a table in place of the classes of errors saves 75 bytes, shorter
// names for all properties that no app sees 460, functions in place of all classes 440, and shared
// phrases in messages nothing.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { brotli, bundle, filesBelow } from '../bench/build.mjs';
import { inTarget } from './places.mjs';

/** Bytes of an app that opens a document, and of the one script of both its workers. */
const APP_MAX = 16_750;
const WORKER_MAX = 7_210;

/** Bytes more with the hooks of a framework, as promised. */
const HOOKS_MAX = 1_500;

const LEAST = `import { doctype, mutation, open } from 'tidelog';
globalThis.app = { doctype, mutation, open };`;

/** Of the code by which errors tell who has called, and a server that is not reached is looked at. */
const FOR_DEVELOPMENT = /\^Error:|healthz/;

/** Bytes of each script that comes of an app, by its name without the hash. */
async function sizesOf(name, code) {
  const folder = inTarget('sizes', name);
  mkdirSync(folder, { recursive: true });
  const entry = path.join(folder, 'app.mjs');
  writeFileSync(entry, code);
  const peers = /^(react|vue|svelte|solid-js)(\/|$)/;
  const out = await bundle(folder, entry, path.join(folder, 'dist'), peers);
  const scripts = filesBelow(out).filter((file) => /\.m?js$/.test(file));
  for (const file of scripts) assert.doesNotMatch(readFileSync(file, 'utf8'), FOR_DEVELOPMENT);
  const nameOf = (file) => path.basename(file).replace(/-.*/, '');
  return Object.fromEntries(scripts.map((file) => [nameOf(file), brotli(readFileSync(file))]));
}

let least;
before(async () => {
  least = await sizesOf('least', LEAST);
});

function isAtMost(size, max, what) {
  console.log(`${what}: ${size} bytes of ${max}`);
  assert.ok(size <= max, `${what} takes ${size} bytes, and had ${max}`);
}

test('an app and its workers stay small', () => {
  // Nothing else: what is for development is in no build.
  assert.deepEqual(Object.keys(least).sort(), ['app', 'worker']);
  isAtMost(least.app, APP_MAX, 'the app');
  isAtMost(least.worker, WORKER_MAX, 'the script of the workers');
});

for (const framework of ['react', 'vue', 'svelte', 'solid']) {
  test(`the hooks for ${framework} stay small`, async () => {
    const hooks = `import { createHooks } from 'tidelog/${framework}';
globalThis.createHooks = createHooks;`;
    const { app } = await sizesOf(framework, `${LEAST}\n${hooks}`);
    isAtMost(app - least.app, HOOKS_MAX, `the hooks for ${framework}`);
  });
}
