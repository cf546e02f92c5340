// The hooks of each framework, as its own compiler and its own development server have them.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { atLeast, both, eventually } from '../browser/harness.mjs';
import { installPackage } from './places.mjs';
import * as sites from './sites.mjs';

const closers = [];
const onEnd = (close) => closers.push(close);
installPackage();

const textOf = (page, selector) =>
  page.evaluate((selector) => document.querySelector(selector)?.textContent, selector);
const textsOf = (page, selector) =>
  page.evaluate(
    (selector) => [...document.querySelectorAll(selector)].map((it) => it.textContent),
    selector,
  );
const click = (page) => page.evaluate(() => document.querySelector('button').click());

async function shows(page, texts) {
  const isThere = async () =>
    (await textOf(page, '#state')) === 'ready' &&
    (await textOf(page, '#connection')) === 'local' &&
    (await textOf(page, '#count')) === String(texts.length) &&
    (await textsOf(page, 'li')).join() === texts.join();
  await eventually(isThere, { what: `a list of ${texts.length}` });
}

for (const [name, site] of Object.entries(sites.frameworks)) {
  let served;
  both(`${name}: two tabs show the same, and what either adds`, async (stage) => {
    served ??= site(onEnd);
    const { origin, setTitle } = await served;
    const [first, second] = [await stage.tab(origin), await stage.tab(origin)];
    await shows(first, []);
    await shows(second, []);
    await click(first);
    await shows(first, ['note 0']);
    await shows(second, ['note 0']);
    await click(second);
    await shows(first, ['note 0', 'note 1']);
    await shows(second, ['note 0', 'note 1']);

    // What is edited while the app runs replaces its component, and nothing that the app has.
    await first.evaluate(() => {
      globalThis.isTheSame = true;
    });
    setTitle(`Notes in ${stage.kind}`);
    const isNew = async () => (await textOf(first, 'h1')) === `Notes in ${stage.kind}`;
    await eventually(isNew, { what: 'the new title' });
    await click(first);
    for (const page of [first, second]) await shows(page, ['note 0', 'note 1', 'note 2']);
    assert.equal(await first.evaluate(() => globalThis.isTheSame), true, 'it was not reloaded');
  });
}

let next;
both('Next.js: a server renders that it is loading, and the page goes on', async (stage) => {
  next ??= sites.nextJs(onEnd);
  const address = `${await next}/hooks`;
  const answer = await fetch(address);
  assert.equal(answer.status, 200);
  const html = await answer.text();
  assert.match(html, /id="state"[^>]*>loading</);
  assert.match(html, />waiting</);
  const page = await stage.tab(address);
  const has = (state, count) => async () =>
    (await textOf(page, '#state')) === state && (await textOf(page, '#count')) === count;
  await eventually(has('ready', '0'), { what: 'an empty list' });
  await click(page);
  await eventually(has('ready', '1'), { what: 'a list of one' });
});

atLeast(Object.keys(sites.frameworks).length + 1);
after(async () => {
  for (const close of closers) await close();
});
