// Apps as `npm create tidelog` makes them, outside the repository, so that they find nothing that
// they do not bring along.

import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { startServer } from '../browser/harness/tidelog-server.mjs';
import { eventually, freePort, inRoot } from '../browser/harness.mjs';
import { serve } from './sites.mjs';

const QUIET = ['--silent', '--prefer-offline', '--no-audit', '--no-fund'];
const ADDRESS = 'ws://127.0.0.1:8787';

/** A folder with the command as npm installs it, and the archive of the package. */
export function makerOfApps(onEnd) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'tidelog-templates-'));
  onEnd(() => rmSync(folder, { recursive: true, force: true }));
  const pack = (of) => {
    const words = ['pack', '--silent', '--pack-destination', folder, inRoot(of)];
    return execFileSync('npm', words, { encoding: 'utf8' }).trim();
  };
  const [tidelog, command] = [pack('js'), pack('create')];
  const maker = path.join(folder, 'maker');
  mkdirSync(maker);
  writeFileSync(path.join(maker, 'package.json'), '{ "private": true }');
  npm(maker, ['install', ...QUIET, path.join(folder, command)]);
  const bin = path.join(maker, 'node_modules/.bin/create-tidelog');

  /** Makes an app and installs what it names. Gives its folder. */
  function make(template) {
    const name = `app-of-${template}`;
    const words = [name, '--template', template, '--tidelog', tidelog];
    execFileSync(process.execPath, [bin, ...words], { cwd: folder, stdio: 'pipe' });
    const app = path.join(folder, name);
    npm(app, ['install', ...QUIET]);
    return app;
  }
  return { make };
}

function npm(cwd, words) {
  // The runner of tests has it set for itself.
  const { NODE_ENV: _, ...env } = process.env;
  execFileSync('npm', words, { cwd, env, stdio: ['ignore', 'ignore', 'inherit'] });
}

/** Checks the types of an app, with the compiler that it brings along. */
export function checkTypes(app) {
  const tsc = path.join(app, 'node_modules/typescript/bin/tsc');
  execFileSync(process.execPath, [tsc, '--noEmit'], { cwd: app, encoding: 'utf8', stdio: 'pipe' });
}

/** The app as it is built and served, with a server of its own. Gives its origin. */
export async function builtSite(app, onEnd) {
  const server = await startServer();
  onEnd(() => server.dispose());
  const place = path.join(app, 'src/todos.ts');
  const text = readFileSync(place, 'utf8');
  if (!text.includes(ADDRESS)) throw new Error(`${place} does not name ${ADDRESS}`);
  writeFileSync(place, text.replace(ADDRESS, server.ws));
  npm(app, ['run', '--silent', 'build', '--', '--logLevel', 'error']);
  return serve(onEnd, { '/': path.join(app, 'dist') });
}

/** What the development server of an app answers for a file. */
export async function answerWhileDeveloping(app, file) {
  const port = String(await freePort());
  const vite = path.join(app, 'node_modules/vite/bin/vite.js');
  const words = [vite, '--host', '127.0.0.1', '--port', port, '--strictPort'];
  const child = spawn(process.execPath, words, {
    cwd: app,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  try {
    const address = `http://127.0.0.1:${port}${file}`;
    const ask = () => fetch(address, { signal: AbortSignal.timeout(30_000) }).catch(() => null);
    return await eventually(ask, { what: 'the development server', withinMs: 60_000 });
  } finally {
    child.kill();
    await ended;
  }
}
