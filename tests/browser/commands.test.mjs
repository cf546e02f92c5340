// Commands: sent and handled in tabs of one device or of several, each of them over once.

import assert from 'node:assert/strict';
import {
  atLeast,
  both,
  eventually,
  mutateIn,
  openIn,
  reload,
  rowsIn,
  statusBecomes,
  syncIn,
} from './harness.mjs';

/** Has a page handle orders: it keeps what it was given, and what it was told of errors. */
const handle = (page, { hangs = false } = {}) =>
  page.evaluate((hangs) => {
    const given = [];
    const errors = [];
    kept.given = given;
    kept.errors = errors;
    kept.handling = kept.db.handle(
      'order',
      {
        initial: 0,
        evolve: { noted: (count) => count + 1 },
        commands: {
          place: async (ctx, { items }) => {
            given.push([ctx.command.number, ctx.command.attempt, ctx.state]);
            kept.signal = ctx.signal;
            if (hangs) await new Promise(() => {});
            await kept.pause;
            if (items.length === 0) ctx.fail('there is nothing in it');
            if (items.includes('paid')) ctx.send.order.pay(ctx.stream);
            return [{ type: 'placed', data: { items, noted: ctx.state } }];
          },
          pay: (ctx) => {
            const { attempt } = ctx.command;
            if (attempt === 1 || ctx.stream.startsWith('never')) throw new Error('no money');
            return [{ type: 'paid', data: { attempt } }];
          },
        },
      },
      { onError: (error, command) => errors.push([String(error), command?.attempt]) },
    );
  }, hangs);

/** Sends a command. Says what it has come to: its events, or why there are none. */
const send = (page, command, stream, args, key) =>
  page.evaluate(
    async ([command, stream, args, key]) => {
      const { completed } = kept.db.send.order[command](stream, args, { key });
      const { value, error } = await outcome(completed);
      if (error) return { ...error };
      return value.events.map(({ sequence, type, data }) => [sequence, type, data]);
    },
    [command, stream, args, key],
  );

const placed = (sequence, items, noted = 0) => [sequence, 'placed', { items, noted }];

const countIn = async (page) => {
  const [{ count }] = await rowsIn(page, 'select count(*) as count from tidelog_events');
  return count;
};

/** Waits until the page's handler was given something. */
const given = (page, count = 1) =>
  eventually(() => page.evaluate((count) => kept.given.length >= count, count), {
    what: 'a command is given',
  });

both('a command that one tab sends is handled by another one, once for each key', async (stage) => {
  const { options } = await stage.synced();
  const [tab, second] = [await stage.tab(), await stage.tab()];
  for (const page of [tab, second]) await openIn(page, 'depot', options);
  await handle(second);
  const first = await send(tab, 'place', 'o-1', { items: ['tea'] }, 'k');
  assert.deepEqual(first, [placed(1, ['tea'])]);
  const state = "select state from orders where id = 'o-1'";
  assert.deepEqual(await rowsIn(tab, state), [{ state: 'placed' }]);
  // Once more it is the same, and nobody has anything to do.
  assert.deepEqual(await send(tab, 'place', 'o-1', { items: ['tea'] }, 'k'), first);
  assert.equal(await countIn(tab), 1);
  assert.equal(await second.evaluate(() => kept.given.length), 1);
  const reused = await send(tab, 'place', 'o-1', { items: ['milk'] }, 'k');
  assert.deepEqual([reused.name, reused.code], ['KeyReusedError', 'key-reused']);
  assert.match(reused.message, /was sent by it before, with other arguments/);

  const failed = await send(tab, 'place', 'o-2', { items: [] }, 'k');
  assert.deepEqual([failed.name, failed.outcome], ['CommandFailedError', 'none']);
  assert.match(failed.message, /place of order o-2 has failed: there is nothing in it/);
  const why = "select state from orders where id = 'o-2'";
  assert.deepEqual(await rowsIn(tab, why), [{ state: 'there is nothing in it' }]);
  assert.deepEqual(await second.evaluate(() => kept.errors), []);
});

