// Events that have left their document for the archive at its server.

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

/** Has a process handle one command, by a state that is kept by this name; gives how much it folded. */
const pay = (process_, key, snapshot) =>
  process_.run(
    async (key, snapshot) => {
      let folded = 0;
      const count = (state) => {
        folded += 1;
        return state + 1;
      };
      let seen;
      const handling = kept.db.handle('order', {
        initial: 0,
        evolve: { shipped: count, paid: count },
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
      return { seen, folded };
    },
    key,
    snapshot,
  );

/** The sequence numbers of the stream's events behind one. */
const told = (process_, after = 0) =>
  process_.run(async (after) => {
    const sequences = [];
    const options = { after, live: false };
    for await (const event of kept.db.events('order', 'o-1', options)) {
      sequences.push(event.sequence);
    }
    return sequences;
  }, after);

const upTo = (last, first = 1) => Array.from({ length: last + 1 - first }, (_, n) => first + n);

/**
 * Goal: what has left is told in its place, and folded, as long as there is a server, and it is said
 * where there is none. Method: all events but the last one are archived, under a device that goes on
 * and one that comes later; online, offline, and online again.
 */
test('events are told across the border of the archive', async (t) => {
  const stage = new Stage(t);
  const open = async () => {
    const opened = stage.process();
    await opened.open('works', { document: 'archived', server: server.ws });
    await opened.run(() => kept.db.sync());
    return opened;
  };
  const first = await open();
  await first.run(async (count) => {
    for (let at = 0; at < count; at += 1) kept.db.mutate.ship({ id: 'o-1', by: 'van' });
    await kept.db.sync();
  }, EVENTS);
  assert.deepEqual(await pay(first, 'k0', 'v1'), { seen: EVENTS, folded: EVENTS });
  const answer = await fetch(`${server.http}/v1/documents/archived/events/archive`, {
    method: 'POST',
    body: '{"aggregate":"order"}',
  });
  const { events, next } = await answer.json();
  assert.deepEqual([events, next], [EVENTS, null]);
  await first.run(() => kept.db.sync());
  const here = 'select group_concat(sequence) as sequences from tidelog_events';
  assert.deepEqual(await first.query(here), [{ sequences: String(EVENTS + 1) }]);
  const lengths = 'select length, archived from tidelog_streams';
  assert.deepEqual(await first.query(lengths), [{ length: EVENTS + 1, archived: EVENTS }]);

  const later = await open();
  for (const process_ of [first, later]) {
    assert.deepEqual(await told(process_), upTo(EVENTS + 1));
    assert.deepEqual(await told(process_, EVENTS - 1), upTo(EVENTS + 1, EVENTS));
  }
  assert.deepEqual(await pay(later, 'k1', 'v1'), { seen: EVENTS + 1, folded: 1 });
  assert.deepEqual(await pay(later, 'k2', 'v2'), { seen: EVENTS + 2, folded: EVENTS + 2 });

  await later.run(() => kept.db.disconnect());
  const { code, outcome } = await told(later).catch((error) => error);
  assert.deepEqual([code, outcome], ['archived', 'none']);
  assert.deepEqual(await told(later, EVENTS), upTo(EVENTS + 3, EVENTS + 1));
  await later.run(() => kept.db.connect());
  await later.run(() => kept.db.sync());
  assert.deepEqual(await told(later), upTo(EVENTS + 3));
});
