// What `npm create tidelog` makes: it is installed, its types are right, it is built, and two tabs
// and another device have one list.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before } from 'node:test';
import { TEMPLATES } from '../../create/src/arguments.mjs';
import { atLeast, both, eventually } from '../browser/harness.mjs';
import { answerWhileDeveloping, builtSite, checkTypes, makerOfApps } from './templates.mjs';

const closers = [];
const onEnd = (close) => closers.push(close);

// Made and built once for both browsers, which share its server; before the tests, whose time it
// would take.
const origins = new Map();
before(async () => {
  const maker = makerOfApps(onEnd);
  for (const template of TEMPLATES) origins.set(template, await prepared(maker, template));
});

async function prepared(maker, template) {
  const app = maker.make(template);
  checkTypes(app);
  const [, entry] = readFileSync(path.join(app, 'index.html'), 'utf8').match(/src="([^"]+)"/);
  const answer = await answerWhileDeveloping(app, entry);
  assert.equal(answer.status, 200);
  return builtSite(app, onEnd);
}

const itemsOf = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll('li')].map((item) => ({
      title: item.querySelector('label').textContent.trim(),
      isDone: item.querySelector('input').checked,
    })),
  );

/** Puts a to-do on the list, as somebody does who types it. */
const add = (page, title) =>
  page.evaluate((title) => {
    const field = document.querySelector('input[name=title]');
    field.value = title;
    field.dispatchEvent(new Event('input', { bubbles: true }));
    document.querySelector('form').requestSubmit();
  }, title);

const clickIn = (page, title, selector) =>
  page.evaluate(
    (title, selector) => {
      const items = [...document.querySelectorAll('li')];
      const item = items.find((it) => it.textContent.includes(title));
      item.querySelector(selector).click();
    },
    title,
    selector,
  );

async function shows(page, title, isDone) {
  const find = async () => (await itemsOf(page)).find((item) => item.title === title);
  const isThere = async () => (await find())?.isDone === isDone;
  await eventually(isThere, { what: `${title}, ${isDone ? 'done' : 'to be done'}` });
}

async function opened(page) {
  const hasForm = () => page.evaluate(() => document.querySelector('form') !== null);
  await eventually(hasForm, { what: 'the form' });
  return page;
}

for (const template of TEMPLATES) {
  both(`the template ${template}: two tabs and another device have one list`, async (stage) => {
    const origin = origins.get(template);
    const first = await opened(await stage.tab(origin));
    const second = await opened(await stage.tab(origin));
    const other = await opened(await stage.otherTab(origin));

    const title = `milk in ${stage.kind}`;
    await add(first, title);
    for (const page of [first, second, other]) await shows(page, title, false);
    await clickIn(second, title, 'input');
    for (const page of [first, second, other]) await shows(page, title, true);

    const status = () => first.evaluate(() => document.querySelector('.status').textContent);
    const isConfirmed = async () => (await status()) === 'online, 0 to be confirmed';
    await eventually(isConfirmed, { what: 'the verdicts' });

    await first.evaluate(() => {
      globalThis.alert = (text) => {
        globalThis.told = text;
      };
    });
    await add(first, ' ');
    const isTold = () => first.evaluate(() => globalThis.told?.includes('needs a title'));
    await eventually(isTold, { what: 'the reason of the rejection' });

    await clickIn(other, title, 'button');
    for (const page of [first, second, other]) {
      const isGone = async () => !(await itemsOf(page)).some((item) => item.title === title);
      await eventually(isGone, { what: 'the removal' });
    }
  });
}

atLeast(TEMPLATES.length);
after(async () => {
  for (const close of closers.reverse()) await close();
});
