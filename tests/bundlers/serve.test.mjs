// The package of the server as its archive brings it, started by `npx tidelog serve`.

import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { eventually, freePort, inRoot } from '../browser/harness.mjs';

const QUIET = ['--silent', '--prefer-offline', '--no-audit', '--no-fund'];
const closers = [];
let app;
let command;

before(() => {
  app = mkdtempSync(path.join(os.tmpdir(), 'tidelog-serve-'));
  closers.push(() => rmSync(app, { recursive: true, force: true }));
  writeFileSync(path.join(app, 'package.json'), '{ "private": true }');
  install('js');
  command = path.join(app, 'node_modules/tidelog/bin/tidelog.mjs');
});
after(() => {
  for (const close of closers.reverse()) close();
});

function install(folder) {
  const pack = ['pack', '--silent', '--pack-destination', app, inRoot(folder)];
  const archive = execFileSync('npm', pack, { encoding: 'utf8' }).trim();
  const { NODE_ENV: _, ...env } = process.env;
  const words = ['install', ...QUIET, path.join(app, archive)];
  execFileSync('npm', words, { cwd: app, env, stdio: ['ignore', 'ignore', 'inherit'] });
}

function serve(...args) {
  const child = spawn(process.execPath, [command, 'serve', ...args], { cwd: app });
  closers.push(() => child.kill('SIGKILL'));
  const ended = new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  const said = { text: '' };
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (bytes) => {
      said.text += bytes;
    });
  }
  return { child, ended, said };
}

test('without the package of the server it says what to install', () => {
  const { status, stderr } = spawnSync(process.execPath, [command, 'serve'], {
    cwd: app,
    encoding: 'utf8',
  });
  assert.equal(status, 1);
  const { version } = JSON.parse(readFileSync(inRoot('js/package.json'), 'utf8'));
  assert.match(stderr, /^tidelog-server is not installed in /);
  assert.ok(stderr.includes(`npm install --save-dev tidelog-server@${version}\n`), stderr);
});

test('with it a server for this machine is started, and ends by a signal with 0', async () => {
  install('target/npm/tidelog-server');
  const address = `127.0.0.1:${await freePort()}`;
  const { child, ended, said } = serve('--dev', '--data', 'kept', '--listen', address);
  const answer = () => fetch(`http://${address}/healthz`).catch(() => null);
  assert.equal((await eventually(answer, { what: 'a server' })).status, 200);
  assert.match(said.text, /^tidelog-server \S+: tidelog serve --dev --data kept --listen /);
  assert.ok(existsSync(path.join(app, 'kept')), 'its data are in the folder of the app');
  child.kill('SIGTERM');
  assert.deepEqual(await ended, { code: 0, signal: null });
  await assert.rejects(fetch(`http://${address}/healthz`), 'the server itself has ended, too');
});

test('the exit code is that of the server', async () => {
  const { ended, said } = serve('--no-such-flag');
  assert.deepEqual(await ended, { code: 2, signal: null });
  assert.match(said.text, /--no-such-flag/);
});
