// The kanban board, as a user sees it: only what is on the page is read.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { at, click, examplesServer, press, statusIs } from './harness/example-page.mjs';
import { atLeast, both, eventually, inRoot } from './harness.mjs';

/** The cards of each lane from top to bottom, with how many comments each has. */
const shownIn = (page) =>
  page.evaluate(() =>
    ['todo', 'doing', 'done']
      .map((lane) => {
        const cards = document.querySelectorAll(`[data-testid="${lane}"] [data-testid="card"]`);
        return [...cards]
          .map((card) => {
            const count = card.querySelector('[data-testid="comment-count"]')?.firstChild;
            const title = card.querySelector('[data-testid="card-title"]').textContent;
            return count ? `${title}(${count.textContent})` : title;
          })
          .join(' ');
      })
      .join(' | '),
  );

async function becomes(ask, wanted) {
  let shown;
  await eventually(
    async () => {
      shown = await ask();
      return shown === wanted;
    },
    { what: `"${wanted}"` },
  ).catch((error) => {
    throw new Error(`${error.message}; the page shows "${shown}"`);
  });
}

const shows = (page, wanted) => becomes(() => shownIn(page), wanted);

const textOf = (page, id) =>
  page.evaluate((selector) => document.querySelector(selector)?.textContent ?? '', at(id));

const says = (page, wanted) => becomes(() => textOf(page, 'said'), wanted);

/** The fields of a lane and of the card that is open. */
const addTo = (lane) => `#${lane}-add`;
const TITLE = 'input[aria-label^="Title of"]';
const COMMENT = 'input[aria-label^="New comment on"]';

async function add(page, lane, ...titles) {
  await page.focus(addTo(lane));
  for (const title of titles) await press(page, [title], 'Enter');
}

/** What belongs to the card with this title. */
async function partOf(page, title, id) {
  const found = await page.evaluateHandle(
    (title, selector) => {
      const isOf = (card) => card.querySelector('[data-testid="card-title"]').textContent === title;
      const card = [...document.querySelectorAll('[data-testid="card"]')].find(isOf);
      return selector ? card?.querySelector(selector) : card;
    },
    title,
    id && at(id),
  );
  const element = found.asElement();
  assert.ok(element, `${title} has ${id ?? 'a card'}`);
  return element;
}

async function centreOf(element) {
  const { x, y, width, height } = await element.boundingBox();
  return { x: x + width / 2, y: y + height / 2 };
}

/** Drags a card by its handle to `to`, which is ahead of a card or the name of a lane. */
async function drag(page, title, { aheadOf, lane }) {
  await page.bringToFront();
  const from = await centreOf(await partOf(page, title, 'handle'));
  const target = aheadOf ? await partOf(page, aheadOf) : await page.$(addTo(lane));
  const to = await centreOf(target);
  await page.mouse.move(from.x, from.y);
  await page.mouse.down();
  await page.mouse.move(to.x, to.y - 8, { steps: 6 });
  await page.mouse.up();
}

const focusHandle = async (page, title) => (await partOf(page, title, 'handle')).focus();

const openCard = async (page, title) =>
  (await partOf(page, title, 'card-title')).evaluate((it) => it.click());

/** The name of what has the focus, as those hear it who do not see it. */
const focused = (page) =>
  page.evaluate(() => {
    const { activeElement: it } = document;
    return it.getAttribute('aria-label') ?? it.textContent;
  });

const pendingOf = (page) =>
  page.evaluate((selector) => document.querySelector(selector).dataset.pending, at('status'));

async function goOffline(page) {
  await click(page, 'offline-toggle');
  await statusIs(page, { connection: 'offline' });
}

async function goOnline(page) {
  await click(page, 'offline-toggle');
  await statusIs(page, { connection: 'online', pending: 0 });
}

const boardOf = (stage, server) => `${server.http}/kanban-react/?board=${stage.document}`;

