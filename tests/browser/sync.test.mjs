// Two devices and a server that comes and goes.

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { startProxy } from './harness/proxy.mjs';
import {
  atLeast,
  both,
  closeIn,
  contentOf,
  exportFrom,
  freePort,
  mutateIn,
  openIn,
  reload,
  rowsIn,
  statusBecomes,
  statusIn,
  syncIn,
  tryOpen,
} from './harness.mjs';

/** All tabs and the server hold the same rows in the same tables. */
async function assertSame(server, document, tabs) {
  const copy = contentOf(await server.export(document));
  for (const tab of tabs) assert.deepEqual(contentOf(await exportFrom(tab)), copy);
  return copy;
}

both(
  'with the server stopped mutations go on, wait, and are each confirmed once',
  async (stage) => {
    const COUNT = 200;
    const { server, options } = await stage.synced();
    const [tab, other] = await stage.twoDevices();
    await openIn(tab, 'list', options);
    await openIn(other, 'list', options);
    await mutateIn(tab, 'count', { id: 'first', title: 'with a server' }, 'confirmed');
    assert.equal(await syncIn(other), null);

    assert.equal(await server.stop(), 0, 'SIGTERM ends the server with exit code 0');
    const waiting = await tab.evaluate(async (count) => {
      for (let number = 1; number <= count; number += 1) {
        await kept.db.mutate.count({ id: `t-${number}`, title: 'offline' });
      }
      return statusOf(kept.db).pending;
    }, COUNT);
    assert.equal(waiting, COUNT, 'status.pending counts them');
    await mutateIn(other, 'count', { id: 'o-1', title: 'offline too' });
    await mutateIn(other, 'rename', { id: 'first', title: 'renamed offline' });

    await reload(tab);
    await openIn(tab, 'list', options);
    assert.equal((await statusIn(tab)).pending, COUNT, 'a reload keeps them');
    const [{ count }] = await rowsIn(tab, 'select count(*) as count from item');
    assert.equal(count, COUNT + 1, 'and their effect');

    await server.start();
    assert.equal(await syncIn(tab), null);
    assert.equal(await syncIn(other), null);
    assert.equal(await syncIn(tab), null);
    for (const each of [tab, other]) {
      const status = await statusIn(each);
      assert.equal(status.pending, 0);
      assert.equal(status.connection, 'online');
      assert.equal(status.error, null);
    }
    const copy = await assertSame(server, stage.document, [tab, other]);
    assert.equal(copy.tables.item.length, COUNT + 2);
    const runs = await rowsIn(other, 'select distinct runs from item');
    assert.deepEqual(runs, [{ runs: 1 }], 'each was applied once');
    const [{ title }] = await rowsIn(tab, `select title from item where id = 'first'`);
    assert.equal(title, 'renamed offline');
  },
);

/** Two devices that have met, both away from the server. */
async function twoOffline(stage) {
  const { server, options } = await stage.synced();
  const tabs = await stage.twoDevices();
  for (const tab of tabs) {
    await openIn(tab, 'list', options);
    assert.equal(await syncIn(tab), null);
    await tab.evaluate(() => kept.db.disconnect());
    await statusBecomes(tab, { connection: 'offline' });
  }
  return { server, options, tabs };
}

const reconnect = (tab) => tab.evaluate(() => kept.db.connect());

