import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { AppFiles } from '../src/node/app-files.js';

const app = mkdtempSync(path.join(tmpdir(), 'tidelog-app-'));
afterEach(() => rmSync(app, { recursive: true, force: true }));

test('links in an app lead nowhere twice, and may lead nowhere at all', () => {
  mkdirSync(path.join(app, 'src/lists'), { recursive: true });
  writeFileSync(path.join(app, 'src/lists/todo.ts'), '');
  for (const [name, to] of [
    ['src/self', '.'],
    ['src/lists/above', '..'],
    ['src/gone', 'nowhere'],
    ['src/loop', 'loop'],
  ] as const) {
    symlinkSync(to, path.join(app, name));
  }
  expect(new AppFiles(app, ['src']).all).toEqual(['src/lists/todo.ts']);
  expect(() => new AppFiles(app, ['absent'])).toThrow(/ENOENT/);
});
