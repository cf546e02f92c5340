// Stores that rotted, or that a newer release wrote: what can be read, what is said, the way out.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import {
  atLeast,
  both,
  closeIn,
  contentOf,
  crc32c,
  eventually,
  exportFrom,
  mutateIn,
  openIn,
  readStore,
  reload,
  rowsIn,
  statusBecomes,
  statusIn,
  syncIn,
  tryOpen,
  writeStore,
} from './harness.mjs';

const titlesIn = async (tab, name) =>
  (await rowsIn(tab, 'select title from item order by id', name)).map((row) => row.title);

/** A tab on a site of its own: a store that no other test has. */
async function tabAlone(stage) {
  const site = await stage.ownSite();
  return stage.tab(site.url('app.html'));
}

async function adds(tab, title, name) {
  const { error } = await mutateIn(tab, 'add', { id: title, title }, 'durable', name);
  assert.equal(error, undefined);
}

/** Flips a bit of the first place in the log where `text` is. */
async function damage(tab, text) {
  const { 'log-a': log } = await readStore(tab);
  const at = log.indexOf(text);
  assert.ok(at > 8192, `${text} is in the log`);
  await writeStore(tab, 'log-a', at, [log[at] ^ 1]);
}

/** What every write says now. */
async function refusesWrites(tab, name) {
  const { error } = await mutateIn(tab, 'add', { id: 'late', title: 'late' }, 'durable', name);
  assert.equal(error?.name, 'StorageError');
  assert.equal(error.outcome, 'none');
  assert.match(error.message, /damaged.*exported.*destroyAll\(\)/);
}

both('a damaged store can be read and saved, says so, and is begun anew', async (stage) => {
  const tab = await tabAlone(stage);
  await openIn(tab, 'list', { document: 'hurt' });
  await openIn(tab, 'list', { document: 'whole' }, 'whole');
  for (const letter of ['a', 'b', 'c', 'd']) {
    await adds(tab, `hurt-${letter}`);
    await adds(tab, `whole-${letter}`, 'whole');
  }
  await reload(tab);
  await damage(tab, 'hurt-c');

  await openIn(tab, 'list', { document: 'hurt' });
  const { error } = await statusIn(tab);
  assert.equal(error?.name, 'StorageError');
  assert.match(error.message, /damaged.*exported.*destroyAll\(\)/);
  const heard = await tab.evaluate(
    () => new Promise((resolve) => kept.db.on('error', (error) => resolve(error.code))),
  );
  assert.equal(heard, 'storage');
  assert.deepEqual(await titlesIn(tab), ['hurt-a', 'hurt-b'], 'as it was before the damage');
  const file = contentOf(await exportFrom(tab));
  assert.equal(file.tables.item.length, 2);
  await refusesWrites(tab);
  assert.deepEqual(await titlesIn(tab), ['hurt-a', 'hurt-b']);

  await openIn(tab, 'list', { document: 'whole' }, 'whole');
  const whole = ['whole-a', 'whole-b', 'whole-c', 'whole-d'];
  assert.deepEqual(await titlesIn(tab, 'whole'), whole);
  assert.equal(contentOf(await exportFrom(tab, 'whole')).tables.item.length, 4);
  await refusesWrites(tab, 'whole');

  await closeIn(tab);
  const destroyed = await tab.evaluate(() => outcome(tidelog.destroy('hurt', { force: true })));
  assert.equal(destroyed.error?.name, 'StorageError');
  assert.match(destroyed.error.message, /destroyAll\(\)/);

  await tab.evaluate(() => tidelog.destroyAll());
  // What is open begins anew, and so does what is opened now.
  await statusBecomes(tab, { error: undefined }, 'whole');
  assert.deepEqual(await titlesIn(tab, 'whole'), []);
  await openIn(tab, 'list', { document: 'hurt' });
  assert.deepEqual(await titlesIn(tab), []);
  await adds(tab, 'new');
  assert.equal((await statusIn(tab)).error, null);
  await reload(tab);
  await openIn(tab, 'list', { document: 'hurt' });
  assert.deepEqual(await titlesIn(tab), ['new']);
});

