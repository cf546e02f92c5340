// The smallest example, as a user sees it: only what is on the page is read.

import assert from 'node:assert/strict';
import { at, examplesServer, press } from './harness/example-page.mjs';
import { atLeast, both, eventually } from './harness.mjs';

const textOf = (page, selector) =>
  page.evaluate(
    (selector) => [...document.querySelectorAll(selector)].map((it) => it.textContent).join(' '),
    selector,
  );

async function shows(page, wanted, selector = `${at('list')} li`) {
  let shown;
  await eventually(
    async () => {
      shown = await textOf(page, selector);
      return shown === wanted;
    },
    { what: `"${wanted}"` },
  ).catch((error) => {
    throw new Error(`${error.message}; the page shows "${shown}"`);
  });
}

async function add(page, text) {
  await page.focus(at('add-input'));
  await press(page, [text], 'Enter');
}

both('two tabs and another device show the same lines, also after a reload', async (stage) => {
  const server = await examplesServer(stage);
  const hello = `${server.http}/hello/`;
  const pages = [await stage.tab(hello), await stage.tab(hello), await stage.otherTab(hello)];
  const [one, two, elsewhere] = pages;
  for (const page of pages) await shows(page, 'online', at('status'));
  await add(one, 'good');
  for (const page of pages) await shows(page, 'good');
  await add(two, 'day');
  await add(elsewhere, 'to');
  for (const page of pages) await eventually(async () => /to/.test(await textOf(page, 'li')));
  const shown = await textOf(one, 'li');
  assert.deepEqual(shown.split(' ').sort(), ['day', 'good', 'to']);
  for (const page of pages) await shows(page, shown);
  await one.reload();
  await shows(one, shown);
});

both('a line that is refused is said to be, and leaves the list as it was', async (stage) => {
  const server = await examplesServer(stage);
  const page = await stage.tab(`${server.http}/hello/`);
  await add(page, 'good');
  await shows(page, 'good');
  await add(page, '   ');
  await eventually(async () => /needs a text/.test(await textOf(page, at('error'))));
  await shows(page, 'good');
});

both('lines are added while the server is away, and confirmed once it is back', async (stage) => {
  const server = await examplesServer(stage);
  const page = await stage.tab(`${server.http}/hello/`);
  await shows(page, 'online', at('status'));
  await server.stop();
  await shows(page, 'offline', at('status'));
  await add(page, 'good');
  await shows(page, 'good');
  await shows(page, 'offline, 1 not confirmed yet', at('status'));
  await server.start();
  await shows(page, 'online', at('status'));
  const elsewhere = await stage.otherTab(`${server.http}/hello/`);
  await shows(elsewhere, 'good');
});

atLeast(3);
