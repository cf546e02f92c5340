// What keeps the data: files or IndexedDB, how safe, full, and cleared by somebody.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  atLeast,
  both,
  contentOf,
  eventually,
  exportFrom,
  freePort,
  inRoot,
  mutateIn,
  openIn,
  Reports,
  reload,
  rowsIn,
  sleep,
  statusBecomes,
  statusIn,
  syncIn,
  tabWithRoom,
  tryOpen,
} from './harness.mjs';

/** The package's worker in a window whose workers are given no files. */
const NO_FILES = { workerUrl: '/pages/no-files-worker.mjs' };

/** A tab in a window without files, and the options of `open` that belong to it: in Firefox a
 * private window, as users have it; in Chromium, which has no such windows, workers that are
 * refused. */
async function tabWithoutFiles(stage) {
  if (stage.kind === 'Chromium') return { open: () => stage.tab(), options: NO_FILES };
  const device = await stage.ownDevice({ isPrivate: true }).launch();
  return { open: () => stage.tabOf(device), options: {} };
}

/** All ids, in order. */
const idsIn = async (tab) =>
  (await rowsIn(tab, 'select id from item order by id')).map((it) => it.id);

const numbered = (count) =>
  Array.from({ length: count }, (_, n) => `i${String(n).padStart(4, '0')}`);

/** Issues as many at once, and waits until all are durable. */
const addMany = (tab, ids) =>
  tab.evaluate((ids) => Promise.all(ids.map((id) => kept.db.mutate.add({ id, title: id }))), ids);

both('a window without files keeps its data in IndexedDB, says so, and syncs', async (stage) => {
  const { open, options } = await tabWithoutFiles(stage);
  const server = await stage.server();
  const synced = { ...options, document: stage.document, server: server.ws };
  const tab = await open();
  await openIn(tab, 'list', { ...options, document: `${stage.document}-local` }, 'local');
  await openIn(tab, 'list', synced);
  const status = await statusBecomes(tab, { storage: 'indexeddb', connection: 'online' });
  assert.equal(status.error, null);
  const ids = numbered(300);
  await addMany(tab, ids);
  await mutateIn(tab, 'add', { id: 'a', title: 'a' }, 'durable', 'local');

  // The same store for every tab; the core that has it survives the tab that asked first.
  const other = await open();
  await openIn(other, 'list', synced);
  assert.deepEqual(await idsIn(other), ids);
  await tab.close();
  await mutateIn(other, 'add', { id: 'z', title: 'z' });
  assert.equal(await syncIn(other), null);
  assert.equal((await statusIn(other)).storage, 'indexeddb');

  // Nobody holds it for a moment, and nothing but the database can know.
  await server.stop();
  await reload(other);
  await openIn(other, 'list', synced);
  assert.deepEqual(await idsIn(other), [...ids, 'z']);
  await openIn(other, 'list', { ...options, document: `${stage.document}-local` }, 'local');
  assert.deepEqual(await rowsIn(other, 'select id from item', 'local'), [{ id: 'a' }]);
  assert.equal((await statusIn(other, 'local')).storage, 'indexeddb');
  const names = await other.evaluate(async () =>
    (await indexedDB.databases()).map((it) => it.name),
  );
  assert.deepEqual(names, ['tidelog']);
});

both('a store in IndexedDB outgrows its log and is found again', async (stage) => {
  const { open, options } = await tabWithoutFiles(stage);
  const tab = await open();
  await openIn(tab, 'list', { ...options, document: stage.document });
  // Each is more than a megabyte, and the log changes over at 16.
  for (let n = 0; n < 24; n += 1) {
    const { error } = await tab.evaluate(
      (id) => outcome(kept.db.mutate.add({ id, title: id.repeat(300_000) })),
      String(n).padStart(4, '0'),
    );
    assert.equal(error, undefined);
  }
  await reload(tab);
  await openIn(tab, 'list', { ...options, document: stage.document });
  const [{ whole }] = await rowsIn(
    tab,
    `select sum(title = replace(hex(zeroblob(300000)), '00', id)) as whole from item`,
  );
  assert.equal(whole, 24);
});

const keepsBlocks = async (stage) => {
  const reports = new Reports();
  const site = await stage.ownSite(reports);
  const device = stage.ownDevice();
  const server = `ws://127.0.0.1:${await freePort()}`;
  const expected = [];
  for (let round = 1; round <= 8; round += 1) {
    const query = { document: stage.document, server, round, worker: NO_FILES.workerUrl };
    const url = site.url(`kill.html?${new URLSearchParams(query)}`);
    const report = await reports.of(device, url);
    await device.kill();
    assert.equal(report.error, undefined, `round ${round}: ${report.error}`);
    assert.deepEqual(report.found, [expected, expected], `round ${round} finds all before it`);
    expected.push(`round ${round}`);
  }
};