both('a handler that throws is asked again, and the last time is the end', async (stage) => {
  const { options } = await stage.synced();
  const tab = await stage.tab();
  await openIn(tab, 'depot', options);
  await handle(tab);
  const [paid, never] = await Promise.all([
    send(tab, 'pay', 'o-1', {}, 'k'),
    send(tab, 'pay', 'never', {}, 'k'),
  ]);
  assert.deepEqual(paid, [[1, 'paid', { attempt: 2 }]]);
  assert.equal(never.name, 'CommandFailedError');
  assert.match(never.message, /no money/);
  const thrown = await tab.evaluate(() =>
    kept.errors.map(([error, attempt]) => `${attempt} ${error}`),
  );
  assert.deepEqual(thrown.sort(), ['1 Error: no money', '1 Error: no money', '2 Error: no money']);
  // What a handler sends is handled behind its own command.
  await send(tab, 'place', 'o-3', { items: ['paid'] }, 'k');
  const followed = "select state from orders where id = 'o-3'";
  await eventually(async () => (await rowsIn(tab, followed))[0].state === 'paid', {
    what: 'what was sent to be handled',
  });
});

both('a command whose handler goes away is completed by another one, once', async (stage) => {
  const { options } = await stage.synced();
  const [tab, second, third] = [await stage.tab(), await stage.tab(), await stage.tab()];
  for (const page of [tab, second, third]) await openIn(page, 'depot', options);
  await handle(second, { hangs: true });
  const completed = send(tab, 'place', 'o-1', { items: ['tea'] }, 'k');
  await given(second);
  await handle(third);
  await second.close();
  assert.deepEqual(await completed, [placed(1, ['tea'])]);
  assert.deepEqual(await third.evaluate(() => kept.given), [[1, 2, 0]]);
  assert.equal(await countIn(tab), 1);
});

both('sent offline from two devices with one key, across a reload, it is one', async (stage) => {
  const { options } = await stage.synced();
  const [tab, elsewhere] = await stage.twoDevices();
  for (const page of [tab, elsewhere]) {
    await openIn(page, 'depot', options);
    assert.equal(await syncIn(page), null);
    await page.evaluate(() => kept.db.disconnect());
    await statusBecomes(page, { connection: 'offline' });
    await page.evaluate(() => kept.db.send.order.place('o-1', { items: ['tea'] }, { key: 'k' }));
    assert.deepEqual(await rowsIn(page, 'select * from orders'), [{ id: 'o-1', state: 'sent' }]);
  }
  await reload(tab);
  await openIn(tab, 'depot', options);
  for (const page of [tab, elsewhere]) {
    await handle(page);
    await page.evaluate(() => kept.db.connect());
  }
  for (const page of [tab, elsewhere]) {
    const events = await page.evaluate(async () => {
      const { events } = await kept.db.outcome('order', 'o-1', 'place', 'k');
      return events.map(({ sequence, type, data }) => [sequence, type, data]);
    });
    assert.deepEqual(events, [placed(1, ['tea'])]);
    assert.equal(await syncIn(page), null);
    assert.equal(await countIn(page), 1);
  }
  const [here, there] = await Promise.all(
    [tab, elsewhere].map((page) => page.evaluate(() => kept.given.length)),
  );
  assert.equal(here + there, 1);
});

both('a local document decides by all events of a stream, and by the newest', async (stage) => {
  const tab = await stage.tab();
  await openIn(tab, 'depot', { document: stage.document });
  const noted = await mutateIn(tab, 'note', { id: 'o-1', count: 1_000 });
  assert.equal(noted.error, undefined);
  await handle(tab);
  const first = await send(tab, 'place', 'o-1', { items: ['tea'] }, 'k');
  assert.deepEqual(first, [placed(1_001, ['tea'], 1_000)]);
  // While a handler decides, there is one event more: it decides anew.
  await tab.evaluate(() => {
    kept.pause = new Promise((resolve) => {
      kept.goOn = resolve;
    });
  });
  const second = send(tab, 'place', 'o-1', { items: ['milk'] }, 'l');
  await given(tab, 2);
  await mutateIn(tab, 'note', { id: 'o-1', count: 1 });
  await tab.evaluate(() => kept.goOn());
  assert.deepEqual(await second, [placed(1_003, ['milk'], 1_001)]);
  const states = await tab.evaluate(() => kept.given);
  assert.deepEqual(states, [
    [1, 1, 1_000],
    [2, 1, 1_000],
    [2, 1, 1_001],
  ]);
  await tab.evaluate(() => kept.handling.close());
});

atLeast(5);
