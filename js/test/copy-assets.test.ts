import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';

let folder: string;
let command: string;

/** The command in a package whose built files are only names. */
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'tidelog-package-'));
  for (const part of ['bin', 'package.json']) {
    const from = fileURLToPath(new URL(`../${part}`, import.meta.url));
    cpSync(from, path.join(folder, part), { recursive: true });
  }
  command = path.join(folder, 'bin/tidelog.mjs');
  const built = ['worker/worker.js', 'worker/worker.d.ts', 'wasm/core.js', 'wasm/core_bg.wasm'];
  for (const file of built) {
    mkdirSync(path.join(folder, 'dist', path.dirname(file)), { recursive: true });
    writeFileSync(path.join(folder, 'dist', file), file);
  }
});

afterEach(() => rmSync(folder, { recursive: true }));

const run = (...args: string[]) =>
  spawnSync(process.execPath, [command, ...args], { encoding: 'utf8' });

test('copy-assets brings all that the workers load, in the folders that they look in', () => {
  const target = path.join(folder, 'public/tidelog');
  execFileSync(process.execPath, [command, 'copy-assets', target]);
  execFileSync(process.execPath, [command, 'copy-assets', target], { stdio: 'ignore' });
  const found = readdirSync(target, { recursive: true }).sort();
  expect(found).toEqual([
    'wasm',
    'wasm/core.js',
    'wasm/core_bg.wasm',
    'worker',
    'worker/worker.js',
  ]);
});

test('a wrong call says how to call it, and copies nothing', () => {
  for (const args of [[], ['copy-assets'], ['copy', 'x'], ['copy-assets', 'x', 'y']]) {
    const { status, stderr } = run(...args);
    expect(status).toBe(2);
    expect(stderr).toMatch(/^(there is no command copy\n\n)?usage: .*\n +tidelog copy-assets DIR/);
  }
  expect(run('--help')).toMatchObject({ status: 0, stderr: '' });
  expect(run('copy', 'x').stderr).toContain('there is no command copy');
  expect(run('--version').stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test('a package that was not built says so', () => {
  rmSync(path.join(folder, 'dist/wasm'), { recursive: true });
  const { status, stderr } = run('copy-assets', path.join(folder, 'x'));
  expect(status).toBe(1);
  expect(stderr).toContain('the package is incomplete');
});
