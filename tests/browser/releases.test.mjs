// An app's next release: doctypes that the server never saw, over data of the release before.

import assert from 'node:assert/strict';
import {
  atLeast,
  both,
  closeIn,
  contentOf,
  eventually,
  exportFrom,
  mutateIn,
  openIn,
  reload,
  rowsIn,
  statusBecomes,
  statusIn,
  syncIn,
  tryOpen,
} from './harness.mjs';

/** Syncs until nothing new can come: what one tab brings, those before it have to fetch. */
async function settle(...tabs) {
  for (const tab of [...tabs, ...tabs]) assert.equal(await syncIn(tab), null);
}

/** All tabs and the server hold the same; nothing is pending or wrong. */
async function converged(server, document, tabs) {
  await settle(...tabs);
  const copy = contentOf(await server.export(document));
  for (const tab of tabs) {
    assert.deepEqual(contentOf(await exportFrom(tab)), copy);
    const { pending, error } = await statusIn(tab);
    assert.deepEqual({ pending, error }, { pending: 0, error: null });
  }
  return copy;
}

async function mutates(page, mutation, args, stage) {
  const { value, error } = await mutateIn(page, mutation, args, stage);
  assert.equal(error, undefined, `${mutation}: ${error?.message}`);
  return value;
}

const items = (page, columns) => rowsIn(page, `select ${columns} from item order by id`);

both('a release with another migration opens online, and both releases go on', async (stage) => {
  const { server, options } = await stage.synced();
  const [tab, elsewhere] = await stage.twoDevices();
  for (const each of [tab, elsewhere]) await openIn(each, 'list', options);
  await mutates(tab, 'add', { id: 'a', title: 'of the older release' }, 'confirmed');
  await settle(elsewhere);

  // The app was updated: its page comes back with the new doctype, which nobody has seen yet.
  await reload(tab);
  await openIn(tab, 'listWithColor', options);
  assert.deepEqual(await items(tab, 'id, color'), [{ id: 'a', color: 'none' }]);
  await mutates(tab, 'paint', { id: 'a', color: 'blue' }, 'confirmed');
  await mutates(tab, 'add', { id: 'b', title: 'of the newer release' }, 'confirmed');

  // A device that was not updated follows over the migration, and issues under its own doctype.
  await settle(elsewhere);
  assert.deepEqual(await items(elsewhere, 'id, color'), [
    { id: 'a', color: 'blue' },
    { id: 'b', color: 'red' },
  ]);
  await mutates(elsewhere, 'add', { id: 'c', title: 'still of the older' }, 'confirmed');
  await settle(tab);
  assert.deepEqual(await rowsIn(tab, `select color from item where id = 'c'`), [{ color: 'none' }]);
  await converged(server, stage.document, [tab, elsewhere]);

  // It is updated too, now that the server knows.
  await reload(elsewhere);
  await openIn(elsewhere, 'listWithColor', options);
  await mutates(elsewhere, 'paint', { id: 'c', color: 'green' }, 'confirmed');
  const { tables } = await converged(server, stage.document, [tab, elsewhere]);
  assert.deepEqual(
    tables.item.map((row) => row.split(', ').at(-1)),
    [`'blue'`, `'red'`, `'green'`],
  );
});

both('a device of the older release comes to a server of the newer one', async (stage) => {
  const { server, options } = await stage.synced();
  const tab = await stage.tab();
  await openIn(tab, 'listWithColor', options);
  await mutates(tab, 'add', { id: 'a', title: 'of the newer release' }, 'confirmed');
  const elsewhere = await stage.otherTab();
  await openIn(elsewhere, 'list', options);
  await settle(elsewhere);
  await mutates(elsewhere, 'add', { id: 'b', title: 'of the older one' }, 'confirmed');
  await converged(server, stage.document, [tab, elsewhere]);
  assert.deepEqual(await items(elsewhere, 'id, color'), [
    { id: 'a', color: 'red' },
    { id: 'b', color: 'none' },
  ]);
});

for (const known of [false, true]) {
  const met = known ? 'where others use the older one' : 'that knows neither';
  both(`two releases before the first contact with a server ${met}`, async (stage) => {
    const { server, options } = await stage.synced({ isUp: false });
    const elsewhere = await stage.otherTab();
    if (known) {
      await server.start();
      await openIn(elsewhere, 'list', options);
      await mutates(elsewhere, 'add', { id: 'z', title: 'from elsewhere' }, 'confirmed');
      assert.equal(await server.stop(), 0);
    }

    const tab = await stage.tab();
    await openIn(tab, 'list', options);
    await mutates(tab, 'add', { id: 'a', title: 'of the older release' });
    await mutates(tab, 'toggle', { id: 'a' });
    await reload(tab);
    await openIn(tab, 'listWithColor', options);
    assert.deepEqual(await items(tab, 'id, done, color'), [{ id: 'a', done: 1, color: 'none' }]);
    await mutates(tab, 'paint', { id: 'a', color: 'blue' });
    await mutates(tab, 'add', { id: 'b', title: 'of the newer release' });
    assert.equal((await statusIn(tab)).pending, 4);
    // Nobody holds the older doctype in memory any more: it is on the disk, or lost.
    await reload(tab);
    await openIn(tab, 'listWithColor', options);
    assert.equal((await statusIn(tab)).pending, 4);

    await server.start();
    await settle(tab);
    if (!known) await openIn(elsewhere, 'list', options);
    await mutates(elsewhere, 'rename', { id: 'b', title: 'by the older release' }, 'confirmed');
    await converged(server, stage.document, [tab, elsewhere]);
    const rows = await items(tab, 'id, title, done, color');
    assert.deepEqual(
      rows.map((row) => Object.values(row).join(' ')),
      [
        'a of the older release 1 blue',
        'b by the older release 0 red',
        ...(known ? ['z from elsewhere 0 none'] : []),
      ],
    );
  });
}

