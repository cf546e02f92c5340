#!/usr/bin/env node
// `npx tidelog`: what is done with the package outside a browser.

import { cpSync, existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const USAGE = `usage: tidelog check FILE...
       tidelog copy-assets DIR

check: runs the migrations of each doctype that these modules export on an empty document, and
prepares their mutations there, with the engine itself. A module in TypeScript is loaded by the
app's Vite.

copy-assets: copies the workers' scripts and WebAssembly into DIR/worker and DIR/wasm. Serve DIR
from the page's own origin, and give open() the address of DIR/worker/worker.js as workerUrl.`;

const dist = fileURLToPath(new URL('../dist', import.meta.url));

/** Types are for compilers, not for pages. */
const isLoaded = (file) => !file.endsWith('.d.ts') && !file.endsWith('.d.ts.map');

function copyAssets([target, ...more]) {
  if (!target || more.length > 0) fail(2, USAGE);
  for (const folder of ['worker', 'wasm']) {
    const from = path.join(dist, folder);
    if (!existsSync(from)) fail(1, `${from} is not there: the package is incomplete`);
    cpSync(from, path.join(target, folder), { recursive: true, filter: isLoaded });
    console.log(`${path.join(target, folder)}: ${readdirSync(from).filter(isLoaded).length} files`);
  }
}

async function checkFiles(files) {
  if (files.length === 0) fail(2, USAGE);
  const { check, doctypesOf } = await import('../dist/node/check.js');
  const { load, close } = await loader(files);
  let flaws = 0;
  for (const file of files) {
    const say = (what) => console.error(`${file}: ${what}`);
    const exports = await load(path.resolve(file)).catch((error) => say(error.message));
    const doctypes = exports ? [...doctypesOf(exports).values()] : [];
    if (doctypes.length === 0) flaws += 1;
    if (exports && doctypes.length === 0) say('it exports no doctype');
    for (const doctype of doctypes) {
      const { name, migrations, mutations } = doctype;
      const { flaw, hints } = await check(doctype);
      for (const hint of hints) say(`for later: ${hint}`);
      if (flaw) flaws += 1;
      const count = [migrations, Object.keys(mutations)].map(({ length }) => length);
      if (flaw) say(flaw);
      else
        console.log(
          `${file}: doctype ${name} is right, of ${count[0]} migrations and ${count[1]} mutations`,
        );
    }
  }
  await close();
  process.exitCode = flaws > 0 ? 1 : 0;
}

/** Imports modules; by the Vite of the app that stands here where one is in TypeScript. */
async function loader(files) {
  if (!files.some((file) => /\.[cm]?tsx?$/.test(file))) {
    return { load: (file) => import(pathToFileURL(file)), close: async () => {} };
  }
  const { startRunner } = await import('../dist/node/runner.js');
  const app = createRequire(path.resolve('package.json'));
  let vite;
  try {
    vite = pathToFileURL(app.resolve('vite')).href;
  } catch {
    fail(1, 'to check TypeScript, install vite beside the app, or compile it to JavaScript first');
  }
  const runner = await startRunner(vite, { root: process.cwd() });
  return { load: (file) => runner.ssrLoadModule(file), close: () => runner.close() };
}

function fail(code, message) {
  console.error(message);
  process.exit(code);
}

const [command, ...rest] = process.argv.slice(2);
if (command === '--help' || command === '-h') console.log(USAGE);
else if (command === 'check') await checkFiles(rest);
else if (command === 'copy-assets') copyAssets(rest);
else fail(2, USAGE);
