// The example for people with a role each, as two of them see it: only what is on the page is read.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { at, press } from './harness/example-page.mjs';
import { atLeast, both, eventually, freePort } from './harness.mjs';

const EXAMPLE = fileURLToPath(new URL('../../examples/shared-list/', import.meta.url));

/** The example's own server, until the test is over. */
async function served(run) {
  const data = mkdtempSync(path.join(tmpdir(), 'tidelog-shared-list-'));
  const listen = `127.0.0.1:${await freePort()}`;
  const args = [path.join(EXAMPLE, 'serve.mjs'), '--listen', listen, '--data', data];
  const server = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [server.stdout, server.stderr]) {
    stream.on('data', (text) => {
      said += text;
    });
  }
  const gone = new Promise((resolve) => server.on('exit', resolve));
  try {
    const address = () => said.match(/http:\S+\/shared-list\//)?.[0];
    await eventually(address, { what: 'an address' }).catch((error) => {
      throw new Error(`${error.message}; it said: ${said}`);
    });
    await run(address());
  } finally {
    server.kill();
    await gone;
    rmSync(data, { recursive: true });
  }
}

const textOf = (page, selector) =>
  page.evaluate((selector) => document.querySelector(selector)?.innerText ?? '', selector);

async function says(page, where, wanted) {
  let shown;
  await eventually(
    async () => {
      shown = await textOf(page, where);
      return wanted.test(shown);
    },
    { what: `${wanted}` },
  ).catch((error) => {
    throw new Error(`${error.message}; the page shows "${shown}"`);
  });
}

async function logIn(page, user, password = user) {
  await eventually(() => page.evaluate(() => !document.querySelector('#login').hidden));
  await page.evaluate((user) => {
    document.querySelector('[name=user]').value = user;
  }, user);
  await page.focus('[name=password]');
  await press(page, [password], 'Enter');
}

async function add(page, text) {
  await page.focus(at('add-input'));
  await press(page, [text], 'Enter');
}

const isShown = (page, selector) =>
  page.evaluate(
    (selector) => document.querySelector(selector)?.checkVisibility() ?? false,
    selector,
  );

both('who may write and who may read see the same list, and each other', (stage) =>
  served(async (address) => {
    const [writing, reading] = [await stage.tab(address), await stage.otherTab(address)];
    await logIn(writing, 'writer', 'guessed');
    await says(writing, at('error'), /another password/);
    await logIn(writing, 'writer');
    await says(writing, at('status'), /^writer, online, you may write/);
    await add(writing, 'bread');
    await says(writing, at('list'), /bread\s+writer/);

    await logIn(reading, 'reader');
    await says(reading, at('status'), /^reader, online, you may read/);
    await says(reading, at('list'), /bread\s+writer/);
    assert.equal(await isShown(reading, at('add-input')), false, 'there is nothing to write by');
    assert.equal(await isShown(reading, 'li button'), false);
    await says(reading, at('here'), /Here too: writer/);
    await says(writing, at('here'), /Here too: reader/);

    await writing.focus(at('add-input'));
    await press(writing, ['milk']);
    await says(reading, at('here'), /writer is typing/);
    await press(writing, 'Enter');
    await says(reading, at('list'), /milk\s+writer/);
    await says(reading, at('here'), /Here too: writer$/);

    // What somebody else has added only they remove, whatever their role.
    const admin = await stage.tab(address);
    await logIn(admin, 'admin');
    await says(admin, at('status'), /^admin, online/);
    await says(admin, at('list'), /bread/);
    await admin.evaluate(() => document.querySelector('li button').click());
    await says(admin, at('error'), /only writer may remove it/);
    await says(admin, at('list'), /bread/);
    await writing.evaluate(() => document.querySelector('li button').click());
    await eventually(async () => !/bread/.test(await textOf(reading, at('list'))));
  }),
);

atLeast(1);
