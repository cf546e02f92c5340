// The music shop, as a user sees it: only what is on the page is read.

import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { at, click, examplesServer, press, statusIs } from './harness/example-page.mjs';
import {
  atLeast,
  both,
  contentOf,
  contentOfSql,
  eventually,
  realData,
  startSite,
} from './harness.mjs';

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
  page.evaluate((selector) => ({ ...document.querySelector(selector)?.dataset }), at('app'));

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

/** The texts of what a selector finds. */
const texts = (page, selector) =>
  page.evaluate(
    (selector) => [...document.querySelectorAll(selector)].map((found) => found.textContent),
    selector,
  );

const showsText = (page, selector, wanted) =>
  eventually(async () => (await texts(page, selector)).some((text) => wanted.test(text)), {
    what: `${wanted} in ${selector}`,
  });

both('music and invoices are edited in one profile and change in another', async (stage) => {
  const server = await examplesServer(stage);
  const shop = `${server.http}/music/?shop=${stage.document}`;
  const one = await stage.tab(shop);
  await one.waitForSelector(at('import-small'));
  // Whatever the progress said while it was there.
  await one.evaluate(() => {
    globalThis.said = [];
    new MutationObserver(() => {
      const label = document.querySelector('[data-testid="import-label"]');
      const bar = document.querySelector('[data-testid="import"] progress');
      if (label) globalThis.said.push(`${label.textContent} ${bar.value}`);
    }).observe(document.body, { childList: true, subtree: true, characterData: true });
  });
  await click(one, 'import-small');
  await imported(one);
  const said = await one.evaluate(() => globalThis.said);
  assert.ok(
    said.some((text) => /^\d+ rows? of \d+ · Track/.test(text)),
    said.join('; '),
  );

  const elsewhere = await stage.otherTab(shop);
  await showsCounts(elsewhere, await countsIn(one));
  await one.focus(`${at('artist')} .row-main`);
  await press(one, 'F2', ['The Renamed'], 'Enter');
  for (const page of [one, elsewhere]) await showsText(page, at('artist'), /The Renamed/);

  await one.focus(`${at('artist')} .row-main`);
  await press(one, 'Delete');
  const told = await one.waitForSelector(`${at('toast')}[data-kind="rejected"]`);
  assert.match(await told.evaluate((toast) => toast.textContent), /Could not remove artist/);

  // The second one's first invoice, while both look at it.
  for (const page of [one, elsewhere]) {
    await click(page, 'tab-invoices');
    await page.waitForSelector(`${at('invoice-row')} a`);
    await page.evaluate((row) => document.querySelector(`${row} a`).click(), at('invoice-row'));
    await page.waitForSelector(at('quantity'));
  }
  const [quantity] = await texts(one, at('quantity'));
  const [total] = await texts(one, at('total'));
  await elsewhere.evaluate(
    (line) => document.querySelector(`${line} [aria-label="One more"]`).click(),
    at('line'),
  );
  await showsText(one, at('quantity'), new RegExp(`^${Number(quantity) + 1}$`));
  assert.notEqual((await texts(one, at('total')))[0], total, 'the sum follows');
});

// Each comes with workers of its own, and the site has one store.
both(
  'both examples work in one browser at once, and go on when either is closed',
  async (stage) => {
    const server = await examplesServer(stage);
    const todo = await stage.tab(`${server.http}/todo/?list=${stage.document}`);
    await statusIs(todo, { connection: 'online', pending: 0 });
    const music = await stage.tab(`${server.http}/music/?shop=${stage.document}`);
    await statusIs(music, { connection: 'online', pending: 0 });
    await todo.close();
    await statusIs(music, { connection: 'online', pending: 0 });
    const again = await stage.tab(`${server.http}/todo/?list=${stage.document}`);
    await statusIs(again, { connection: 'online', pending: 0 });
  },
);

atLeast(script ? 4 : 3);