for (const [how, mutation, reason] of [
  ['reject', 'claim', /already taken/],
  ['a constraint', 'note', /unique|constraint/i],
]) {
  both(
    `what ${how} refuses at the server is undone, and what was queued behind it applies`,
    async (stage) => {
      const { server, tabs } = await twoOffline(stage);
      const [winner, loser] = tabs;
      const args = (who) =>
        mutation === 'claim' ? { id: 'seat', by: who } : { id: 'seat', body: who };
      assert.equal((await mutateIn(winner, mutation, args('winner'))).error, undefined);
      await loser.evaluate(
        ([mutation, args]) => {
          kept.rejections = [];
          kept.db.on('rejected', (rejection) => {
            kept.rejections.push({ ...rejection, lsn: Number(rejection.lsn) });
          });
          kept.receipts = [
            kept.db.mutate.add({ id: 'before', title: 'before' }),
            kept.db.mutate[mutation](args),
            kept.db.mutate.add({ id: 'behind', title: 'behind' }),
          ];
          return Promise.all(kept.receipts);
        },
        [mutation, args('loser')],
      );
      const [{ count }] = await rowsIn(
        loser,
        `select count(*) as count from note where id = 'seat'`,
      );
      assert.equal(count, 1, 'visible here until the verdict');

      await reconnect(winner);
      assert.equal(await syncIn(winner), null);
      await reconnect(loser);
      const verdicts = await loser.evaluate(() =>
        Promise.all(kept.receipts.map((receipt) => outcome(receipt.confirmed))),
      );
      assert.ok(verdicts[0].value.lsn, 'what was before it is confirmed');
      assert.equal(verdicts[1].error.name, 'RejectedError');
      assert.equal(verdicts[1].error.mutation, mutation);
      assert.match(verdicts[1].error.reason, reason);
      assert.ok(verdicts[2].value.lsn, 'what was queued behind it is confirmed');

      assert.equal(await syncIn(loser), null);
      assert.equal(await syncIn(winner), null);
      const copy = await assertSame(server, stage.document, tabs);
      assert.deepEqual(copy.tables.note, [`'seat', 'winner'`]);
      assert.equal(copy.tables.item.length, 2);
      assert.equal((await statusIn(loser)).pending, 0);
      const rejections = await loser.evaluate(() => kept.rejections);
      assert.equal(rejections.length, 1);
      assert.equal(rejections[0].mutation, mutation);
      assert.deepEqual(rejections[0].args, args('loser'));
      assert.match(rejections[0].reason, reason);
    },
  );
}

both('a rejection after a reload reaches a listener, however late one comes', async (stage) => {
  const { options, tabs } = await twoOffline(stage);
  const [winner, loser] = tabs;
  await mutateIn(winner, 'claim', { id: 'seat', by: 'winner' });
  await mutateIn(loser, 'claim', { id: 'seat', by: 'loser' });
  await reconnect(winner);
  assert.equal(await syncIn(winner), null);

  // The verdict comes while nobody listens.
  await reload(loser);
  await openIn(loser, 'list', options);
  await reconnect(loser);
  assert.equal(await syncIn(loser), null);
  assert.deepEqual(await rowsIn(loser, 'select body from note'), [{ body: 'winner' }]);

  await reload(loser);
  await openIn(loser, 'list', options);
  const rejection = await loser.evaluate(
    () =>
      new Promise((resolve) =>
        kept.db.on('rejected', (it) => resolve({ ...it, lsn: Number(it.lsn) })),
      ),
  );
  assert.equal(rejection.mutation, 'claim');
  assert.deepEqual(rejection.args, { id: 'seat', by: 'loser' });
  assert.match(rejection.reason, /already taken/);
  assert.ok(rejection.lsn >= 1);
  assert.match(rejection.id, /^[0-9a-f]{32}$/);
});

both('a local document opened with a server becomes the server’s', async (stage) => {
  const server = await stage.server();
  const local = { document: stage.document };
  const synced = { ...local, server: server.ws };
  const tab = await stage.tab();
  await openIn(tab, 'list', local);
  await mutateIn(tab, 'add', { id: 'a', title: 'made alone' });
  const { value } = await mutateIn(tab, 'add', { id: 'b', title: 'made alone too' }, 'confirmed');
  assert.ok(value.lsn >= 1, 'this device decides');
  const alone = await statusIn(tab);
  assert.equal(alone.connection, 'local');
  assert.equal(alone.pending, 0);
  const before = contentOf(await exportFrom(tab));
  await closeIn(tab);

  await openIn(tab, 'list', synced);
  await mutateIn(tab, 'add', { id: 'c', title: 'made with a server' });
  assert.equal(await syncIn(tab), null);
  const other = await stage.otherTab();
  await openIn(other, 'list', synced);
  assert.equal(await syncIn(other), null);
  const copy = await assertSame(server, stage.document, [tab, other]);
  assert.deepEqual(copy.schema, before.schema);
  assert.equal(copy.tables.item.length, 3);
  await closeIn(tab);

  // Once more without a server: it stays what it is, offline.
  await openIn(tab, 'list', local);
  assert.notEqual((await statusIn(tab)).connection, 'local');
  assert.equal((await rowsIn(tab, 'select id from item')).length, 3);
});

