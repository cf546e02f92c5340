// An app's tests in a page, by Vitest's browser mode, on the package as its archive brings it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { both, eventually, freePort } from '../browser/harness.mjs';
import { inProject, installPackage } from './places.mjs';

installPackage();

both("a test in Vitest's browser mode has documents as the page has", async (stage) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'tidelog-browser-mode-'));
  const told = path.join(folder, 'told');
  const vitest = inProject('node_modules/vitest/vitest.mjs');
  const args = [vitest, 'run', '--root', '.', '--browser.api.port', String(await freePort())];
  const running = spawn(process.execPath, args, {
    cwd: inProject('browser-mode'),
    env: { ...process.env, NO_COLOR: '1', TOLD: told, BROWSER: inProject('browser-mode/told.js') },
  });
  let said = '';
  for (const stream of [running.stdout, running.stderr]) {
    stream.on('data', (text) => {
      said += text;
    });
  }
  const ended = new Promise((resolve) => running.on('exit', resolve));
  try {
    const address = () => {
      try {
        return readFileSync(told, 'utf8').split('\n')[0];
      } catch {
        return undefined;
      }
    };
    await eventually(address, { what: 'an address' }).catch((error) => {
      throw new Error(`${error.message}; Vitest said: ${said}`);
    });
    await stage.tab(address());
    assert.equal(await ended, 0, said);
    assert.match(said, /Tests\s+1 passed/);
  } finally {
    running.kill();
    rmSync(folder, { recursive: true });
  }
});
