// The example apps, as a user sees them: only what is on the page is read.

import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import {
  atLeast,
  both,
  contentOf,
  contentOfSql,
  eventually,
  inRoot,
  realData,
  startSite,
} from './harness.mjs';

const at = (id) => `[data-testid="${id}"]`;

/** The examples, built and served as `npm start` does. */
const examplesServer = (stage) => stage.server({ args: ['--serve', inRoot('examples')] });

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

const click = (page, id) =>
  page.evaluate((selector) => document.querySelector(selector).click(), at(id));

async function statusIs(page, wanted) {
  await eventually(
    () =>
      page.evaluate(
        ([selector, wanted]) => {
          const { dataset } = document.querySelector(selector);
          return Object.entries(wanted).every(([key, value]) => dataset[key] === String(value));
        },
        [at('status'), wanted],
      ),
    { what: JSON.stringify(wanted) },
  );
}

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

/** Rows a table, as the foot of the page says. */
const countsIn = (page) =>
  page.evaluate(() =>
    Object.fromEntries(
      [...document.querySelectorAll('[data-testid="contents"] [data-count]')].map((it) => [
        it.dataset.testid.replace('count-', ''),
        Number(it.dataset.count),
      ]),
    ),
  );

const stateOf = (page) =>
  page.evaluate((selector) => ({ ...document.querySelector(selector).dataset }), at('app'));

/** The file that the page's own export hands to the user. */
async function exportedBy(page) {
  const text = await page.evaluate(async (selector) => {
    const blob = await new Promise((resolve) => {
      URL.createObjectURL = (blob) => {
        resolve(blob);
        return 'about:blank';
      };
      HTMLAnchorElement.prototype.click = () => {};
      document.querySelector(selector).click();
    });
    const reader = new FileReader();
    const read = new Promise((resolve) => {
      reader.onload = () => resolve(reader.result);
    });
    reader.readAsDataURL(blob);
    return (await read).split(',')[1];
  }, at('export'));
  return new Uint8Array(Buffer.from(text, 'base64'));
}

const imported = (page) =>
  eventually(
    async () => {
      const { import: state } = await stateOf(page);
      if (state === 'failed') throw new Error('the import failed');
      return state === 'done';
    },
    { withinMs: 60_000, everyMs: 50, what: 'the end of the import' },
  );

/** Waits until a page shows these counts. */
const showsCounts = (page, wanted) =>
  eventually(async () => JSON.stringify(await countsIn(page)) === JSON.stringify(wanted), {
    withinMs: 60_000,
    everyMs: 50,
    what: 'the same number of rows',
  });

const script = realData('sql/Chinook_Sqlite.sql');

both(
  'Chinook imported in one profile is read in another, row by row as in stock SQLite',
  async (stage) => {
    const stock = contentOfSql(script);
    const server = await examplesServer(stage);
    const files = await startSite({ folders: { '/data/': dirname(script) } });
    stage.onEnd(() => files.close());
    const shop = `${server.http}/music/?shop=${stage.document}`;
    const source = encodeURIComponent(files.url('/data/Chinook_Sqlite.sql'));

    const began = performance.now();
    const one = await stage.tab(`${shop}&import=${source}`);
    await imported(one);
    stage.note(`imported in ${Math.round(performance.now() - began)} ms`);
    await statusIs(one, { pending: 0 });
    const counts = await countsIn(one);
    const rows = Object.values(counts).reduce((sum, count) => sum + count, 0);
    assert.equal(rows, 15_607);
    stage.note(`confirmed after ${Math.round(performance.now() - began)} ms`);

    const elsewhere = await stage.otherTab(shop);
    await showsCounts(elsewhere, counts);
    const copies = {
      'the first profile': await exportedBy(one),
      'the second profile': await exportedBy(elsewhere),
      'the server': await server.export((await stateOf(one)).document),
    };
    assert.equal(Object.keys(stock.tables).length, 11);
    for (const [whose, copy] of Object.entries(copies)) {
      const { tables } = contentOf(copy);
      for (const [table, wanted] of Object.entries(stock.tables)) {
        assert.deepEqual(tables[table], wanted, `${table} of ${whose}`);
      }
    }
  },
  { skip: script ? false : 'Chinook_Sqlite.sql is not there (TIDELOG_DATA or ../shared/data)' },
);

both(
  'the small shop loaded in one profile is read, searched and edited in another',
  async (stage) => {
    const server = await examplesServer(stage);
    const shop = `${server.http}/music/?shop=${stage.document}`;
    const one = await stage.tab(shop);
    await eventually(() => one.evaluate((it) => !!document.querySelector(it), at('import-small')));
    await click(one, 'import-small');
    await imported(one);
    await statusIs(one, { pending: 0 });
    const counts = await countsIn(one);
    assert.ok(
      Object.values(counts).every((count) => count > 0),
      JSON.stringify(counts),
    );

    const elsewhere = await stage.otherTab(shop);
    await showsCounts(elsewhere, counts);
    const [first, second] = [
      contentOf(await exportedBy(one)),
      contentOf(await exportedBy(elsewhere)),
    ];
    assert.deepEqual(second, first);
    assert.deepEqual(contentOf(await server.export((await stateOf(one)).document)), first);

    const name = first.tables.Artist[0].match(/'([^']*)'/)[1];
    await elsewhere.focus(at('search'));
    await elsewhere.keyboard.type(name.slice(0, 4));
    await eventually(
      () =>
        elsewhere.evaluate(
          ([selector, name]) => document.querySelector(selector)?.textContent.includes(name),
          [at('results'), name],
        ),
      { what: `${name} among what was found` },
    );
  },
);

atLeast(script ? 4 : 3);