both('a local document is not mixed with one that the server has', async (stage) => {
  const server = await stage.server();
  const local = { document: stage.document };
  const synced = { ...local, server: server.ws };
  const other = await stage.otherTab();
  await openIn(other, 'list', synced);
  await mutateIn(other, 'add', { id: 'theirs', title: 'theirs' }, 'confirmed');

  const tab = await stage.tab();
  await openIn(tab, 'list', local);
  await mutateIn(tab, 'add', { id: 'mine', title: 'mine' });
  await closeIn(tab);
  const error = await tryOpen(tab, 'list', synced);
  assert.equal(error?.name, 'DocumentExistsError');
  assert.equal(error.outcome, 'none');
  await openIn(tab, 'list', local);
  assert.deepEqual(
    await rowsIn(tab, 'select id from item'),
    [{ id: 'mine' }],
    'nothing changed here',
  );
  assert.equal((await statusIn(tab)).connection, 'local');
  assert.equal(await syncIn(other), null);
  assert.deepEqual(await rowsIn(other, 'select id from item'), [{ id: 'theirs' }], 'nor there');
});

both('a local document meets no server: that is said, and it stays local', async (stage) => {
  const local = { document: stage.document };
  const tab = await stage.tab();
  await openIn(tab, 'list', local);
  await mutateIn(tab, 'add', { id: 'mine', title: 'mine' });
  await closeIn(tab);
  const error = await tryOpen(tab, 'list', {
    ...local,
    server: `ws://127.0.0.1:${await freePort()}`,
  });
  assert.equal(error?.name, 'ServerUnreachableError');
  assert.equal(error.outcome, 'none');
  await openIn(tab, 'list', local);
  assert.deepEqual(await rowsIn(tab, 'select id from item'), [{ id: 'mine' }]);
  assert.equal((await statusIn(tab)).connection, 'local');
});

both(
  'a successor doctype migrates while an older tab and undecided mutations remain',
  async (stage) => {
    const { server, options, tabs } = await twoOffline(stage);
    const [older, elsewhere] = tabs;
    await mutateIn(older, 'count', { id: 'a', title: 'before, undecided' });
    await mutateIn(elsewhere, 'count', { id: 'z', title: 'elsewhere, undecided' });

    const newer = await stage.tab();
    await openIn(newer, 'listWithColor', options);
    assert.deepEqual(await rowsIn(newer, 'select id, color from item'), [
      { id: 'a', color: 'none' },
    ]);
    await mutateIn(newer, 'paint', { id: 'a', color: 'blue' });
    await mutateIn(older, 'addMany', { items: [{ id: 'b', title: 'of the older tab' }] });
    await mutateIn(newer, 'add', { id: 'c', title: 'of the newer tab' });
    const visible = await rowsIn(older, 'select id, title, color from item order by id');
    assert.deepEqual(
      visible.map((row) => `${row.id} ${row.color}`),
      ['a blue', 'b none', 'c red'],
    );

    await reconnect(older);
    assert.equal(await syncIn(older), null);
    assert.equal(await syncIn(newer), null);
    await reconnect(elsewhere);
    assert.equal(await syncIn(elsewhere), null);
    assert.equal(await syncIn(older), null);
    assert.equal(await syncIn(newer), null);
    const copy = await assertSame(server, stage.document, [older, newer, elsewhere]);
    const found = copy.tables.item.map((row) => row.split(', ')[0]);
    assert.deepEqual(found, ["'a'", "'b'", "'c'", "'z'"]);
    assert.ok(copy.schema.some((sql) => sql.includes('color')));
  },
);

