#!/usr/bin/env node
// `npx tidelog copy-assets DIR`: puts the workers' files where a page can load them, for bundlers
// that leave workers out.

import { cpSync, existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const USAGE = `usage: tidelog copy-assets DIR

Copies the workers' scripts and WebAssembly into DIR/worker and DIR/wasm. Serve DIR from the
page's own origin, and give open() the address of DIR/worker/worker.js as workerUrl.`;

const dist = fileURLToPath(new URL('../dist', import.meta.url));

/** Types are for compilers, not for pages. */
const isLoaded = (file) => !file.endsWith('.d.ts') && !file.endsWith('.d.ts.map');

function copyAssets(target) {
  for (const folder of ['worker', 'wasm']) {
    const from = path.join(dist, folder);
    if (!existsSync(from)) fail(1, `${from} is not there: the package is incomplete`);
    cpSync(from, path.join(target, folder), { recursive: true, filter: isLoaded });
    console.log(`${path.join(target, folder)}: ${readdirSync(from).filter(isLoaded).length} files`);
  }
}

function fail(code, message) {
  console.error(message);
  process.exit(code);
}

const [command, target, ...more] = process.argv.slice(2);
if (command === '--help' || command === '-h') console.log(USAGE);
else if (command !== 'copy-assets' || !target || more.length > 0) fail(2, USAGE);
else copyAssets(target);