both('two tabs and another device show the same cards and comments', async (stage) => {
  const board = boardOf(stage, await examplesServer(stage));
  const pages = [await stage.tab(board), await stage.tab(board), await stage.otherTab(board)];
  const [one, two, elsewhere] = pages;
  for (const page of pages) await statusIs(page, { connection: 'online' });
  assert.match(await textOf(one, 'empty'), /An empty board/);
  await add(one, 'todo', 'report', 'milk', 'fence');
  for (const page of pages) await shows(page, 'report milk fence |  | ');
  assert.equal(await textOf(one, 'empty'), '');
  await add(elsewhere, 'doing', 'tap');
  for (const page of pages) await shows(page, 'report milk fence | tap | ');

  await openCard(two, 'milk');
  await two.focus(COMMENT);
  await press(two, ['the one with oats'], 'Enter');
  for (const page of pages) await shows(page, 'report milk(1) fence | tap | ');
  await openCard(elsewhere, 'milk');
  await becomes(async () => /the one with oats/.test(await textOf(elsewhere, 'comment')), true);
  await two.focus(TITLE);
  await press(two, 'End', [' and bread'], 'Enter');
  for (const page of pages) await shows(page, 'report milk and bread(1) fence | tap | ');
});

both('cards are dragged within a lane and to another one', async (stage) => {
  const board = boardOf(stage, await examplesServer(stage));
  const [one, two] = [await stage.tab(board), await stage.tab(board)];
  await statusIs(one, { connection: 'online' });
  await add(one, 'todo', 'a', 'b', 'c');
  await add(one, 'done', 'x', 'y');
  await shows(one, 'a b c |  | x y');
  await drag(one, 'c', { aheadOf: 'a' });
  for (const page of [one, two]) await shows(page, 'c a b |  | x y');
  await drag(one, 'c', { lane: 'todo' });
  for (const page of [one, two]) await shows(page, 'a b c |  | x y');
  await drag(one, 'b', { aheadOf: 'y' });
  for (const page of [one, two]) await shows(page, 'a c |  | x b y');
  await drag(one, 'a', { lane: 'doing' });
  for (const page of [one, two]) await shows(page, 'c | a | x b y');

  // By its title, out and back again, which would open it if it were a click.
  const title = await centreOf(await partOf(one, 'c', 'card-title'));
  await one.mouse.move(title.x, title.y);
  await one.mouse.down();
  await one.mouse.move(title.x + 30, title.y, { steps: 3 });
  await one.waitForSelector('[data-dragged]');
  await one.mouse.move(title.x, title.y, { steps: 3 });
  await one.mouse.up();
  await add(one, 'doing', 'z');
  await shows(one, 'c | a z | x b y');
  assert.equal(await one.$(TITLE), null, 'the end of a drag opens no card');
  await one.mouse.click(title.x, title.y);
  await one.waitForSelector(TITLE);

  await one.reload();
  await shows(one, 'c | a z | x b y');
});

both('a drag that is given up leaves the card where it was', async (stage) => {
  const page = await stage.tab(boardOf(stage, await examplesServer(stage)));
  await statusIs(page, { connection: 'online' });
  await add(page, 'todo', 'a', 'b');
  await shows(page, 'a b |  | ');
  const from = await centreOf(await partOf(page, 'b', 'handle'));
  const to = await centreOf(await partOf(page, 'a'));
  await page.mouse.move(from.x, from.y);
  await page.mouse.down();
  await page.mouse.move(to.x, to.y - 8, { steps: 4 });
  await page.waitForSelector('[data-dragged]');
  await page.keyboard.press('Escape');
  await page.mouse.up();
  assert.equal(await page.$('[data-dragged]'), null);
  await add(page, 'done', 'later');
  await shows(page, 'a b |  | later');
});

both('two offline devices put cards into one gap, and agree on the order', async (stage) => {
  const board = boardOf(stage, await examplesServer(stage));
  const pages = [await stage.tab(board), await stage.otherTab(board)];
  const [one, elsewhere] = pages;
  for (const page of pages) await statusIs(page, { connection: 'online' });
  await add(one, 'todo', 'first', 'last');
  await add(one, 'done', 'a', 'b');
  for (const page of pages) await shows(page, 'first last |  | a b');
  for (const page of pages) await goOffline(page);
  await drag(one, 'a', { aheadOf: 'last' });
  await shows(one, 'first a last |  | b');
  await add(one, 'doing', 'this');
  await shows(one, 'first a last | this | b');
  await drag(elsewhere, 'b', { aheadOf: 'last' });
  await shows(elsewhere, 'first b last |  | a');
  await add(elsewhere, 'doing', 'that');
  await shows(elsewhere, 'first b last | that | a');
  for (const page of pages) await goOnline(page);

  await becomes(async () => (await shownIn(one)).length, 'first a b last | this that | '.length);
  const shown = await shownIn(one);
  assert.match(shown, /^first (a b|b a) last \| (this that|that this) \| $/);
  await shows(elsewhere, shown);
  // Nor do they stand in one place: there is room between them.
  await add(one, 'done', 'c');
  const [, , second] = shown.split(' ');
  await becomes(async () => (await shownIn(one)).endsWith('| c'), true);
  await drag(one, 'c', { aheadOf: second });
  const between = shown.replace(` ${second} last`, ` c ${second} last`);
  for (const page of pages) await shows(page, between);
});

