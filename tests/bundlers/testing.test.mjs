// An app's tests in Node, on the package as its archive brings it.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { before, test } from 'node:test';
import { inRoot } from '../browser/harness.mjs';
import { inProject, installPackage } from './places.mjs';

before(() => {
  installPackage();
});

test('a world of clients and a server stands in for them in Vitest', () => {
  const vitest = inRoot('node_modules/vitest/vitest.mjs');
  const args = [vitest, 'run', '--root', '.', '--testTimeout', '30000'];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: inProject('testing'),
    encoding: 'utf8',
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' },
  });
  const said = stdout + stderr;
  assert.equal(status, 0, said);
  const [, passed] = said.match(/Tests\s+(\d+) passed/) ?? [];
  assert.ok(Number(passed) >= 15, said);
});

test('and in Jest', () => {
  const jest = inProject('node_modules/jest/bin/jest.js');
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--experimental-vm-modules', jest, '--ci'],
    { cwd: inProject('jest'), encoding: 'utf8', env: { ...process.env, NO_COLOR: '1' } },
  );
  assert.equal(status, 0, stdout + stderr);
  assert.match(stderr, /Tests:\s+1 passed/);
});

test("a test in TypeScript is compiled where a page's types are not there", () => {
  const tsc = inProject('node_modules/typescript/bin/tsc');
  const flags = ['-p', inProject('testing/types')];
  execFileSync(process.execPath, [tsc, ...flags], { encoding: 'utf8', stdio: 'pipe' });
});
