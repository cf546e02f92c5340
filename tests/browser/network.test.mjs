// Networks that fail in every way, and what is left of it once they work again.

import assert from 'node:assert/strict';
import { startProxy, TROUBLES } from './harness/proxy.mjs';
import {
  atLeast,
  both,
  contentOf,
  eventually,
  exportFrom,
  openIn,
  ready,
  sleep,
} from './harness.mjs';

const CLIENTS = 4;
const TROUBLED_MS = 15_000;

/** By when all are equal once every way is open again. */
const HEALED_MS = 5_000;

/** Issues a mutation now and then until told to stop, whatever becomes of the ones before. */
const startWriting = (page, prefix) =>
  page.evaluate((prefix) => {
    const run = { issued: [] };
    const timer = setInterval(() => {
      const id = `${prefix}-${run.issued.length}`;
      run.issued.push(kept.db.mutate.count({ id, title: id }));
    }, 150);
    run.stop = () => clearInterval(timer);
    kept.run = run;
  }, prefix);

both('who writes over ways that break and stall agrees soon after they heal', async (stage) => {
  // Goal: M6. Method: four clients, each with a way of its own to one server, which is cut, stalled
  // or stalled in one direction, a while each, while all write. Then all ways are opened at once.
  const { server } = await stage.synced();
  const device = await stage.ownDevice().launch();
  const clients = [];
  for (let number = 0; number < CLIENTS; number += 1) {
    const proxy = await startProxy(server.ws);
    stage.onEnd(() => proxy.close());
    const page = await device.openApart(stage.site.url('app.html'));
    await ready(page);
    await openIn(page, 'list', { document: stage.document, server: proxy.ws });
    clients.push({ proxy, page });
  }
  for (const [number, { page }] of clients.entries()) await startWriting(page, `c${number}`);

  const until = performance.now() + TROUBLED_MS;
  for (let turn = 0; performance.now() < until; turn += 1) {
    for (const [number, { proxy }] of clients.entries()) {
      // Each way meets each trouble, and between two of them it is open for a while.
      const step = turn + number * 3;
      proxy.become(step % 2 ? 'open' : TROUBLES[(step / 2) % TROUBLES.length]);
    }
    await sleep(1_200);
  }
  // Whatever has been noticed by then, each way ends in a trouble of its own that is new to it.
  for (const { proxy } of clients) proxy.become('open');
  await sleep(600);
  for (const [number, { proxy }] of clients.entries()) proxy.become(TROUBLES[number]);
  await sleep(2_000);
  for (const { page } of clients) await page.evaluate(() => kept.run.stop());
  const healed = performance.now();
  for (const { proxy } of clients) proxy.become('open');

  const issued = await Promise.all(
    clients.map(({ page }) => page.evaluate(() => kept.run.issued.length)),
  );
  const total = issued.reduce((sum, count) => sum + count, 0);
  const rowsAndPending = ({ page }) =>
    page.evaluate(async () => {
      const [{ rows }] = await kept.db.query('select count(*) as rows from item');
      return [rows, kept.db.status.pending];
    });
  let states;
  await eventually(
    async () => {
      states = await Promise.all(clients.map(rowsAndPending));
      return states.every(([rows, pending]) => rows === total && pending === 0);
    },
    { withinMs: 60_000, what: `${total} rows everywhere` },
  ).catch((error) => {
    throw new Error(`${error.message}: rows and pending ${JSON.stringify(states)}`);
  });
  const ms = performance.now() - healed;
  stage.note(`${total} mutations; equal ${Math.round(ms)} ms after healing`);
  assert.ok(ms < HEALED_MS, `equal ${Math.round(ms)} ms after healing`);

  const copy = contentOf(await server.export(stage.document));
  assert.equal(copy.tables.item.length, total);
  for (const { page } of clients) {
    assert.deepEqual(contentOf(await exportFrom(page)), copy);
    const runs = await page.evaluate(() => kept.db.query('select distinct runs from item'));
    assert.deepEqual(runs, [{ runs: 1 }], 'nothing was applied twice');
    await page.evaluate(() => Promise.all(kept.run.issued.map(({ confirmed }) => confirmed)));
  }
});

atLeast(1);
