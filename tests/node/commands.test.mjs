// Commands whose handlers are killed and frozen, again and again.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { prepareServer } from '../browser/harness/tidelog-server.mjs';
import { eventually } from '../browser/harness/time.mjs';
import { Stage } from './process.mjs';

const COMMANDS = 1_000;
const AGGREGATES = 50;
const KILLS = 20;
/** Each holds so many aggregates until it is missed, so that some are left for the next. */
const HELD = 2;
/** What somebody held who is silent is given to others after 30 seconds, and done a moment later:
 * on a machine that has much else to do. */
const STUCK_MS_MAX = 36_000;
/** In which one that goes on says all that it had to say. */
const LATE_MS = 2_000;

let server;
before(async () => {
  server = await prepareServer();
  await server.start();
});
after(() => server.dispose());

/** Has a process do what there is to do, and report what it begins and of which state. */
const handle = (process_, concurrency, ms) =>
  process_.run(
    (concurrency, ms) => {
      const pay = async (ctx) => {
        report(`${ctx.stream}: ${ctx.state}`);
        await new Promise((resolve) => setTimeout(resolve, ms));
        return [{ type: 'paid' }];
      };
      const paid = (count) => count + 1;
      const handler = { initial: 0, evolve: { paid }, commands: { pay } };
      kept.db.handle('order', handler, { concurrency });
    },
    concurrency,
    ms,
  );

/**
 * Goal: each command completes once, of the state that the one before it has left, and none is
 * stuck for longer than it takes to miss who was at it. Method: of two instances one is frozen half
 * way through, and goes on when all is over; the other one is killed twenty times amid its
 * commands.
 */
test('commands whose handlers are killed or frozen complete once, and none is stuck', async (t) => {
  const stage = new Stage(t);
  const options = { document: 'killed', server: server.ws };
  const opened = async (concurrency, ms) => {
    const it = stage.process();
    await it.open('works', options);
    if (concurrency) await handle(it, concurrency, ms);
    return it;
  };
  const shop = await opened();
  const frozen = await opened(HELD, 50);
  await shop.run(
    async (commands, aggregates) => {
      kept.ended = [];
      for (let at = 0; at < commands; at += 1) {
        kept.db.send.order.pay(`o-${at % aggregates}`).completed.then(
          ({ events }) => kept.ended.push(events.length),
          (error) => kept.ended.push(String(error)),
        );
      }
      await kept.db.sync();
    },
    COMMANDS,
    AGGREGATES,
  );
  const begun = [];
  for (let at = 0; at < KILLS; at += 1) {
    if (at === KILLS / 2) frozen.kill('SIGSTOP');
    const doomed = await opened(HELD, 20);
    await eventually(() => doomed.reports.length >= 3);
    await doomed.kill();
    begun.push(...doomed.reports);
  }
  const lastDied = Date.now();
  const steady = await opened(AGGREGATES, 1);
  const all = () => shop.run((commands) => kept.ended.length === commands, COMMANDS);
  await eventually(all, { withinMs: 120_000, what: 'all commands to end' });
  const stuckMs = Date.now() - lastDied;
  t.diagnostic(`the last one ended ${stuckMs} ms after the last death`);
  assert.ok(stuckMs <= STUCK_MS_MAX, `${stuckMs}`);
  // What it was at is somebody else's by now.
  frozen.kill('SIGCONT');
  await new Promise((resolve) => setTimeout(resolve, LATE_MS));
  assert.deepEqual(await shop.run(() => kept.ended), Array(COMMANDS).fill(1));
  begun.push(...frozen.reports, ...steady.reports);
  const states = Array.from({ length: COMMANDS }, (_, at) => {
    return `o-${at % AGGREGATES}: ${Math.floor(at / AGGREGATES)}`;
  });
  assert.deepEqual([...new Set(begun)].sort(), states.sort());
  // As many more as were under way when one died, at most.
  assert.ok(begun.length <= COMMANDS + HELD * (KILLS + 1), `${begun.length}`);
  await shop.run(() => kept.db.sync());
  const commands = `select count(*) as sent, sum(state = 'completed') as completed
                    from tidelog_commands`;
  assert.deepEqual(await shop.query(commands), [{ sent: COMMANDS, completed: COMMANDS }]);
  const events = `select count(*) as paid, count(distinct stream) as streams, max(position) as last
                  from tidelog_events where type = 'paid'`;
  const each = COMMANDS / AGGREGATES;
  assert.deepEqual(await shop.query(events), [{ paid: COMMANDS, streams: AGGREGATES, last: each }]);
});
