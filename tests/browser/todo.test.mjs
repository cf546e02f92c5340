// The to-do list, as a user sees it: only what is on the page is read.

import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { at, click, examplesServer, press, statusIs } from './harness/example-page.mjs';
import { atLeast, both, eventually, inRoot, sleep } from './harness.mjs';

/** Longer than news are shown to which nothing can be done. */
const NEWS_SHOWN_MS = 5_500;

/** The titles on the page, those checked off in brackets. */
const shownIn = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll('[data-testid="item"]')]
      .map((item) => {
        const title = item.querySelector('[data-testid="item-title"]').textContent;
        return item.querySelector('[data-testid="item-done"]').checked ? `[${title}]` : title;
      })
      .join(' '),
  );

async function shows(page, wanted) {
  let shown;
  await eventually(
    async () => {
      shown = await shownIn(page);
      return shown === wanted;
    },
    { what: `"${wanted}"` },
  ).catch((error) => {
    throw new Error(`${error.message}; the page shows "${shown}"`);
  });
}

async function add(page, title) {
  await page.focus(at('add-input'));
  await page.keyboard.type(title);
  await page.keyboard.press('Enter');
}

/** The text of what has the focus. */
const focused = (page) =>
  page.evaluate(() => {
    const { activeElement: at } = document;
    return at.closest('li')?.querySelector('[data-testid="item-title"]')?.textContent ?? at.value;
  });

both('two tabs and a second profile on one to-do list show the same', async (stage) => {
  const server = await examplesServer(stage);
  const list = `${server.http}/todo/?list=${stage.document}`;
  const pages = [await stage.tab(list), await stage.tab(list), await stage.otherTab(list)];
  const [one, two, elsewhere] = pages;
  for (const page of pages) await statusIs(page, { connection: 'online' });
  await add(one, 'bread');
  for (const page of pages) await shows(page, 'bread');
  await add(elsewhere, 'milk');
  for (const page of pages) await shows(page, 'bread milk');
  await click(two, 'item-done');
  for (const page of pages) await shows(page, '[bread] milk');
  const counts = (page) =>
    page.evaluate(() =>
      ['all', 'open', 'done'].map(
        (name) => document.querySelector(`[data-testid="count-${name}"]`).textContent,
      ),
    );
  for (const page of pages) {
    await eventually(async () => (await counts(page)).join() === '2,1,1', { what: 'the counts' });
  }
});

both('a to-do list works while it is offline, and catches up', async (stage) => {
  const server = await examplesServer(stage);
  const list = `${server.http}/todo/?list=${stage.document}`;
  const [one, elsewhere] = [await stage.tab(list), await stage.otherTab(list)];
  await add(one, 'bread');
  await shows(elsewhere, 'bread');
  await click(one, 'offline-toggle');
  await statusIs(one, { connection: 'offline' });
  await add(one, 'milk');
  await shows(one, 'bread milk');
  await statusIs(one, { pending: 1 });
  await shows(elsewhere, 'bread');
  await click(one, 'offline-toggle');
  await shows(elsewhere, 'bread milk');
  await statusIs(one, { connection: 'online', pending: 0 });
});

both('a to-do list is worked with the keyboard alone', async (stage) => {
  const server = await examplesServer(stage);
  const page = await stage.tab(`${server.http}/todo/?list=${stage.document}`);
  await statusIs(page, { connection: 'online' });
  await press(page, ['bread'], 'Enter', ['milk'], 'Enter', ['eggs'], 'Enter');
  await shows(page, 'bread milk eggs');

  await press(page, 'ArrowDown', ' ');
  await shows(page, '[bread] milk eggs');
  assert.equal(await focused(page), 'bread', 'the focus stays in its row');
  await press(page, 'ArrowDown', 'Enter', ['oat milk'], 'Enter');
  await shows(page, '[bread] oat milk eggs');
  await press(page, 'Enter', ['not kept'], 'Escape', 'End', 'Delete');
  await shows(page, '[bread] oat milk');
  assert.equal(await focused(page), 'oat milk', 'and goes to a neighbour when its row goes');

  await press(page, '3');
  await shows(page, '[bread]');
  await press(page, '2');
  await shows(page, 'oat milk');
  // Nothing is left under this filter; the next key is for another one, and not text.
  await press(page, 'Delete');
  await shows(page, '');
  await press(page, '1');
  await shows(page, '[bread]');
  await page.evaluate(
    (action) => [...document.querySelectorAll(action)].at(-1).click(),
    at('toast-action'),
  );
  await shows(page, '[bread] oat milk');

  await press(page, 'o');
  await statusIs(page, { connection: 'offline' });
  await press(page, 'o', 'n', ['  '], 'Enter', ['tea'], 'Enter');
  await statusIs(page, { connection: 'online', pending: 0 });
  await shows(page, '[bread] oat milk tea');
});

both('keys that are meant for nothing can be turned off, and Undo waits', async (stage) => {
  const server = await examplesServer(stage);
  const page = await stage.tab(`${server.http}/todo/?list=${stage.document}`);
  await statusIs(page, { connection: 'online', pending: 0 });
  const toggle = await page.$eval(at('offline-toggle'), (it) => it.outerHTML);
  assert.doesNotMatch(toggle, /aria-pressed/, 'it says what it does, not how it is');

  await click(page, 'single-keys');
  await page.reload();
  await statusIs(page, { connection: 'online' });
  await press(page, 'Escape', 'o');
  await add(page, 'milk');
  await shows(page, 'milk');
  await click(page, 'remove');
  await page.waitForSelector(at('toast-action'));
  await sleep(NEWS_SHOWN_MS);
  await statusIs(page, { connection: 'online', pending: 0 });
  await click(page, 'toast-action');
  await shows(page, 'milk');
  await click(page, 'single-keys');
  await press(page, 'Escape', 'o');
  await statusIs(page, { connection: 'offline' });
});

