// Commands whose handlers are killed and frozen, again and again.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { prepareServer } from '../browser/harness/tidelog-server.mjs';
import { eventually, sleep } from '../browser/harness/time.mjs';
import { Stage } from './process.mjs';

/** Sent at first, and more as the one that was frozen goes on. */
const COMMANDS = 1_000;
const ALL = 1_500;
const AGGREGATES = 50;
const KILLS = 20;
/** After so many of them one is frozen: it is missed once all of them are over. */
const FREEZES_AFTER = 15;
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

/** Sends commands from one number to another: each is known by its own. */
const send = (process_, from, to) =>
  process_.run(
    async (from, to, aggregates) => {
      kept.ended ??= [];
      for (let nth = from; nth < to; nth += 1) {
        kept.db.send.order.pay(`o-${nth % aggregates}`, { nth }).completed.then(
          ({ events }) => kept.ended.push(events.map(({ data }) => data.nth).join()),
          (error) => kept.ended.push(`${nth}: ${error}`),
        );
      }
      await kept.db.sync();
    },
    from,
    to,
    AGGREGATES,
  );

/** Has a process do what there is to do, and report what it begins and of which state. Where it
 * `waits` for some commands, these take until it is told to go on. */
const handle = (process_, concurrency, ms, waits = []) =>
  process_.run(
    (concurrency, ms, waits) => {
      const goesOn = new Promise((resolve) => {
        kept.goOn = resolve;
      });
      const pay = async ({ state }, { nth }) => {
        report({ nth, state });
        await (waits.includes(nth) ? goesOn : new Promise((resolve) => setTimeout(resolve, ms)));
        return [{ type: 'paid', data: { nth } }];
      };
      const paid = (count) => count + 1;
      const handler = { initial: 0, evolve: { paid }, commands: { pay } };
      kept.db.handle('order', handler, { concurrency });
    },
    concurrency,
    ms,
    waits,
  );

/**
 * Goal: each command completes once, in the order of its stream and of the state that the one
 * before it has left; none is stuck for longer than it takes to miss who was at it; and what
 * somebody says of it who was missed counts for nothing. Method: commands that may take as long as
 * they like, so that nothing but a missed handler gives them to others. Of two instances one is
 * killed twenty times amid its commands. The other one is frozen amid its own, and goes on while
 * somebody else is at these.
 */
test('commands whose handlers are killed or frozen complete once, and none is stuck', async (t) => {
  const stage = new Stage(t);
  const options = { document: 'killed', server: server.ws };
  const opened = async (...handles) => {
    const it = stage.process();
    await it.open('numbered', options);
    if (handles.length > 0) await handle(it, ...handles);
    return it;
  };
  const shop = await opened();
  const ended = () => shop.run(() => kept.ended);
  const frozen = await opened(HELD, 500);
  await send(shop, 0, COMMANDS);
  const begun = [];
  for (let at = 0; at < KILLS; at += 1) {
    if (at === FREEZES_AFTER) {
      const { length } = frozen.reports;
      await eventually(() => frozen.reports.length > length);
      frozen.kill('SIGSTOP');
    }
    const doomed = await opened(HELD, 20);
    await eventually(() => doomed.reports.length >= 3);
    await doomed.kill();
    begun.push(...doomed.reports);
  }
  const lastDied = Date.now();
  const done = new Set(await ended());
  const held = frozen.reports.map(({ nth }) => nth).filter((nth) => !done.has(`${nth}`));
  assert.ok(held.length > 0, 'it was frozen amid a command');
  const steady = await opened(AGGREGATES, 1, held);
  const numbers = Array.from({ length: ALL }, (_, nth) => nth);
  const isOther = (nth) => held.every((it) => it % AGGREGATES !== nth % AGGREGATES);
  const others = numbers.slice(0, COMMANDS).filter(isOther);
  const isAtHeld = () => held.every((it) => steady.reports.some(({ nth }) => nth === it));
  const allOthers = async () => {
    const over = new Set(await ended());
    return isAtHeld() && others.every((nth) => over.has(`${nth}`));
  };
  await eventually(allOthers, { withinMs: 60_000, what: 'all of other streams to end' });
  const stuckMs = Date.now() - lastDied;
  t.diagnostic(`the last one was done ${stuckMs} ms after the last death`);
  assert.ok(stuckMs <= STUCK_MS_MAX, `${stuckMs}`);
  // Somebody else is at what it was at.
  frozen.kill('SIGCONT');
  await send(shop, COMMANDS, ALL);
  await sleep(LATE_MS);
  const endedWhileHeld = new Set(await ended());
  assert.deepEqual(
    held.filter((nth) => endedWhileHeld.has(`${nth}`)),
    [],
    'somebody else is at these',
  );
  await steady.run(() => kept.goOn());
  const all = async () => (await ended()).length >= ALL;
  await eventually(all, { withinMs: 20_000, what: 'all commands to end' });
  const inOrder = (texts) => [...texts].sort((one, other) => one - other);
  assert.deepEqual(inOrder(await ended()), numbers.map(String));
  begun.push(...frozen.reports, ...steady.reports);
  const stateOf = (nth) => Math.floor(nth / AGGREGATES);
  assert.deepEqual(
    [...new Set(begun.map(({ nth, state }) => `${nth} of ${state}`))].sort(),
    numbers.map((nth) => `${nth} of ${stateOf(nth)}`).sort(),
  );
  // As many more as were under way when one died, at most.
  assert.ok(begun.length <= ALL + HELD * (KILLS + 1), `${begun.length}`);
  await shop.run(() => kept.db.sync());
  const commands = `select count(*) as sent, sum(state = 'completed') as completed
                    from tidelog_commands`;
  assert.deepEqual(await shop.query(commands), [{ sent: ALL, completed: ALL }]);
  const events = `select stream, position, data ->> 'nth' as nth from tidelog_events
                  where type = 'paid' order by nth`;
  const paid = (nth) => ({ stream: `o-${nth % AGGREGATES}`, position: stateOf(nth) + 1, nth });
  assert.deepEqual(await shop.query(events), numbers.map(paid));
});