both('a page that the server does not serve is told, and goes on without it', async (stage) => {
  const { server, options } = await stage.synced();
  const proxy = await startProxy(server.ws, { origin: 'https://example.org' });
  try {
    const tab = await stage.tab();
    await openIn(tab, 'list', { ...options, server: proxy.ws });
    await statusBecomes(tab, { error: 'AccessError' });
    const { error } = await statusIn(tab);
    assert.match(error.message, /refuses this page by its origin.*localhost/);
    await mutateIn(tab, 'add', { id: 'mine', title: 'mine' }, 'durable');
  } finally {
    await proxy.close();
  }
});

both('a local document goes on under a successor', async (stage) => {
  const options = { document: stage.document };
  const tab = await stage.tab();
  await openIn(tab, 'list', options);
  await mutateIn(tab, 'add', { id: 'a', title: 'old' });
  const newer = await stage.tab();
  await openIn(newer, 'listWithColor', options);
  await mutateIn(newer, 'paint', { id: 'a', color: 'green' });
  await mutateIn(tab, 'rename', { id: 'a', title: 'renamed by the older' });
  assert.deepEqual(await rowsIn(tab, 'select title, color from item'), [
    { title: 'renamed by the older', color: 'green' },
  ]);
});

both('two users of one device have a copy each', async (stage) => {
  const tab = await stage.tab();
  for (const user of ['ada', 'bob']) {
    await openIn(tab, 'list', { document: stage.document, user }, user);
    await mutateIn(tab, 'add', { id: user, title: `of ${user}` }, 'durable', user);
  }
  await openIn(tab, 'list', { document: stage.document }, 'device');
  assert.deepEqual(await rowsIn(tab, 'select id from item', 'ada'), [{ id: 'ada' }]);
  assert.deepEqual(await rowsIn(tab, 'select id from item', 'bob'), [{ id: 'bob' }]);
  assert.deepEqual(await rowsIn(tab, 'select id from item', 'device'), []);
});

both('destroy refuses while mutations are pending, unless it is forced', async (stage) => {
  const options = { document: stage.document, server: `ws://127.0.0.1:${await freePort()}` };
  const tab = await stage.tab();
  await openIn(tab, 'list', options);
  await mutateIn(tab, 'add', { id: 'a', title: 'pending' });
  await closeIn(tab);
  const destroy = (settings) =>
    tab.evaluate(
      async ([document, settings]) =>
        (await outcome(tidelog.destroy(document, settings))).error ?? null,
      [stage.document, settings],
    );
  const error = await destroy({});
  assert.equal(error?.name, 'PendingError');
  await openIn(tab, 'list', options);
  assert.equal((await rowsIn(tab, 'select id from item')).length, 1, 'nothing is gone');
  await closeIn(tab);
  assert.equal(await destroy({ force: true }), null);
  await openIn(tab, 'list', options);
  assert.deepEqual(await rowsIn(tab, 'select id from item'), []);
});

both('all copies of a user are deleted, and those of others stay', async (stage) => {
  const server = `ws://127.0.0.1:${await freePort()}`;
  const [list, notes] = [`${stage.document}-a`, `${stage.document}-b`];
  const [user, bob] = ['ada', 'bob'].map((name) => `${name} of ${stage.document}`);
  const [tab, other] = [await stage.tab(), await stage.tab()];
  const copies = { list: { document: list, user }, notes: { document: notes, user, server } };
  await openIn(tab, 'list', copies.list, 'list');
  await openIn(other, 'list', copies.notes, 'notes');
  await openIn(tab, 'list', { document: list, user: bob }, 'bob');
  await mutateIn(tab, 'add', { id: 'a', title: 'local' }, 'durable', 'list');
  await mutateIn(other, 'add', { id: 'b', title: 'pending' }, 'durable', 'notes');
  await mutateIn(tab, 'add', { id: 'c', title: 'of another' }, 'durable', 'bob');
  const destroyAll = (settings) =>
    tab.evaluate(
      async (settings) => (await outcome(tidelog.destroyAll(settings))).error ?? null,
      settings,
    );
  assert.equal((await destroyAll({}))?.name, 'InvalidOptionError');
  assert.equal((await destroyAll({ user, everywhere: true }))?.name, 'PendingError');
  assert.equal((await destroyAll({ user, force: true }))?.name, 'DocumentInUseError');
  assert.equal((await rowsIn(tab, 'select id from item', 'list')).length, 1, 'nothing is gone');
  assert.equal(await destroyAll({ user, force: true, everywhere: true }), null);
  const { error } = await other.evaluate(() => outcome(kept.notes.query('select 1')));
  assert.equal(error.name, 'DocumentClosedError');
  await openIn(tab, 'list', copies.list, 'list');
  await openIn(other, 'list', copies.notes, 'notes');
  assert.deepEqual(await rowsIn(tab, 'select id from item', 'list'), []);
  assert.deepEqual(await rowsIn(other, 'select id from item', 'notes'), []);
  assert.deepEqual(await rowsIn(tab, 'select id from item', 'bob'), [{ id: 'c' }]);
});

