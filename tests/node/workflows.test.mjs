// Runs that go on where processes are killed amid them, again and again.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { prepareServer } from '../browser/harness/tidelog-server.mjs';
import { eventually } from '../browser/harness/time.mjs';
import { Stage } from './process.mjs';

/** What a process that was killed was at, others are given after 30 seconds: meanwhile there are
 * other runs. */
const RUNS = 100;
const STEPS = 10;
const KILLS = 20;
const DOOMED_RUNS = 2;

let server;
before(async () => {
  server = await prepareServer();
  await server.start();
});
after(() => server.dispose());

/** Has a process do what there is to do, and report each request as it is under way. */
const handle = (process_, concurrency, ms) =>
  process_.run(
    (concurrency, ms) => {
      const pause = () => new Promise((resolve) => setTimeout(resolve, ms));
      kept.db.handle(
        'steps',
        async (ctx, { count }) => {
          const keys = new Set();
          for (let at = 0; at < count; at += 1) {
            const key = await ctx.request('step', async ({ key }) => {
              report(key);
              await pause();
              return key;
            });
            keys.add(key);
            if (at % 4 === 3) await ctx.sleep(20);
            if (at % 4 === 1) await ctx.send.order.pay(`${ctx.id}-${at}`);
          }
          return keys.size;
        },
        { concurrency },
      );
      kept.db.handle('order', { initial: 0, commands: { pay: () => [{ type: 'paid' }] } });
    },
    concurrency,
    ms,
  );

/**
 * Goal: each run completes once, each of its requests is made with one key, and each of its
 * commands is sent once, whatever dies. Method: two processes handle runs, of which one is killed
 * again and again amid its requests.
 */
test('runs whose processes are killed twenty times do each thing once', async (t) => {
  const stage = new Stage(t);
  const options = { document: 'killed', server: server.ws };
  const shop = stage.process();
  await shop.open('works', options);
  const steady = stage.process();
  await steady.open('works', options);
  await handle(steady, 2, 50);
  await shop.run(
    async (runs, count) => {
      kept.ended = [];
      for (let at = 0; at < runs; at += 1) {
        const receipt = kept.db.start.steps({ count }, { id: `s-${at}` });
        receipt.completed.then(
          (value) => kept.ended.push(value),
          (error) => kept.ended.push(String(error)),
        );
      }
      await kept.db.sync();
    },
    RUNS,
    STEPS,
  );
  const asked = [];
  for (let at = 0; at < KILLS; at += 1) {
    const doomed = stage.process();
    await doomed.open('works', options);
    await handle(doomed, DOOMED_RUNS, 20);
    await eventually(() => doomed.reports.length >= 3);
    await doomed.kill();
    asked.push(...doomed.reports);
  }
  const quick = stage.process();
  await quick.open('works', options);
  await handle(quick, 64, 1);
  const all = () => shop.run((runs) => kept.ended.length === runs, RUNS);
  await eventually(all, { withinMs: 120_000, what: 'all runs to end' });
  assert.deepEqual(await shop.run(() => kept.ended), Array(RUNS).fill(STEPS));
  asked.push(...steady.reports, ...quick.reports);
  const numbers = await shop.query('select id, number from tidelog_workflows');
  const keys = numbers.flatMap(({ id, number }) =>
    Array.from({ length: STEPS }, (_, at) => `steps/${id}~${number}/step/${at}`),
  );
  assert.deepEqual([...new Set(asked)].sort(), keys.sort());
  // As many more as were under way when one was killed, at most.
  assert.ok(asked.length <= keys.length + DOOMED_RUNS * KILLS, `${asked.length} of ${keys.length}`);
  await shop.run(() => kept.db.sync());
  const sum = `select count(*) as sent, count(distinct stream) as streams, sum(state = 'completed')
               as completed from tidelog_commands`;
  const sent = RUNS * Math.floor((STEPS + 2) / 4);
  assert.deepEqual(await shop.query(sum), [{ sent, streams: sent, completed: sent }]);
  const runs = 'select distinct state, is_cancelled from tidelog_workflows';
  assert.deepEqual(await shop.query(runs), [{ state: 'completed', is_cancelled: 0 }]);
});