both('SIGKILL of the whole browser keeps what was durable in IndexedDB', keepsBlocks, {
  timeout: 400_000,
});

both(
  'files that were just made are settling, and say when they are not any more',
  async (stage) => {
    const SETTLING_MS = 45_000;
    // Another origin each, since a file's age is that of the origin's first document.
    for (const options of [{}, NO_FILES]) {
      const site = await stage.ownSite();
      const began = Date.now();
      const tab = await stage.tab(site.url('app.html'));
      const opened = () => openIn(tab, 'list', { ...options, document: stage.document });
      await opened();
      await mutateIn(tab, 'add', { id: 'a', title: 'a' });
      const { settling, storage } = await statusBecomes(tab, { connection: 'local' });
      assert.equal(storage, options === NO_FILES ? 'indexeddb' : 'opfs');
      assert.equal(settling, stage.kind === 'Chromium', 'only Chromium does not sync names');
      if (!settling) continue;
      await reload(tab);
      await opened();
      await mutateIn(tab, 'add', { id: 'b', title: 'b' });
      assert.equal((await statusIn(tab)).settling, true, 'their age is not that of the core');
      if (options === NO_FILES) continue;
      await tab.evaluate(
        (ms) => whenStatus(kept.db, (status) => !status.settling, ms),
        SETTLING_MS + 15_000,
      );
      const took = Date.now() - began;
      assert.ok(took >= SETTLING_MS - 1000, `settled after ${took} ms`);
      await reload(tab);
      await opened();
      await mutateIn(tab, 'add', { id: 'c', title: 'c' });
      assert.equal((await statusIn(tab)).settling, false);
    }
  },
);

for (const options of [{}, NO_FILES]) {
  const where = options === NO_FILES ? 'IndexedDB' : 'files';
  both(
    `data in ${where} that are cleared in use are missed, and nothing is taken for kept`,
    async (stage) => {
      const site = await stage.ownSite();
      const tab = await stage.tab(site.url('app.html'));
      const document = { ...options, document: stage.document };
      await openIn(tab, 'list', document);
      const ids = numbered(50);
      await addMany(tab, ids);
      await tab.evaluate(() => {
        kept.errors = [];
        kept.db.on('error', (error) => kept.errors.push(error.name));
      });
      const began = performance.now();
      await tab.evaluate(() => fetch('/clear-site-data'));
      const { error, storage } = await statusBecomes(tab, { error: 'StorageError' });
      stage.note(`noticed after ${Math.round(performance.now() - began)} ms`);
      assert.match(error.message, /cleared/);
      assert.equal(storage, 'waiting');
      assert.deepEqual([...new Set(await tab.evaluate(() => kept.errors))], ['StorageError']);
      const late = await mutateIn(tab, 'add', { id: 'late', title: 'late' });
      assert.match(late.error?.name ?? 'durable', /^(StorageError|NotDurableYetError)$/);

      // What is shown can still be saved.
      const file = contentOf(await exportFrom(tab));
      assert.equal(file.tables.item.filter((row) => !row.includes('late')).length, ids.length);

      // Loading the page begins anew.
      await reload(tab);
      await eventually(async () => (await tryOpen(tab, 'list', document)) === null, {
        everyMs: 300,
        what: 'a new store',
      });
      assert.deepEqual(await idsIn(tab), []);
      await mutateIn(tab, 'add', { id: 'new', title: 'new' });
      await reload(tab);
      await openIn(tab, 'list', document);
      assert.deepEqual(await idsIn(tab), ['new']);
    },
  );
}

/** Text that nothing makes shorter: a browser compresses what it keeps in its database. */
const addNoise = (tab, id) =>
  tab.evaluate((id) => {
    const noise = () => base64(crypto.getRandomValues(new Uint8Array(65_536)));
    const title = noise() + noise();
    return outcome(kept.db.mutate.add({ id, title }));
  }, id);

both('a full device is said, loses nothing, and is forgotten once there is room', async (stage) => {
  const site = await stage.ownSite();
  const { tab, leave } = await tabWithRoom(stage, site);
  const options = { document: stage.document };
  await openIn(tab, 'list', options);
  await mutateIn(tab, 'add', { id: 'first', title: 'first' });
  await leave(500_000);
  const kept = ['first'];
  let failure;
  for (let n = 0; n < 40 && !failure; n += 1) {
    const { error } = await addNoise(tab, `n${n}`);
    if (error) failure = error;
    else kept.push(`n${n}`);
  }
  assert.equal(failure?.name, 'StorageFullError');
  assert.equal(failure.outcome, 'none');
  await eventually(async () => (await statusIn(tab)).error?.name === 'StorageFullError');
  assert.deepEqual((await idsIn(tab)).sort(), kept.sort());

  await leave();
  kept.push('again');
  await eventually(async () => !(await addNoise(tab, 'again')).error, { what: 'room' });
  // The page server tells of the mutation by itself, the core of the status.
  await eventually(async () => (await statusIn(tab)).error === null, {
    what: 'a status without it',
  });
  await reload(tab);
  await openIn(tab, 'list', options);
  assert.deepEqual((await idsIn(tab)).sort(), kept.sort());
});