both('a release that changed only mutations: each runs as it was issued', async (stage) => {
  const { server, options } = await stage.synced();
  const [tab, elsewhere] = await stage.twoDevices();
  for (const each of [tab, elsewhere]) await openIn(each, 'list', options);
  await mutates(tab, 'add', { id: 'a', title: 'older' }, 'confirmed');

  // Offline: undecided ones of the older release, then the newer release's.
  assert.equal(await server.stop(), 0);
  await mutates(tab, 'add', { id: 'b', title: 'older, undecided' });
  await reload(tab);
  await openIn(tab, 'listReworded', options);
  await mutates(tab, 'add', { id: 'c', title: 'newer' });
  await mutates(tab, 'add', { id: 'd', title: 'newer', loud: true });
  const { error } = await tab.evaluate(() => outcome(() => kept.db.mutate.toggle({ id: 'a' })));
  assert.equal(error.name, 'UnknownMutationError', 'what the release dropped is gone');
  await reload(tab);
  await openIn(tab, 'listReworded', options);
  assert.equal((await statusIn(tab)).pending, 3);
  await server.start();
  await settle(tab);

  // Online: the older release goes on beside it.
  await mutates(elsewhere, 'toggle', { id: 'a' }, 'confirmed');
  await mutates(tab, 'clear', undefined, 'confirmed');
  await mutates(elsewhere, 'add', { id: 'e', title: 'older' }, 'confirmed');
  await converged(server, stage.document, [tab, elsewhere]);
  const rows = await items(elsewhere, 'id, title');
  assert.deepEqual(
    rows.map(({ id, title }) => `${id} ${title}`),
    ['b older, undecided', 'c - newer', 'd NEWER', 'e older'],
  );
});

both(
  'a release that is taken back leaves its mutations to run as they were issued',
  async (stage) => {
    const { server, options } = await stage.synced({ isUp: false });
    const tab = await stage.tab();
    await openIn(tab, 'list', options);
    await mutates(tab, 'add', { id: 'a', title: 'before' });
    await reload(tab);
    await openIn(tab, 'listWithColor', options);
    await mutates(tab, 'add', { id: 'b', title: 'of the newer release' });
    await mutates(tab, 'paint', { id: 'a', color: 'blue' });
    await reload(tab);
    await openIn(tab, 'list', options);
    await mutates(tab, 'add', { id: 'c', title: 'of the older one again' });
    await reload(tab);
    await openIn(tab, 'list', options);
    assert.equal((await statusIn(tab)).pending, 4);
    await server.start();
    await converged(server, stage.document, [tab]);
    const rows = await items(tab, 'id, color');
    assert.deepEqual(
      rows.map(({ id, color }) => `${id} ${color}`),
      ['a blue', 'b red', 'c none'],
    );
  },
);

both('a tab of the older release stays open while the newer one opens online', async (stage) => {
  const { server, options } = await stage.synced();
  const older = await stage.tab();
  await openIn(older, 'list', options);
  await mutates(older, 'add', { id: 'a', title: 'a' }, 'confirmed');
  await older.evaluate(() => {
    kept.db.live('select * from item order by id').subscribe((rows) => {
      kept.rows = rows;
    });
  });
  const newer = await stage.tab();
  await openIn(newer, 'listWithColor', options);
  await mutates(newer, 'paint', { id: 'a', color: 'blue' });
  await eventually(() => older.evaluate(() => kept.rows?.[0].color === 'blue'), {
    what: 'the new column in the live query of the older tab',
  });
  const both = [];
  for (let round = 0; round < 10; round += 1) {
    both.push(mutates(older, 'add', { id: `o${round}`, title: 'older' }, 'confirmed'));
    both.push(mutates(newer, 'add', { id: `n${round}`, title: 'newer' }, 'confirmed'));
  }
  await Promise.all(both);
  const { tables } = await converged(server, stage.document, [older, newer]);
  assert.equal(tables.item.length, 21);
  const colors = await rowsIn(older, `select color, count(*) as n from item group by color`);
  assert.deepEqual(colors, [
    { color: 'blue', n: 1 },
    { color: 'none', n: 10 },
    { color: 'red', n: 10 },
  ]);

  // The newer tab goes first, and the older one is what is left; then all anew.
  await newer.close();
  await mutates(older, 'toggle', { id: 'a' }, 'confirmed');
  await reload(older);
  await openIn(older, 'list', options);
  assert.equal((await items(older, '*')).length, 21);
  await mutates(older, 'toggle', { id: 'a' }, 'confirmed');
});

