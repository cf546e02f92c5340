import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import manifest from '../package.json' with { type: 'json' };
import { planServer, runServer, type Start } from '../src/node/serve.js';

const { version } = manifest;
let app: string;

beforeEach(() => {
  app = mkdtempSync(path.join(tmpdir(), 'tidelog-app-'));
});

afterEach(() => rmSync(app, { recursive: true }));

/** The app has a package of the server of this release. */
function install(release: string): string {
  const folder = path.join(app, 'node_modules/tidelog-server');
  mkdirSync(folder, { recursive: true });
  const bin = { 'tidelog-server': 'tidelog' };
  const text = JSON.stringify({ name: 'tidelog-server', version: release, bin });
  writeFileSync(path.join(folder, 'package.json'), text);
  return path.join(folder, 'tidelog');
}

test('without arguments it is a server for development, and says so', () => {
  const binary = install(version);
  const start = planServer(app, [], {});
  const words = ['serve', '--dev', '--data', '.tidelog', '--listen', '127.0.0.1:8787'];
  expect([start.binary, start.args]).toEqual([binary, words]);
  expect(start.says).toBe(
    `tidelog-server ${version}: tidelog ${words.join(' ')}\n` +
      'for development: it listens on this machine only, and asks for no token',
  );
});

test('what the environment says is not said otherwise', () => {
  install(version);
  const { args } = planServer(app, [], { TIDELOG_DATA: 'elsewhere' });
  expect(args).toEqual(['serve', '--dev', '--listen', '127.0.0.1:8787']);
  expect(planServer(app, [], { TIDELOG_CONFIG: 'tidelog.toml' }).args).toEqual(['serve']);
});

test.each([
  ['TIDELOG_CONFIG', 'tidelog.toml'],
  ['TIDELOG_DEV', 'false'],
  ['TIDELOG_LISTEN', '0.0.0.0:8787'],
])('where the environment has %s nothing is promised', (variable, value) => {
  install(version);
  const { says } = planServer(app, [], { [variable]: value });
  expect(says).not.toContain('for development');
  expect(planServer(app, [], { TIDELOG_DATA: value }).says).toContain('for development');
});

test.each([
  ['--listen 127.0.0.1:0', '--dev --data .tidelog'],
  ['--data=elsewhere --serve examples', '--dev --listen 127.0.0.1:8787'],
  ['--listen 0.0.0.0:8787', '--data .tidelog'],
  ['--dev', '--data .tidelog --listen 127.0.0.1:8787'],
  ['--config tidelog.toml', ''],
  ['--help', ''],
])('with %s it is for development otherwise', (given, added) => {
  install(version);
  const words = given.split(' ');
  const { args } = planServer(app, words, {});
  expect(args).toEqual(['serve', ...added.split(' ').filter(Boolean), ...words]);
});

test('a server that is not installed, or is of another release, is told of', () => {
  const install_ = `npm install --save-dev tidelog-server@${version}`;
  expect(() => planServer(app, [], {})).toThrow(
    `tidelog-server is not installed in ${app}: ${install_}`,
  );
  install('9.9.9');
  expect(planServer(app, [], {}).says).toContain(
    `its release is another one than that of tidelog, ${version}`,
  );
});

test('how it ends is its exit code, by a signal too', async () => {
  const node = (code: string): Start => ({
    binary: process.execPath,
    args: ['-e', code],
    says: '',
  });
  expect(await runServer(node('process.exit(3)'))).toBe(3);
  expect(await runServer(node('process.kill(process.pid, "SIGKILL")'))).toBe(137);
  const absent = { ...node(''), binary: path.join(app, 'absent') };
  await expect(runServer(absent)).rejects.toThrow(/absent does not start: spawn .*ENOENT/);
});

test.each([
  ['linux', 'SIGHUP SIGINT SIGTERM'],
  // There the console tells the server by itself.
  ['win32', ''],
])('what is passed on, on %s: %s', async (platform, heard) => {
  const [isReady, isOver, log] = ['ready', 'over', 'log'].map((name) => path.join(app, name));
  const code = `
    const { appendFileSync, existsSync, writeFileSync } = require('node:fs');
    const [isReady, isOver, log] = ${JSON.stringify([isReady, isOver, log])};
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
      process.on(signal, () => appendFileSync(log, signal + ' '));
    }
    setInterval(() => existsSync(isOver) && process.exit(0), 5);
    writeFileSync(log, '');
    writeFileSync(isReady, '');`;
  const signals = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;
  const others = new Set(signals.flatMap((signal) => process.listeners(signal)));
  const ended = runServer({ binary: process.execPath, args: ['-e', code], says: '' });
  await vi.waitFor(() => expect(existsSync(isReady!)).toBe(true), 10_000);
  const { platform: here } = process;
  Object.defineProperty(process, 'platform', { value: platform });
  for (const signal of signals) {
    for (const listener of process.listeners(signal)) if (!others.has(listener)) listener(signal);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  Object.defineProperty(process, 'platform', { value: here });
  writeFileSync(isOver!, '');
  expect(await ended).toBe(0);
  expect(readFileSync(log!, 'utf8').trim()).toBe(heard);
});