both('each list is a document of its own, and takes nothing of the one before', async (stage) => {
  const server = await examplesServer(stage);
  const page = await stage.tab(`${server.http}/todo/?list=${stage.document}`);
  await add(page, 'bread');
  await shows(page, 'bread');
  await click(page, 'remove');
  await shows(page, '');
  await press(page, ['half written'], 'Escape', 'l', [`${stage.document}-more`], 'Enter');
  await eventually(() => page.url().includes(`${stage.document}-more`));
  await statusIs(page, { connection: 'online' });
  assert.equal(await focused(page), '', 'the draft stayed with its list');
  assert.equal(await page.$(at('toast')), null, 'so did the way back from a removal');
  await add(page, 'milk');
  await shows(page, 'milk');
  await page.goBack();
  await shows(page, '');
  await page.goForward();
  await shows(page, 'milk');
});

both('the panel shows both journals moving, and each mutation’s stages', async (stage) => {
  const server = await examplesServer(stage);
  const page = await stage.tab(`${server.http}/todo/?list=${stage.document}`);
  await statusIs(page, { connection: 'online' });
  await click(page, 'panel-toggle');
  const panel = () =>
    page.evaluate(() => {
      const number = (selector) => Number(document.querySelector(selector)?.textContent ?? NaN);
      const strip = (name) => `[data-testid="strip-${name}"]`;
      return {
        decided: number(`${strip('timeline')} [data-testid="mark-decided"] b`),
        timeline: number(`${strip('timeline')} .head b`),
        storage: number(`${strip('storage')} .head b`),
        last: [...document.querySelectorAll('[data-testid="happenings"] li:first-child .stage')]
          .map((stage) => stage.dataset.stage)
          .join(' '),
      };
    });
  const becomes = async (wanted) => {
    let seen;
    await eventually(
      async () => {
        seen = await panel();
        return Object.entries(wanted).every(([key, value]) => seen[key] === value);
      },
      { what: JSON.stringify(wanted) },
    ).catch((error) => {
      throw new Error(`${error.message}; the panel shows ${JSON.stringify(seen)}`);
    });
  };
  await becomes({ decided: 1, timeline: 1, storage: 2 });
  await add(page, 'bread');
  await becomes({ decided: 2, timeline: 2, storage: 3, last: 'visible durable confirmed' });
  await click(page, 'offline-toggle');
  await statusIs(page, { connection: 'offline' });
  await add(page, 'milk');
  await becomes({ decided: 2, timeline: 3, storage: 3, last: 'visible durable' });
  await click(page, 'offline-toggle');
  await becomes({ decided: 3, timeline: 3, storage: 4, last: 'visible durable confirmed' });
});

both('what two offline lists both took is refused to the second, which is told', async (stage) => {
  const server = await examplesServer(stage);
  const list = `${server.http}/todo/?list=${stage.document}`;
  const [one, elsewhere] = [await stage.tab(list), await stage.otherTab(list)];
  for (const page of [one, elsewhere]) {
    await statusIs(page, { connection: 'online' });
    await click(page, 'offline-toggle');
    await statusIs(page, { connection: 'offline' });
  }
  await add(one, 'bread');
  await add(elsewhere, 'bread');
  await add(elsewhere, 'milk');
  await click(one, 'offline-toggle');
  await statusIs(one, { connection: 'online', pending: 0 });
  await click(elsewhere, 'offline-toggle');
  await statusIs(elsewhere, { connection: 'online', pending: 0 });
  for (const page of [one, elsewhere]) await shows(page, 'bread milk');
  const told = await elsewhere.waitForSelector(`${at('toast')}[data-kind="rejected"]`);
  assert.match(await told.evaluate((toast) => toast.textContent), /bread.*on this list already/);
});

/** The page of the example, with a doctype that refuses to check anything off. */
function stubbornPage(stage) {
  const folder = mkdtempSync(path.join(tmpdir(), 'tidelog-todo-'));
  stage.onEnd(() => rmSync(folder, { recursive: true }));
  cpSync(inRoot('examples/todo/dist'), folder, { recursive: true });
  const [, script] = /src="(.*?)"/.exec(readFileSync(path.join(folder, 'index.html'), 'utf8'));
  const file = path.join(folder, script);
  const text = readFileSync(file, 'utf8');
  const stubborn = text.replace(
    'update todo set done = :done where id = :id',
    `select reject('not today') where :done is not null`,
  );
  assert.notEqual(stubborn, text);
  writeFileSync(file, stubborn);
  return folder;
}

both('a box whose check was refused shows what the list holds', async (stage) => {
  const site = await stage.ownSite({ folders: { '/todo/': stubbornPage(stage) } });
  const page = await stage.tab(site.url(`/todo/?server=none&list=${stage.document}`));
  await add(page, 'bread');
  await shows(page, 'bread');
  await click(page, 'item-done');
  await page.waitForSelector(`${at('toast')}[data-kind="rejected"]`);
  await shows(page, 'bread');
});

atLeast(7);