both('a synced document comes back from its server after damage', async (stage) => {
  const server = await stage.server();
  const tab = await tabAlone(stage);
  const options = { document: stage.document, server: server.ws };
  await openIn(tab, 'list', options);
  for (const title of ['a1', 'b2', 'c3', 'd4']) {
    await adds(tab, `row-${title}`);
    assert.equal(await syncIn(tab), null);
  }
  const titles = ['row-a1', 'row-b2', 'row-c3', 'row-d4'];
  await reload(tab);
  await damage(tab, 'row-c3');
  await openIn(tab, 'list', options);
  assert.equal((await statusIn(tab)).error?.name, 'StorageError');
  const shown = await titlesIn(tab);
  assert.deepEqual(shown, titles.slice(0, shown.length));
  await refusesWrites(tab);

  await tab.evaluate(() => tidelog.destroyAll());
  await reload(tab);
  await openIn(tab, 'list', options);
  assert.equal(await syncIn(tab), null);
  assert.deepEqual(await titlesIn(tab), titles);
  await adds(tab, 'row-e5');
  assert.equal(await syncIn(tab), null);
  assert.equal(contentOf(await server.export(stage.document)).tables.item.length, 5);
});

both('damage on the server costs nobody what is here, and is waited out', async (stage) => {
  const server = await stage.server();
  const tab = await stage.tab();
  const [hurt, whole] = ['hurt', 'whole'].map((name) => ({
    document: `${stage.document}-${name}`,
    server: server.ws,
  }));
  await openIn(tab, 'list', hurt);
  await openIn(tab, 'list', whole, 'whole');
  for (const title of ['hurt-a', 'hurt-b', 'hurt-c']) await adds(tab, title);
  await adds(tab, 'whole-a', 'whole');
  assert.equal(await syncIn(tab), null);
  assert.equal(await syncIn(tab, 'whole'), null);
  assert.equal(await server.stop(), 0);

  const file = path.join(server.data, 'log-a');
  const log = readFileSync(file);
  const rotten = Buffer.from(log);
  rotten[log.indexOf('hurt-b')] ^= 1;
  writeFileSync(file, rotten);
  await server.start();
  const { connection, error } = await statusBecomes(tab, { error: 'StorageError' });
  assert.equal(connection, 'offline');
  assert.match(error.message, /damaged.*wait safely/);
  await adds(tab, 'hurt-d');
  assert.equal((await syncIn(tab))?.name, 'StorageError');
  assert.equal((await statusIn(tab)).pending, 1);
  assert.equal((await titlesIn(tab)).length, 4);
  await statusBecomes(tab, { connection: 'online', error: undefined }, 'whole');
  assert.equal(await syncIn(tab, 'whole'), null);
  const ready = await fetch(`${server.http}/readyz`);
  assert.equal(ready.status, 503);
  assert.match(await ready.text(), /damaged/);
  assert.equal((await server.document(hurt.document)).state, 'incomplete');

  // Its operator mends it.
  assert.equal(await server.stop(), 0);
  writeFileSync(file, log);
  await server.start();
  await statusBecomes(tab, { connection: 'online', pending: 0 });
  assert.equal((await statusIn(tab)).error, null);
  assert.equal(await syncIn(tab), null);
  assert.equal(contentOf(await server.export(hurt.document)).tables.item.length, 4);
});

both('nothing that can be opened: it is said, and the way out is open', async (stage) => {
  const tab = await tabAlone(stage);
  const options = { document: stage.document };
  await openIn(tab, 'list', options);
  await adds(tab, 'a');
  await reload(tab);
  await readStore(tab);
  for (const at of [0, 4096]) await writeStore(tab, 'log-a', at, [0xff]);
  const error = await tryOpen(tab, 'list', options);
  assert.equal(error?.name, 'StorageError');
  assert.match(error.message, /cannot be read.*destroyAll\(\)/);
  await tab.evaluate(() => tidelog.destroyAll());
  await reload(tab);
  await openIn(tab, 'list', options);
  await adds(tab, 'b');
  assert.deepEqual(await titlesIn(tab), ['b']);
});