both('cards are moved with the keyboard alone, and the focus goes along', async (stage) => {
  const page = await stage.tab(boardOf(stage, await examplesServer(stage)));
  await statusIs(page, { connection: 'online' });
  await add(page, 'todo', 'a', 'b');
  await add(page, 'doing', 'x');
  await shows(page, 'a b | x | ');
  await focusHandle(page, 'a');
  for (const [key, board, said] of [
    ['ArrowDown', 'b a | x | ', 'To do, 2 of 2'],
    ['ArrowRight', 'b | x a | ', 'Doing, 2 of 2'],
    ['ArrowUp', 'b | a x | ', 'Doing, 1 of 2'],
    ['ArrowRight', 'b | x | a', 'Done, 1 of 1'],
    ['ArrowLeft', 'b | a x | ', 'Doing, 1 of 2'],
  ]) {
    await press(page, key);
    await shows(page, board);
    await says(page, `Moved “a” to ${said}`);
    assert.equal(await focused(page), 'Move “a”');
  }
  // The same by the buttons of an open card, which stays open.
  await press(page, 'Tab', 'Enter');
  await page.focus(at('ArrowLeft'));
  await press(page, 'Enter');
  await shows(page, 'a b | x | ');
  assert.equal(await focused(page), 'Nothing on this side');
  await page.focus(at('remove'));
  await press(page, 'Enter');
  await shows(page, 'b | x | ');
  assert.equal(await focused(page), 'b', 'and goes to a neighbour when its card goes');
});

both('deeds that come faster than the board is drawn keep their order', async (stage) => {
  const page = await stage.tab(boardOf(stage, await examplesServer(stage)));
  await statusIs(page, { connection: 'online' });
  const titles = [...'abcdef'];
  // In one task, so that no news of the document can come between.
  await page.evaluate(
    async (field, titles) => {
      const input = document.querySelector(field);
      const { set } = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value');
      for (const title of titles) {
        set.call(input, title);
        input.dispatchEvent(new Event('input', { bubbles: true }));
        await null;
        input.form.requestSubmit();
        await null;
      }
    },
    addTo('todo'),
    titles,
  );
  await shows(page, 'a b c d e f |  | ');
  await (await partOf(page, 'a', 'handle')).evaluate(async (handle) => {
    for (let presses = 0; presses < 3; presses++) {
      handle.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowDown', bubbles: true }));
      await null;
    }
  });
  await shows(page, 'b a c d e f |  | ');
  await says(page, 'Moved “a” to To do, 2 of 6');
  await click(page, 'undo');
  await shows(page, 'a b c d e f |  | ');
  await click(page, 'undo');
  await shows(page, 'a b c d e |  | ');
});

both('undo takes back the deeds of this tab, the newest first', async (stage) => {
  const board = boardOf(stage, await examplesServer(stage));
  const [one, two] = [await stage.tab(board), await stage.tab(board)];
  await statusIs(one, { connection: 'online' });
  await add(one, 'todo', 'a', 'b');
  await shows(two, 'a b |  | ');
  await add(two, 'done', 'x');
  await shows(one, 'a b |  | x');
  await drag(one, 'a', { lane: 'doing' });
  await shows(one, 'b | a | x');
  await openCard(one, 'a');
  await one.focus(COMMENT);
  await press(one, ['why'], 'Enter');
  await shows(one, 'b | a(1) | x');
  await one.focus(TITLE);
  await press(one, 'End', ['!'], 'Enter');
  await shows(one, 'b | a!(1) | x');
  await click(one, 'remove');
  for (const page of [one, two]) await shows(page, 'b |  | x');

  for (const [board, said] of [
    ['b | a!(1) | x', 'Removed “a!”'],
    ['b | a(1) | x', 'Renamed “a” to “a!”'],
    ['b | a | x', 'Commented on “a”'],
    ['a b |  | x', 'Moved “a” to Doing, 1 of 1'],
    ['a |  | x', 'Added “b” to To do'],
  ]) {
    await one.focus(at('undo'));
    await press(one, 'Enter');
    for (const page of [one, two]) await shows(page, board);
    await says(one, `Undone: ${said}`);
  }
  await one.keyboard.down('Control');
  await one.keyboard.press('z');
  await one.keyboard.up('Control');
  for (const page of [one, two]) await shows(page, ' |  | x');
  await click(one, 'undo');
  await click(two, 'undo');
  for (const page of [one, two]) await shows(page, ' |  | ');
});

