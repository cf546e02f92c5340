// The archive as a whole: what its manifest promises, its types, and what they ask of a compiler.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { before, test } from 'node:test';
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { inProject, installPackage } from './places.mjs';

let archive;
before(() => {
  archive = installPackage();
});

test('publint finds nothing', async () => {
  const tarball = readFileSync(archive);
  const { messages, pkg } = await publint({ pack: { tarball: tarball.buffer }, strict: true });
  assert.deepEqual(
    messages.map((message) => formatMessage(message, pkg)),
    [],
  );
});

test('every module that an app imports has the types that it is resolved with', async () => {
  const typed = ['.', './react', './vue', './svelte', './solid', './node', './testing', './vite'];
  const whole = createPackageFromTarballData(readFileSync(archive));
  const { problems } = await checkPackage(whole, { entrypoints: typed });
  // It is a package of ES modules alone, as its readers are.
  const isOfModules = ({ kind, resolutionKind }) =>
    kind !== 'CJSResolvesToESM' && resolutionKind !== 'node10';
  assert.deepEqual(problems.filter(isOfModules), []);
});

for (const compiler of ['typescript', 'typescript-5.5']) {
  test(`an app in TypeScript is compiled by ${compiler}`, () => {
    const tsc = inProject('node_modules', compiler, 'bin/tsc');
    for (const project of ['types', 'types/vite']) {
      const flags = ['--noEmit', '-p', inProject(project)];
      execFileSync('node', [tsc, ...flags], { encoding: 'utf8', stdio: 'pipe' });
    }
  });
}
