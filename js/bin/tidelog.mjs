#!/usr/bin/env node
// `npx tidelog`: what is done with the package outside a browser.

import { cpSync, existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const USAGE = `usage: tidelog check FILE...
       tidelog copy-assets DIR
       tidelog extract [--name NAME] [--out DIR] FILE...
       tidelog types [--check] FILE...
       tidelog serve [FLAG...]

check: runs the migrations of each doctype that these modules export on an empty document, and
prepares their mutations there, with the engine itself; of a folder, what the modules below it
export. The modules are loaded by the Vite of the
app that is in this folder, where it has one, and by Node where not.

copy-assets: copies the workers' scripts and WebAssembly into DIR/worker and DIR/wasm. Serve DIR
from the page's own origin, and give open() the address of DIR/worker/worker.js as workerUrl.

extract: prints the doctype that these modules, and those below these folders, export, as JSON for
"tidelog deploy" of the server, once it is checked as by "check". Of several it prints the one that
--name says. With --out it prints none: each becomes NAME.json in DIR.

types: finds the queries in these files, and in the modules below these folders, but for tests:
"sql" templates, and texts that query, live, values, useLive or useSuspenseLive are given. Asks each
of the schema that the migrations make, and writes the types of rows and parameters into
NAME.queries.d.ts, beside the first module NAME that defines a doctype; what it wrote elsewhere
below these folders is removed. With --check it does neither, and the exit code is 1 where there is
something to be done. It takes Node 22.16 or newer.

serve: starts the server of the package tidelog-server, which the app in this folder has installed,
with these flags; "tidelog serve --help" lists them. It is a server for development, --dev --data
.tidelog --listen 127.0.0.1:8787, but for what flags and the environment (TIDELOG_*) say.`;

const dist = fileURLToPath(new URL('../dist', import.meta.url));

/** Types are for compilers, not for pages. */
const isLoaded = (file) => !file.endsWith('.d.ts') && !file.endsWith('.d.ts.map');

function copyAssets([target, ...more]) {
  if (!target || target.startsWith('-') || more.length > 0) fail(2, USAGE);
  for (const folder of ['worker', 'wasm']) {
    const from = path.join(dist, folder);
    if (!existsSync(from)) fail(1, `${from} is not there: the package is incomplete`);
    cpSync(from, path.join(target, folder), { recursive: true, filter: isLoaded });
    console.log(`${path.join(target, folder)}: ${readdirSync(from).filter(isLoaded).length} files`);
  }
}

async function check(names) {
  if (names.length === 0) fail(2, USAGE);
  const { AppFiles } = await import('../dist/node/app-files.js');
  const { lookApart } = await import('../dist/node/apart.js');
  const root = process.cwd();
  const isFolder = (name) => statSync(name, { throwIfNoEntry: false })?.isDirectory();
  const named = names.filter((name) => !isFolder(name));
  const below = new AppFiles(root, names.filter(isFolder)).modules.map(({ file }) => file);
  const files = [...named, ...below];
  const paths = files.map((file) => path.resolve(file));
  const found = await lookApart({ root }, paths);
  let flaws = 0;
  for (const [index, { doctypes, ...module }] of found.entries()) {
    const say = (what) => console.error(`${files[index]}: ${what}`);
    if (module.flaw || module.failure) say(module.flaw ?? module.failure);
    // A module below a folder may only mention doctypes.
    const isForgiven = module.isNone && index >= named.length;
    if ((module.flaw || module.failure) && !isForgiven) flaws += 1;
    for (const { name, migrations, mutations, flaw, hints } of doctypes) {
      for (const hint of hints) say(`for later: ${hint}`);
      if (flaw) {
        flaws += 1;
        say(flaw);
      } else {
        const of = `of ${migrations} migrations and ${mutations} mutations`;
        console.log(`${files[index]}: doctype ${name} is right, ${of}`);
      }
    }
  }
  if (!found.some(({ doctypes }) => doctypes.length > 0) && flaws === 0) {
    fail(1, `no module of ${names.join(' ')} exports a doctype`);
  }
  process.exit(flaws > 0 ? 1 : 0);
}

async function extract(args) {
  const { values, positionals: files } = optionsOf(args, ['name', 'out']);
  if (files.length === 0) fail(2, USAGE);
  const { extract, writeInto } = await import('../dist/node/extract.js');
  try {
    const { doctypes, flaws } = await extract(process.cwd(), files);
    for (const flaw of flaws) console.error(flaw);
    if (flaws.length > 0) process.exit(1);
    const names = doctypes.map(({ name }) => name).join(', ');
    if (!names) fail(1, `no module of ${files.join(' ')} exports a doctype`);
    const { name: wanted, out } = values;
    const chosen = wanted === undefined ? doctypes : doctypes.filter((it) => it.name === wanted);
    if (chosen.length === 0) fail(1, `there is no doctype ${wanted}: there is ${names}`);
    if (out !== undefined) {
      for (const file of writeInto(out, chosen)) console.log(file);
    } else if (chosen.length > 1) {
      fail(1, `there are several doctypes: choose one by --name, or give --out DIR: ${names}`);
    } else console.log(chosen[0].json);
  } catch (error) {
    fail(1, error.message);
  }
}

async function types(args) {
  const isCheck = args[0] === '--check';
  const files = isCheck ? args.slice(1) : args;
  if (files.length === 0 || files.some((file) => file.startsWith('-'))) fail(2, USAGE);
  const { isFresh, typesOf, write } = await import('../dist/node/types.js');
  const root = process.cwd();
  try {
    const outcome = await typesOf(root, files);
    for (const note of outcome.notes) console.error(note);
    for (const flaw of outcome.flaws) console.error(flaw);
    if (outcome.flaws.length > 0) process.exit(1);
    const { file, count, stale } = outcome;
    const isWritten = isFresh(root, outcome);
    if (isCheck) {
      const again = `npx tidelog types ${files.join(' ')}`;
      for (const it of stale) console.error(`${it} is of an earlier run: ${again}`);
      if (!isWritten) console.error(`${file} is not up to date: ${again}`);
      if (!isWritten || stale.length > 0) process.exit(1);
    } else if (!isWritten || stale.length > 0) {
      write(root, outcome);
      for (const it of stale) console.log(`${it} is removed`);
    }
    console.log(`${file} has the types of ${count} queries${isWritten ? '' : ' now'}`);
  } catch (error) {
    fail(1, error.message);
  }
}

async function serve(args) {
  const { planServer, runServer } = await import('../dist/node/serve.js');
  try {
    const start = planServer(process.cwd(), args, process.env);
    console.error(start.says);
    process.exit(await runServer(start));
  } catch (error) {
    fail(1, error.message);
  }
}

/** Options with these names, each with a value, and the rest. */
function optionsOf(args, names) {
  const options = Object.fromEntries(names.map((name) => [name, { type: 'string' }]));
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    return fail(2, `${error.message}\n\n${USAGE}`);
  }
}

function version() {
  return JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version;
}

function fail(code, message) {
  console.error(message);
  process.exit(code);
}

const [command, ...rest] = process.argv.slice(2);
const asksHow = (it) => it === '--help' || it === '-h';
// What the server says of its own flags is more.
if (asksHow(command) || (command !== 'serve' && rest.some(asksHow))) console.log(USAGE);
else if (command === 'check') await check(rest);
else if (command === 'copy-assets') copyAssets(rest);
else if (command === 'extract') await extract(rest);
else if (command === 'types') await types(rest);
else if (command === 'serve') await serve(rest);
else if (command === '--version' || command === '-V') console.log(version());
else fail(2, command ? `there is no command ${command}\n\n${USAGE}` : USAGE);