both('a document that other tabs have open is deleted everywhere', async (stage) => {
  const { document } = stage;
  const [tab, other] = [await stage.tab(), await stage.tab()];
  for (const page of [tab, other]) await openIn(page, 'list', { document });
  await mutateIn(tab, 'add', { id: 'a', title: 'old' });
  const destroy = (settings) =>
    tab.evaluate(
      async ([document, settings]) =>
        (await outcome(tidelog.destroy(document, settings))).error ?? null,
      [document, settings],
    );
  assert.equal((await destroy({}))?.name, 'DocumentInUseError');
  assert.equal(await destroy({ everywhere: true }), null);
  for (const page of [tab, other]) {
    const { error } = await page.evaluate(() => outcome(kept.db.query('select 1')));
    assert.equal(error.name, 'DocumentClosedError');
    await openIn(page, 'list', { document });
    assert.deepEqual(await rowsIn(page, 'select id from item'), []);
  }
});

both('a server that lost its data changes nothing here, and says so', async (stage) => {
  const { server, options } = await stage.synced();
  const tab = await stage.tab();
  await openIn(tab, 'list', options);
  await mutateIn(tab, 'add', { id: 'a', title: 'confirmed' }, 'confirmed');
  await server.stop();
  rmSync(server.data, { recursive: true });
  await mutateIn(tab, 'add', { id: 'b', title: 'undecided' });
  await server.start();
  const status = await statusBecomes(tab, { error: 'DocumentMissingError' });
  assert.match(status.error.message, /\w+ \w+/);
  assert.equal(status.pending, 1);
  assert.equal((await syncIn(tab))?.name, 'DocumentMissingError', 'sync() says it too');
  assert.equal(
    (await rowsIn(tab, 'select id from item')).length,
    2,
    'every local row is still there',
  );
  assert.equal((await mutateIn(tab, 'add', { id: 'c', title: 'goes on' })).error, undefined);
  await reload(tab);
  await openIn(tab, 'list', options);
  assert.equal((await rowsIn(tab, 'select id from item')).length, 3);
});

both(
  'a document made anew on the server replaces the copy, and undecided mutations go on',
  async (stage) => {
    const { server, options } = await stage.synced();
    const tab = await stage.tab();
    await openIn(tab, 'list', options);
    await mutateIn(tab, 'add', { id: 'old', title: 'of the old document' }, 'confirmed');
    await tab.evaluate(() => {
      kept.errors = [];
      kept.db.on('error', (error) => kept.errors.push(described(error).name));
      kept.db.disconnect();
    });
    await server.stop();
    rmSync(server.data, { recursive: true });
    await mutateIn(tab, 'add', { id: 'mine', title: 'undecided' });
    await server.start();
    const other = await stage.otherTab();
    await openIn(other, 'list', options);
    await mutateIn(other, 'add', { id: 'new', title: 'of the new document' }, 'confirmed');
    await tab.evaluate(() => kept.db.connect());
    await tab.evaluate(() =>
      whenStatus(kept.db, (it) => it.pending === 0 && it.connection === 'online'),
    );
    assert.ok((await tab.evaluate(() => kept.errors)).includes('DocumentReplacedError'));
    assert.equal(await syncIn(other), null);
    const copy = await assertSame(server, stage.document, [tab, other]);
    const found = copy.tables.item.map((row) => row.split(', ')[0]);
    assert.deepEqual(found, ["'mine'", "'new'"]);
  },
);

atLeast(14);
