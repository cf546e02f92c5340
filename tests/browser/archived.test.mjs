// Events that have left their document for the archive at its server.

import assert from 'node:assert/strict';
import { both, openIn, rowsIn, statusBecomes, syncIn } from './harness.mjs';

/** As many as a state is kept after. */
const EVENTS = 1_000;

/** The sequence numbers of the stream's events behind one, or what the loop has failed by. */
const told = (page, after = 0) =>
  page.evaluate(async (after) => {
    const sequences = [];
    try {
      for await (const event of kept.db.events('order', 'o-1', { after, live: false })) {
        sequences.push(event.sequence);
      }
    } catch ({ name, code, outcome }) {
      return { name, code, outcome };
    }
    return sequences;
  }, after);

const upTo = (last, first = 1) => Array.from({ length: last + 1 - first }, (_, n) => first + n);

/**
 * Goal: what has left is told in its place as long as there is a server, and it is said where there
 * is none. Method: a tab keeps a state, all events but the last are archived, and it and a device
 * that comes later read them; online, offline, and online again.
 */
both('events are told across the border of the archive', async (stage) => {
  const { options, server } = await stage.synced();
  const tab = await stage.tab();
  await openIn(tab, 'works', options);
  const handled = await tab.evaluate(async (count) => {
    for (let at = 0; at < count; at += 1) kept.db.mutate.ship({ id: 'o-1', by: 'van' });
    await kept.db.sync();
    let seen;
    const handling = kept.db.handle('order', {
      initial: 0,
      evolve: { shipped: (state) => state + 1, paid: (state) => state + 1 },
      snapshot: 'v1',
      commands: {
        pay: ({ state }) => {
          seen = state;
          return [{ type: 'paid' }];
        },
      },
    });
    await kept.db.send.order.pay('o-1', {}, { key: 'k0' }).completed;
    await handling.close();
    return seen;
  }, EVENTS);
  assert.equal(handled, EVENTS);
  const at = `${server.http}/v1/documents/${encodeURIComponent(options.document)}/events/archive`;
  const answer = await fetch(at, { method: 'POST', body: '{"aggregate":"order"}' });
  const { events, next } = await answer.json();
  assert.deepEqual([events, next], [EVENTS, null]);

  const elsewhere = await stage.otherTab();
  await openIn(elsewhere, 'works', options);
  for (const page of [tab, elsewhere]) {
    await syncIn(page);
    const here = 'select group_concat(sequence) as sequences from tidelog_events';
    assert.deepEqual(await rowsIn(page, here), [{ sequences: String(EVENTS + 1) }]);
    assert.deepEqual(await told(page), upTo(EVENTS + 1));
  }

  await elsewhere.evaluate(() => kept.db.disconnect());
  await statusBecomes(elsewhere, { connection: 'offline' });
  const error = { name: 'ArchivedError', code: 'archived', outcome: 'none' };
  assert.deepEqual(await told(elsewhere), error);
  assert.deepEqual(await told(elsewhere, EVENTS), [EVENTS + 1], 'what is here needs no server');
  await elsewhere.evaluate(() => kept.db.connect());
  await statusBecomes(elsewhere, { connection: 'online' });
  assert.deepEqual(await told(elsewhere), upTo(EVENTS + 1));
});
