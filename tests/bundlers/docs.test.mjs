// The site that is made of the docs: `npm run docs:build`.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { inRoot } from '../browser/harness.mjs';

test('the site has every page of the docs, and no link that leads nowhere', () => {
  const site = inRoot('target/docs');
  const vitepress = inRoot('docs/node_modules/vitepress/bin/vitepress.js');
  // It fails where a link is dead.
  execFileSync(process.execPath, [vitepress, 'build', inRoot('docs'), '--outDir', site], {
    stdio: 'pipe',
  });
  const files = ['.', 'start'].flatMap((folder) =>
    readdirSync(inRoot('docs', folder)).map((file) => `${folder}/${file}`),
  );
  const pages = files.filter((file) => file.endsWith('.md'));
  assert.ok(pages.length >= 19, `${pages}`);
  for (const page of pages) {
    assert.ok(existsSync(`${site}/${page.replace(/md$/, 'html')}`), page);
  }
});