both('a store that there is no room to make is tried again without haste', async (stage) => {
  const site = await stage.ownSite();
  const { tab, leave } = await tabWithRoom(stage, site);
  const options = { document: stage.document };
  await leave(stage.kind === 'Chromium' ? -1e12 : 0);
  let started = 0;
  tab.on('workercreated', () => {
    started += 1;
  });
  await reload(tab);
  started = 0;
  const refused = await eventually(async () => (await tryOpen(tab, 'list', options)) ?? null, {
    everyMs: 200,
    what: 'an error',
  });
  assert.equal(refused.name, 'StorageFullError');
  await sleep(6000);
  assert.ok(started > 0 && started <= 6, `${started} page servers in 6 s`);
  assert.equal((await tryOpen(tab, 'list', options)).name, 'StorageFullError');
  await leave();
  await eventually(async () => (await tryOpen(tab, 'list', options)) === null, {
    everyMs: 200,
    what: 'room',
  });
  assert.equal((await statusIn(tab)).error, null);
  assert.deepEqual(await idsIn(tab), []);
  assert.equal((await mutateIn(tab, 'add', { id: 'again', title: 'again' })).error, undefined);
  stage.note(`${started} page servers while it was full`);
});

both('a store on a device that is full is opened and read', async (stage) => {
  // In Firefox no room can be taken from a store that is there.
  if (stage.kind !== 'Chromium') return;
  const { tab, leave } = await tabWithRoom(stage, await stage.ownSite());
  const options = { document: stage.document };
  await openIn(tab, 'list', options);
  await mutateIn(tab, 'add', { id: 'first', title: 'first' });
  await leave(-1e12);
  await reload(tab);
  await openIn(tab, 'list', options);
  assert.deepEqual(await idsIn(tab), ['first']);
  await leave();
  await eventually(
    async () => (await mutateIn(tab, 'add', { id: 'again', title: 'again' })).error === undefined,
    { everyMs: 200, what: 'room' },
  );
  assert.deepEqual(await idsIn(tab), ['again', 'first']);
});

both('a database without room takes what waits once there is room', async (stage) => {
  const site = await stage.ownSite();
  const { tab, leave } = await tabWithRoom(stage, site);
  const options = { ...NO_FILES, document: stage.document };
  // Before the database is there: the browser believes for a while what it found out once.
  await leave(600_000);
  await openIn(tab, 'list', options);
  await mutateIn(tab, 'add', { id: 'first', title: 'first' });
  // It says that it is full when a transaction ends: they are in memory by then.
  const receipts = Promise.all([0, 1, 2, 3, 4].map((n) => addNoise(tab, `n${n}`)));
  await statusBecomes(tab, { error: 'StorageFullError' });
  const ids = ['first', 'n0', 'n1', 'n2', 'n3', 'n4'];
  assert.deepEqual(await idsIn(tab), ids, 'and are seen');
  await leave();
  const settled = await receipts;
  const failed = settled.flatMap(({ error }) => error?.name ?? []);
  assert.deepEqual(
    failed.filter((name) => name !== 'NotDurableYetError'),
    [],
  );
  await statusBecomes(tab, { storage: 'indexeddb' });
  assert.equal((await statusIn(tab)).error, null);
  await reload(tab);
  await openIn(tab, 'list', options);
  assert.deepEqual(await idsIn(tab), ids);
});

test('a load from IndexedDB that is given up keeps nothing of what it has read', async () => {
  // Method: the product's WebAssembly by itself, and databases that never answer.
  const LOADS = 10;
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  globalThis.IDBKeyRange = { bound: () => ({}) };
  const wasm = inRoot('js', 'dist', 'wasm');
  const store = await import(`${wasm}/page_server.js`);
  const module = new WebAssembly.Module(readFileSync(`${wasm}/page_server_bg.wasm`));
  store.initSync({ module });
  let freed = 0;
  const hosts = new FinalizationRegistry(() => {
    freed += 1;
  });
  const load = () => {
    const host = {};
    hosts.register(host);
    const objectStore = () => ({ getAll: () => ({}) });
    store.openBlocks({ transaction: () => ({ objectStore }), close() {} }, host);
  };
  for (let nth = 0; nth < LOADS; nth += 1) load();
  const areFreed = async () => {
    collect();
    return freed === LOADS;
  };
  await eventually(areFreed, { what: 'the end of what was loaded' });
});

atLeast(9);
