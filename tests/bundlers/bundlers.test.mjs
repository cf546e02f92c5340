// The package as its archive brings it, in the hands of each bundler, with two tabs each.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { atLeast, both, eventually } from '../browser/harness.mjs';
import { installPackage } from './places.mjs';
import * as sites from './sites.mjs';

const closers = [];
let twoBundles;
let viteWithout;
installPackage();

async function started(page) {
  const what = 'the app';
  await eventually(() => page.evaluate(() => globalThis.app !== undefined), { what });
  const failure = await page.evaluate(() => globalThis.app.failure);
  assert.equal(failure, undefined);
  return page;
}

const add = (page, text) => page.evaluate((text) => globalThis.app.add(text), text);
const notes = (page) => page.evaluate(() => globalThis.app.notes());

const SITES = [
  ['a page without a bundler', sites.plainHtml],
  [
    'a page without a bundler, isolated and with Trusted Types',
    sites.plainHtml,
    { isStrict: true },
  ],
  ["Vite's development server", sites.viteDev],
  ['a build by Vite', sites.viteBuild],
  ...[5, 6, 7].flatMap((version) => [
    [`the development server of Vite ${version}`, sites.viteDev, { version }],
    [`a build by Vite ${version}`, sites.viteBuild, { version }],
  ]),
  ['a build by webpack 5', sites.webpack5],
  ['a build by webpack 5, isolated and with Trusted Types', sites.webpack5, { isStrict: true }],
  ['a build by esbuild, with the assets copied', sites.esbuildAndCopiedAssets],
  ['Next.js', sites.nextJs],
  ['the development server of Next.js', sites.nextJs, { isDev: true }],
];

for (const [what, build, options] of SITES) {
  // Built once for both browsers: their origin is the same, and their profiles differ.
  let built;
  both(`${what}: two tabs, a reload, and what was written is there`, async (stage) => {
    built ??= build((close) => closers.push(close), options);
    const origin = await built;
    const open = async () => started(await stage.tab(origin));

    const first = await open();
    await add(first, 'of the first tab');
    const second = await open();
    assert.deepEqual(await notes(second), ['of the first tab']);
    await add(second, 'of the second tab');
    const all = ['of the first tab', 'of the second tab'];
    assert.deepEqual(await notes(first), all);

    await first.reload();
    await started(first);
    assert.deepEqual(await notes(first), all);
    await first.close();
    assert.deepEqual(await notes(second), all, 'the other tab lends the page server now');
    await second.close();

    const third = await open();
    assert.deepEqual(await notes(third), all);
    const { storage, error } = await third.evaluate(() => globalThis.app.status());
    assert.deepEqual({ storage, error }, { storage: 'opfs', error: null });
    const isIsolated = await third.evaluate(() => globalThis.crossOriginIsolated);
    assert.equal(isIsolated, options?.isStrict ?? false);
  });
}

both('Vite 5 without the plugin: what is missing is named', async (stage) => {
  viteWithout ??= sites.viteDev((close) => closers.push(close), { version: 5, isBare: true });
  const page = await stage.tab(await viteWithout);
  const failure = () => page.evaluate(() => globalThis.app?.failure);
  await eventually(failure, { what: 'a failure' });
  assert.match(await failure(), /EngineError.*optimizeDeps: \{ exclude: \['tidelog'\] \}/);
});

both('bundles of two kinds on one site join one core, whichever was first', async (stage) => {
  twoBundles ??= sites.twoBundles((close) => closers.push(close));
  const origin = await twoBundles;
  const written = [];
  for (const order of [
    ['esbuild', 'webpack'],
    ['webpack', 'esbuild'],
  ]) {
    const tabs = [];
    for (const name of order) {
      const tab = await started(await stage.tab(`${origin}/${name}/`));
      tabs.push(tab);
      const text = `by ${name}, tab ${tabs.length}`;
      await add(tab, text);
      written.push(text);
    }
    for (const tab of tabs) assert.deepEqual(await notes(tab), written);
    for (const tab of tabs) await tab.close();
  }
});

atLeast(SITES.length + 1);
after(async () => {
  for (const close of closers) await close();
});