both('undo leaves alone what somebody else has done since', async (stage) => {
  const board = boardOf(stage, await examplesServer(stage));
  const pages = [await stage.tab(board), await stage.otherTab(board)];
  const [one, elsewhere] = pages;
  for (const page of pages) await statusIs(page, { connection: 'online' });
  await add(one, 'todo', 'a');
  for (const page of pages) await shows(page, 'a |  | ');
  await drag(one, 'a', { lane: 'doing' });
  await shows(elsewhere, ' | a | ');
  await drag(elsewhere, 'a', { lane: 'done' });
  for (const page of pages) await shows(page, ' |  | a');
  await click(one, 'undo');
  await says(one, 'Not taken: this card was moved meanwhile');
  for (const page of pages) await shows(page, ' |  | a');
});

both('what the server undoes is told to whoever did it, and until it is read', async (stage) => {
  const board = boardOf(stage, await examplesServer(stage));
  const pages = [await stage.tab(board), await stage.otherTab(board)];
  const [one, elsewhere] = pages;
  for (const page of pages) await statusIs(page, { connection: 'online' });
  await add(one, 'todo', 'a', 'b');
  await shows(elsewhere, 'a b |  | ');
  for (const page of pages) await goOffline(page);
  await openCard(one, 'a');
  await click(one, 'remove');
  await openCard(elsewhere, 'a');
  await elsewhere.focus(TITLE);
  await press(elsewhere, 'End', ['!'], 'Enter');
  await shows(elsewhere, 'a! b |  | ');
  await goOnline(one);
  await goOnline(elsewhere);
  for (const page of pages) await shows(page, 'b |  | ');
  await becomes(
    async () => /rename a!.*was removed meanwhile/.test(await textOf(elsewhere, 'rejection')),
    true,
  );
  assert.equal(await textOf(one, 'rejection'), '');
  await elsewhere.evaluate(() => document.querySelector('[aria-label="Dismiss"]').click());
  await becomes(() => textOf(elsewhere, 'rejection'), '');
});

both('work without a server outlives a reload, and is confirmed once it is back', async (stage) => {
  const server = await stage.server();
  const site = await stage.ownSite({
    folders: { '/kanban/': inRoot('examples/kanban-react/dist') },
  });
  const board = site.url(`/kanban/?server=${server.ws}&board=${stage.document}`);
  const page = await stage.tab(board);
  await statusIs(page, { connection: 'online' });
  await add(page, 'todo', 'a', 'b');
  await shows(page, 'a b |  | ');
  await statusIs(page, { pending: 0 });
  await server.stop();
  await statusIs(page, { connection: 'offline' });
  await add(page, 'doing', 'c');
  await shows(page, 'a b | c | ');
  await drag(page, 'b', { aheadOf: 'a' });
  await shows(page, 'b a | c | ');
  await says(page, 'Moved “b” to To do, 1 of 2');
  await page.reload();
  await shows(page, 'b a | c | ');
  assert.equal(await pendingOf(page), '2');

  await server.start();
  await statusIs(page, { connection: 'online', pending: 0 });
  const elsewhere = await stage.otherTab(board);
  await shows(elsewhere, 'b a | c | ');
});

test('the board is at most 300 lines, beside its style and what all examples share', () => {
  const folder = inRoot('examples/kanban-react');
  const names = readdirSync(folder, { recursive: true });
  const sources = names.filter(
    (it) => /\.(tsx?|html)$/.test(it) && !/^(dist|node_modules)/.test(it),
  );
  const lines = sources.map(
    (it) => readFileSync(path.join(folder, it), 'utf8').split('\n').length - 1,
  );
  const count = lines.reduce((sum, it) => sum + it, 0);
  assert.ok(sources.length >= 7, `${sources.length} files are not all`);
  assert.ok(count <= 300, `${count} lines in ${sources.join(', ')}`);
});

atLeast(10);
