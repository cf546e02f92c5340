// States of streams that a document keeps, from which whoever handles its commands next begins.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { prepareServer } from '../browser/harness/tidelog-server.mjs';
import { Stage } from './process.mjs';

/** As many as a state is kept after. */
const EVENTS = 1_000;

let server;
before(async () => {
  server = await prepareServer();
  await server.start();
});
after(() => server.dispose());

/**
 * Has a process handle one command by a state that says how often it was shipped, and paid; gives
 * that state, and of how many events the process made it.
 */
const pay = (process_, key, snapshot) =>
  process_.run(
    async (key, snapshot) => {
      let folded = 0;
      let seen;
      const count = (name) => (state) => {
        folded += 1;
        return { ...state, [name]: state[name] + 1 };
      };
      const handling = kept.db.handle('order', {
        initial: { shipped: 0, paid: 0 },
        evolve: { shipped: count('shipped'), paid: count('paid') },
        snapshot,
        commands: {
          pay: ({ state }) => {
            seen = state;
            return [{ type: 'paid' }];
          },
        },
      });
      await kept.db.send.order.pay('o-1', {}, { key }).completed;
      await handling.close();
      return { ...seen, folded };
    },
    key,
    snapshot,
  );

/**
 * Goal: whoever handles commands of a long stream begins where somebody else has come to, and makes
 * the same of it. Method: processes that know nothing handle a command each, one of them with
 * another way of folding.
 */
test('a process that comes later folds but what came since', async (t) => {
  const stage = new Stage(t);
  const open = async () => {
    const opened = stage.process();
    await opened.open('works', { document: 'long', server: server.ws });
    await opened.run(() => kept.db.sync());
    return opened;
  };
  const first = await open();
  await first.run(async (count) => {
    for (let at = 0; at < count; at += 1) kept.db.mutate.ship({ id: 'o-1', by: 'van' });
    await kept.db.sync();
  }, EVENTS);
  const all = (paid) => ({ shipped: EVENTS, paid, folded: EVENTS + paid });
  assert.deepEqual(await pay(first, 'k0', 'v1'), all(0));
  const asked = 'select stream, name, position, state from tidelog_snapshots order by name';
  const state = `{"shipped":${EVENTS},"paid":0}`;
  const snapshot = { stream: 'o-1', name: 'v1', position: EVENTS, state };
  assert.deepEqual(await first.query(asked), [snapshot]);
  const second = await open();
  assert.deepEqual(await pay(second, 'k1', 'v1'), { shipped: EVENTS, paid: 1, folded: 1 });
  const third = await open();
  assert.deepEqual(await pay(third, 'k2', 'v2'), all(2));
  const newer = { ...snapshot, name: 'v2', position: EVENTS + 2 };
  newer.state = `{"shipped":${EVENTS},"paid":2}`;
  assert.deepEqual(await third.query(asked), [snapshot, newer]);
  const fourth = await open();
  assert.deepEqual(await pay(fourth, 'k3', 'v2'), { shipped: EVENTS, paid: 3, folded: 1 });
});
