// Events: recorded by mutations here and elsewhere, told once they are confirmed, and gone on with.

import assert from 'node:assert/strict';
import {
  atLeast,
  both,
  closeIn,
  eventually,
  mutateIn,
  openIn,
  reload,
  rowsIn,
  statusBecomes,
  syncIn,
} from './harness.mjs';

/** Issues a mutation, which has to come as far as that. */
async function mutates(page, mutation, args, stage = 'confirmed') {
  const { error } = await mutateIn(page, mutation, args, stage);
  assert.equal(error, undefined, `${mutation}: ${error?.message}`);
}

/** Has a page follow events under a name: it keeps what it is told. */
const follow = (page, name, ...wanted) =>
  page.evaluate(
    ([name, wanted]) => {
      const told = [];
      kept[name] = told;
      const events = kept.db.events(...wanted);
      kept[`stop ${name}`] = () => events.return();
      (async () => {
        for await (const { sequence, stream, type, data, version } of events) {
          told.push([sequence, stream, type, version, data]);
        }
        told.push('end');
      })().catch(({ name }) => told.push(name));
    },
    [name, wanted],
  );

/** Waits until a page was told just that. */
const told = (page, name, expected) =>
  eventually(
    async () => {
      const seen = await page.evaluate((name) => kept[name], name);
      return JSON.stringify(seen) === JSON.stringify(expected) ? seen : null;
    },
    { what: `to be told ${JSON.stringify(expected)}` },
  );

const placed = (sequence, stream, items = [1]) => [sequence, stream, 'placed', 1, { items }];
const shipped = (sequence, stream) => [sequence, stream, 'shipped', 1, {}];

both('events are told in one order to everybody, once the server has them', async (stage) => {
  const { options } = await stage.synced();
  const [tab, second, elsewhere] = [await stage.tab(), await stage.tab(), await stage.otherTab()];
  for (const page of [tab, second, elsewhere]) await openIn(page, 'shop', options);
  await follow(tab, 'all');
  await follow(second, 'one', 'order', 'o-1');
  await follow(elsewhere, 'shipped', 'order', { types: ['shipped'] });
  await mutates(tab, 'place', { id: 'o-1', items: [1] });
  await mutates(elsewhere, 'place', { id: 'o-2', items: [1] });
  await mutates(elsewhere, 'ship', { id: 'o-1' });
  await told(tab, 'all', [placed(1, 'o-1'), placed(2, 'o-2'), shipped(3, 'o-1')]);
  await told(second, 'one', [placed(1, 'o-1'), shipped(3, 'o-1')]);
  await told(elsewhere, 'shipped', [shipped(3, 'o-1')]);
  assert.deepEqual(await rowsIn(tab, 'select id, state from orders order by id'), [
    { id: 'o-1', state: 'shipped' },
    { id: 'o-2', state: null },
  ]);
  // What cannot follow leaves no event, here or there.
  const { error } = await mutateIn(tab, 'ship', { id: 'o-9' });
  assert.match(error.message, /no such order/);

  // Offline a mutation shows at once what follows, and its event is told when it has its place.
  await tab.evaluate(() => kept.db.disconnect());
  await statusBecomes(tab, { connection: 'offline' });
  await mutates(tab, 'place', { id: 'o-3', items: [] }, 'durable');
  const place = 'select sequence from tidelog_events order by sequence desc limit 1';
  assert.deepEqual(await rowsIn(tab, place), [{ sequence: 4 }]);
  await mutates(elsewhere, 'place', { id: 'o-4', items: [] });
  await tab.evaluate(() => kept.db.connect());
  const rest = [placed(4, 'o-4', []), placed(5, 'o-3', [])];
  await told(tab, 'all', [placed(1, 'o-1'), placed(2, 'o-2'), shipped(3, 'o-1'), ...rest]);

  // A loop that is left is over, and so is one whose document is closed.
  await second.evaluate(() => kept['stop one']());
  await told(second, 'one', [placed(1, 'o-1'), shipped(3, 'o-1'), 'end']);
  await closeIn(elsewhere);
  await told(elsewhere, 'shipped', [shipped(3, 'o-1'), 'DocumentClosedError']);
});