for (const workerUrl of [undefined, '/pages/no-files-worker.mjs']) {
  const where = workerUrl ? 'IndexedDB' : 'files';
  both(`destroyAll() clears ${where} that another tab has open`, async (stage) => {
    const site = await stage.ownSite();
    const [holder, tab] = [
      await stage.tab(site.url('app.html')),
      await stage.tab(site.url('app.html')),
    ];
    const options = { document: stage.document, workerUrl };
    await openIn(holder, 'list', options);
    await adds(holder, 'a');
    await openIn(tab, 'list', options);
    // Neither page is loaded anew, and what is open begins anew. What is asked right behind that is
    // never asked of a core that has lost its data.
    for (let time = 0; time < 5; time += 1) {
      await tab.evaluate(
        async ([document, workerUrl]) => {
          await tidelog.destroyAll();
          const db = await tidelog.open(doctypes.list, { document, workerUrl });
          await db.close();
        },
        [`${stage.document}-${time}`, workerUrl],
      );
    }
    for (const each of [holder, tab]) {
      await eventually(async () => (await titlesIn(each)).length === 0, { what: 'nothing left' });
    }
    await adds(holder, 'b');
    assert.deepEqual(await titlesIn(tab), ['b']);
  });
}

/** A header of the format after ours, with a right checksum. */
function newer(header) {
  const changed = Buffer.from(header);
  changed.writeUInt32LE(2, 8);
  changed.writeUInt32LE(crc32c(changed.subarray(0, 508)), 508);
  return changed;
}

/** Opening is refused, and leaves every byte as it was. */
async function refusesNewer(tab, options) {
  const before = await readStore(tab);
  const error = await tryOpen(tab, 'list', options);
  assert.equal(error?.name, 'NewerFormatError');
  assert.match(error.message, /newer release of the app/);
  await reload(tab);
  assert.deepEqual(await readStore(tab), before);
}

for (const [file, magic] of [
  ['log-a', null],
  ['pages', 'TIDEPAGE'],
]) {
  both(`a newer format of ${file} is refused and left untouched`, async (stage) => {
    const tab = await tabAlone(stage);
    const options = { document: stage.document };
    await openIn(tab, 'list', options);
    await adds(tab, 'a');
    await reload(tab);
    const before = (await readStore(tab))[file];
    const header = magic ? Buffer.from(magic.padEnd(512, '\0')) : before.subarray(0, 512);
    for (const at of [0, 4096]) await writeStore(tab, file, at, newer(header));
    await refusesNewer(tab, options);

    // The older release reads it again once the newer one has put that back.
    if (!magic) {
      for (const at of [0, 4096]) await writeStore(tab, file, at, header);
      await openIn(tab, 'list', options);
      assert.deepEqual(await titlesIn(tab), ['a']);
      return;
    }
    assert.equal((await tryOpen(tab, 'list', options))?.name, 'NewerFormatError');
    await tab.evaluate(() => tidelog.destroyAll());
    await reload(tab);
    await openIn(tab, 'list', options);
    await adds(tab, 'b');
  });
}

both('a newer format of the database is refused and left untouched', async (stage) => {
  const tab = await tabAlone(stage);
  const options = { workerUrl: '/pages/no-files-worker.mjs', document: stage.document };
  await tab.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open('tidelog', 2);
        opening.onupgradeneeded = () => opening.result.createObjectStore('later').put('kept', 1);
        opening.onsuccess = () => resolve(opening.result.close());
        opening.onerror = () => reject(opening.error);
      }),
  );
  const error = await tryOpen(tab, 'list', options);
  assert.equal(error?.name, 'NewerFormatError');
  const databases = () => tab.evaluate(() => indexedDB.databases());
  assert.deepEqual(await databases(), [{ name: 'tidelog', version: 2 }]);
  await tab.evaluate(() => tidelog.destroyAll());
  await reload(tab);
  await openIn(tab, 'list', options);
  await adds(tab, 'a');
  assert.deepEqual(await databases(), [{ name: 'tidelog', version: 1 }]);
});

atLeast(9);