both(
  'a mutation that the newer release’s tables cannot run is rejected, and said',
  async (stage) => {
    const { server, options } = await stage.synced();
    const [tab, elsewhere] = await stage.twoDevices();
    for (const each of [tab, elsewhere]) {
      await openIn(each, 'list', options);
      await settle(each);
    }
    await elsewhere.evaluate(() => kept.db.disconnect());
    await statusBecomes(elsewhere, { connection: 'offline' });
    const waiting = elsewhere.evaluate(async () => {
      const receipts = [
        kept.db.mutate.add({ id: 'lost', title: 'for a table that is gone' }),
        kept.db.mutate.note({ id: 'kept', body: 'what is behind it' }),
      ];
      await Promise.all(receipts);
      kept.verdicts = Promise.all(receipts.map((receipt) => outcome(receipt.confirmed)));
    });
    await waiting;
    await reload(tab);
    await openIn(tab, 'listOfThings', options);
    await mutates(tab, 'add', { id: 'a', title: 'a thing' }, 'confirmed');
    await elsewhere.evaluate(() => kept.db.connect());
    const [lost, behind] = await elsewhere.evaluate(() => kept.verdicts);
    assert.equal(lost.error?.name, 'RejectedError');
    assert.match(lost.error.reason, /no such table/);
    assert.ok(behind.value?.lsn >= 1, 'it holds nobody up');
    const { tables } = await converged(server, stage.document, [tab, elsewhere]);
    assert.equal(tables.thing.length, 1);
    assert.equal(tables.note.length, 1);
  },
);

both(
  'of two releases that went different ways the second is told, and keeps its rows',
  async (stage) => {
    const { server, options } = await stage.synced();
    const [tab, elsewhere] = await stage.twoDevices();
    for (const each of [tab, elsewhere]) {
      await openIn(each, 'list', options);
      await settle(each);
    }
    await mutates(tab, 'add', { id: 'a', title: 'a' }, 'confirmed');
    await settle(elsewhere);
    await closeIn(elsewhere);
    await reload(tab);
    await openIn(tab, 'listWithColor', options);
    await mutates(tab, 'paint', { id: 'a', color: 'blue' }, 'confirmed');

    assert.equal(await server.stop(), 0);
    await openIn(elsewhere, 'listWithShape', options);
    await mutates(elsewhere, 'shape', { id: 'a', shape: 'round' });
    await server.start();
    const status = await statusBecomes(elsewhere, { error: 'DoctypeMismatchError' });
    assert.match(status.error.message, /list/);
    assert.equal(status.pending, 1);
    assert.equal((await syncIn(elsewhere))?.name, 'DoctypeMismatchError');
    assert.deepEqual(await items(elsewhere, 'id, shape'), [{ id: 'a', shape: 'round' }]);
    await settle(tab);
    assert.deepEqual(await items(tab, 'id, color'), [{ id: 'a', color: 'blue' }]);
  },
);

both(
  'a migration that was edited begins its document anew, where that is wanted',
  async (stage) => {
    const { server, options } = await stage.synced();
    const dev = { ...options, dev: { onMigrationEdited: 'reset' } };
    const [tab, elsewhere] = await stage.twoDevices();
    await openIn(tab, 'listWithColor', options);
    await mutates(tab, 'add', { id: 'a', title: 'before' }, 'confirmed');

    // The migration that added a column adds another one now.
    await reload(tab);
    assert.equal((await tryOpen(tab, 'listWithShape', options))?.name, 'DoctypeMismatchError');
    await openIn(tab, 'listWithShape', dev);
    assert.deepEqual(await items(tab, 'id, shape'), []);
    await mutates(tab, 'add', { id: 'b', title: 'behind' }, 'confirmed');
    assert.deepEqual(
      contentOf(await server.export(stage.document)).tables.item.map((row) => row.split(', ')[0]),
      [`'b'`],
    );

    // And back: a device that knows nothing meets what the server has.
    await openIn(elsewhere, 'listWithColor', dev);
    await mutates(elsewhere, 'add', { id: 'c', title: 'elsewhere' }, 'confirmed');
    assert.deepEqual(await items(elsewhere, 'id, color'), [{ id: 'c', color: 'red' }]);

    // Who had it open keeps what was there, and says so.
    await statusBecomes(tab, { error: 'DocumentMissingError' });

    // Once its page has the edited release too, it has what the others have made since. Two tabs
    // of it come at once.
    const second = await stage.tab();
    await reload(tab);
    await Promise.all([tab, second].map((page) => openIn(page, 'listWithColor', dev)));
    for (const page of [tab, second]) {
      await settle(page);
      assert.deepEqual(await items(page, 'id, color'), [{ id: 'c', color: 'red' }]);
    }
    await settle(elsewhere);
  },
);

atLeast(9);
