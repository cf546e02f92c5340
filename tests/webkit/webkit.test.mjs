// What of the promise WebKit keeps, as Debian builds it: it has SharedWorkers and locks, but no
// files, so the store is kept in IndexedDB.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startServer } from '../browser/harness/tidelog-server.mjs';
import {
  contentOf,
  eventually,
  exportFrom,
  mutateIn,
  openIn,
  ready,
  reload,
  rowsIn,
  startSite,
  statusIn,
  syncIn,
} from '../browser/harness.mjs';
import { startDisplay, WebKit, WebKitDevice } from './webkit.mjs';

const KILLS = 5;

let arrived = () => {};
let display;
let site;
let server;

before(async () => {
  display = await startDisplay();
  site = await startSite({ onReport: (report) => arrived(report) });
  server = await startServer();
});

after(async () => {
  await server?.dispose();
  await site?.close();
  display?.close();
});

/** A browser of this test alone. */
async function browserOf(t) {
  const webkit = await WebKit.launch(display);
  t.after(() => webkit.dispose());
  return webkit;
}

async function tabOf(webkit) {
  const tab = await webkit.open(site.url('/app.html'));
  await ready(tab);
  return tab;
}

async function add(tab, id, stage) {
  const { error } = await mutateIn(tab, 'add', { id, title: `title of ${id}` }, stage);
  assert.equal(error, undefined, error?.message);
}

const ids = async (tab) =>
  (await rowsIn(tab, 'select id from item order by id')).map(({ id }) => id);

test('two tabs share a document, and it outlives a reload and either of them', async (t) => {
  const webkit = await browserOf(t);
  const options = { document: 'shared' };
  const first = await tabOf(webkit);
  await openIn(first, 'list', options);
  await add(first, 'a');
  const second = await tabOf(webkit);
  await openIn(second, 'list', options);
  assert.deepEqual(await ids(second), ['a']);
  await add(second, 'b');
  assert.deepEqual(await ids(first), ['a', 'b']);
  await reload(first);
  await openIn(first, 'list', options);
  await add(first, 'c');
  await first.close();
  assert.deepEqual(await ids(second), ['a', 'b', 'c']);
  await add(second, 'd');
  const { storage, engine, error } = await statusIn(second);
  assert.deepEqual(
    { storage, engine, error },
    { storage: 'indexeddb', engine: 'shared-worker', error: null },
  );
  assert.deepEqual(await second.evaluate(() => globalThis.unhandled), []);
});

test('two devices and the server come to the same, also after the server was away', async (t) => {
  const options = { document: 'synced', server: server.ws };
  const [here, there] = [await browserOf(t), await browserOf(t)];
  const [tab, elsewhere] = [await tabOf(here), await tabOf(there)];
  for (const each of [tab, elsewhere]) await openIn(each, 'list', options);
  await add(tab, 'a', 'confirmed');
  assert.equal(await syncIn(elsewhere), null);
  assert.deepEqual(await ids(elsewhere), ['a']);
  await server.kill();
  await add(tab, 'b');
  await add(elsewhere, 'c');
  await server.start();
  for (const each of [tab, elsewhere, tab]) assert.equal(await syncIn(each), null);
  const copy = contentOf(await server.export('synced'));
  assert.equal(copy.tables.item.length, 3);
  for (const each of [tab, elsewhere]) assert.deepEqual(contentOf(await exportFrom(each)), copy);
});

test('a browser that is killed finds what it called durable', async (t) => {
  const device = new WebKitDevice(display);
  t.after(() => device.dispose());
  const expected = [];
  for (let round = 1; round <= KILLS; round += 1) {
    let report;
    arrived = (body) => {
      report = body;
    };
    const query = new URLSearchParams({ document: 'killed', server: server.ws, round });
    device.launchAt(site.url(`kill.html?${query}`));
    await eventually(() => report, { withinMs: 30_000, what: `the report of round ${round}` });
    await device.kill();
    assert.equal(report.error, undefined);
    assert.deepEqual(report.found, [expected, expected], `round ${round} finds all before it`);
    expected.push(`round ${round}`);
  }
});