both('a consumer goes on where it ended, across a reload', async (stage) => {
  const { options } = await stage.synced();
  const tab = await stage.tab();
  await openIn(tab, 'shop', options);
  for (const id of ['o-1', 'o-2', 'o-3']) await mutates(tab, 'place', { id, items: [1] });
  await follow(tab, 'mail', { consumer: 'mail' });
  await told(tab, 'mail', [placed(1, 'o-1'), placed(2, 'o-2'), placed(3, 'o-3')]);
  // It has asked for what follows: all of them are dealt with, on the disk too before long.
  await mutates(tab, 'ship', { id: 'o-1' });
  await told(tab, 'mail', [
    placed(1, 'o-1'),
    placed(2, 'o-2'),
    placed(3, 'o-3'),
    shipped(4, 'o-1'),
  ]);
  await mutates(tab, 'ship', { id: 'o-2' }, 'durable');
  await reload(tab);
  await openIn(tab, 'shop', options);
  await follow(tab, 'mail', { consumer: 'mail', live: false });
  const [first] = await eventually(
    () => tab.evaluate(() => (kept.mail.at(-1) === 'end' ? kept.mail : null)),
    { what: 'the end' },
  );
  assert.ok(first === 'end' || first[0] >= 4, `told ${first} again`);
  // What is not followed on ends with what is confirmed by then.
  assert.equal(await syncIn(tab), null);
  await follow(tab, 'print', { consumer: 'print', live: false });
  await told(tab, 'print', [
    placed(1, 'o-1'),
    placed(2, 'o-2'),
    placed(3, 'o-3'),
    shipped(4, 'o-1'),
    shipped(5, 'o-2'),
    'end',
  ]);
});

both('a newer release is told older events as it knows them', async (stage) => {
  const { options } = await stage.synced();
  const [tab, elsewhere] = await stage.twoDevices();
  await openIn(tab, 'shop', options);
  await mutates(tab, 'place', { id: 'o-1', items: [1] });
  await openIn(elsewhere, 'shopWithGifts', options);
  assert.equal(await syncIn(elsewhere), null);
  await follow(elsewhere, 'all', 'order');
  await mutates(elsewhere, 'place', { id: 'o-2', items: [2] });
  await told(elsewhere, 'all', [
    [1, 'o-1', 'placed', 2, { items: [1], gift: false }],
    [2, 'o-2', 'placed', 2, { items: [2] }],
  ]);
  // The older release goes on beside it.
  await mutates(tab, 'place', { id: 'o-3', items: [3] });
  await follow(tab, 'all', 'order');
  await told(tab, 'all', [
    placed(1, 'o-1'),
    [2, 'o-2', 'placed', 2, { items: [2] }],
    placed(3, 'o-3', [3]),
  ]);
});

both(
  'a local document has events as well, and says what is wrong with what is wanted',
  async (stage) => {
    const tab = await stage.tab();
    await openIn(tab, 'shop', { document: stage.document });
    await mutates(tab, 'place', { id: 'o-1', items: [1] });
    await follow(tab, 'all', 'order', 'o-1', { live: false });
    await told(tab, 'all', [placed(1, 'o-1'), 'end']);
    const said = await tab.evaluate(async () => {
      const why = (...wanted) => {
        try {
          kept.db.events(...wanted);
          return null;
        } catch ({ code, message }) {
          return `${code}: ${message}`;
        }
      };
      const list = await tidelog.open(doctypes.list, { document: 'list of no events' });
      const none = await outcome(async () => list.events());
      await list.close();
      return [
        why('orders'),
        why('order', { types: ['lost'] }),
        why({ after: -1 }),
        why({ consumer: '' }),
        none.error.message,
      ];
    });
    assert.deepEqual(said, [
      'invalid-option: shop has no stream orders: it has order',
      'invalid-option: shop has no event lost there: it has placed,shipped',
      'invalid-option: after has to be the sequence number of an event, or 0',
      'invalid-option: consumer has to be a name',
      'list has no streams or workflows for events: see tidelog/events',
    ]);
  },
);

atLeast(4);
