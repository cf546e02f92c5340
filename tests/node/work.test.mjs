// Workers of many documents, which are closed but for as long as there is something to do.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { work } from 'tidelog/node';
import { WebSocket } from 'ws';
import { prepareServer } from '../browser/harness/tidelog-server.mjs';
import { eventually } from '../browser/harness/time.mjs';
import * as doctypes from '../pages/doctypes.mjs';
import { Stage } from './process.mjs';

const DOCUMENTS = 50;
/** Until the first of them goes on: by then all are closed, on a machine that is busy too. */
const SLEEP_MS = 60_000;
/** Until runs go on that are due at one moment: most sleep by then in closed documents. */
const WAVE_MS = 20_000;
/** Within which time a run goes on that sleeps in a closed document, on a machine that has much else
 * to do: a second is promised. One that were told again alone would take ten. */
const LATE_MS_MAX = 5_000;

/** Has a process work for all shops. Runs sleep until the time that is their argument. */
const works = (process_, server, options = {}) =>
  process_.run(
    (server, options) => {
      kept.errors = [];
      const steps = async (ctx, { count: at }) => {
        const now = await ctx.step('begin', () => {
          report({ began: ctx.id });
          return Date.now();
        });
        await ctx.sleep(Math.max(1, at - now));
        await ctx.step('wake', () => report({ woke: ctx.id, late: Date.now() - at }));
        await ctx.send.order.pay(ctx.id);
      };
      const order = { initial: 0, commands: { pay: () => [{ type: 'paid' }] } };
      const onError = (error, { document }) => kept.errors.push(`${document}: ${error}`);
      const of = { server, webSocket, documents: 'shops/*', onError, ...options };
      kept.working = tidelog.work(doctypes.works, of, { steps, order });
    },
    server.ws,
    options,
  );

const stopped = (process_) => process_.run(() => kept.working.close().then(() => kept.errors));

/** Opens each document, starts a run in it that sleeps until then, and leaves. */
const begin = (process_, server, names, at) =>
  process_.run(
    async (server, names, at) => {
      const begun = names.map(async (name, nth) => {
        const db = await tidelog.open(doctypes.works, { document: name, server, webSocket });
        await db.start.steps({ count: at[nth] }, { id: name }).confirmed;
        await db.close();
      });
      await Promise.all(begun);
    },
    server.ws,
    names,
    at,
  );

const completed = (process_, server, names) =>
  process_.run(
    async (server, names) => {
      const states = names.map(async (name) => {
        const db = await tidelog.open(doctypes.works, { document: name, server, webSocket });
        await db.sync();
        const [row] = await db.query(
          `select (select group_concat(state) from tidelog_workflows) as runs,
                  (select group_concat(type) from tidelog_events) as events`,
        );
        await db.close();
        return `${row.runs} ${row.events}`;
      });
      return Promise.all(states);
    },
    server.ws,
    names,
  );

/**
 * Goal: runs that sleep in closed documents go on in time, each once, whatever has died: the server,
 * and one of those who work. Method: two processes work for 50 documents; as all runs sleep and all
 * documents are closed the server is killed, and begins anew; as half of them have gone on, one of
 * the two is killed.
 */
test('runs that sleep in closed documents go on in time whoever is killed', async (t) => {
  const server = await prepareServer();
  t.after(() => server.dispose());
  await server.start();
  const stage = new Stage(t);
  const names = Array.from({ length: DOCUMENTS }, (_, nth) => `shops/${nth}`);
  const first = Date.now() + SLEEP_MS;
  // Two bursts, with a pause between them in which somebody dies.
  const at = names.map((_, nth) => first + nth * 100 + (nth < DOCUMENTS / 2 ? 0 : 5_000));
  const [shop, doomed, steady] = [stage.process(), stage.process(), stage.process()];
  await works(doomed, server);
  await works(steady, server);
  await begin(shop, server, names, at);
  const begun = () => [...doomed.reports, ...steady.reports].filter((it) => it.began);
  const isClosed = async (name) => (await server.document(name)).clients === 0;
  await eventually(
    async () =>
      begun().length === DOCUMENTS &&
      (await Promise.all(names.map(isClosed))).every((closed) => closed),
    { withinMs: SLEEP_MS, what: 'all runs to sleep in closed documents' },
  );
  await server.kill();
  await server.start();
  assert.ok(Date.now() < first, 'all of them sleep yet');
  // They are told a second ahead.
  await new Promise((resolve) => setTimeout(resolve, first - 1_500 - Date.now()));
  const metrics = await (await fetch(`${server.http}/metrics`)).text();
  if (Date.now() < first - 1_000) assert.match(metrics, /^tidelog_rooms 0$/m, 'none is open yet');
  const woken = () => [...doomed.reports, ...steady.reports].filter((it) => it.woke);
  await eventually(() => woken().length >= DOCUMENTS / 2, { withinMs: 60_000 });
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  await doomed.kill();
  await eventually(() => woken().length >= DOCUMENTS, { withinMs: 60_000 });
  const once = Array(DOCUMENTS).fill('completed paid');
  let states;
  await eventually(async () => {
    states = await completed(shop, server, names);
    return states.every((it) => it === once[0]);
  });
  assert.deepEqual(states, once);
  assert.deepEqual(
    woken()
      .map((it) => it.woke)
      .sort(),
    [...names].sort(),
    'each once',
  );
  const late = woken().map((it) => it.late);
  t.diagnostic(`late by at most ${Math.max(...late)} ms`);
  assert.ok(Math.max(...late) <= LATE_MS_MAX, `${late}`);
  assert.ok(doomed.reports.some((it) => it.woke) && steady.reports.some((it) => it.woke), 'shared');
  const errors = await stopped(steady);
  assert.ok(errors.length >= 1, 'it was told that the server was away');
  assert.ok(
    errors.every((it) => it.startsWith('undefined: ')),
    `${errors}`,
  );
});

/**
 * Goal: nothing is lost of what is due at one moment in more documents than can be open, where one
 * of those who work dies amid it. Method: two processes, with few documents each, one of which is
 * killed as it has some of the runs go on.
 */
test('what is due at one moment goes on though a worker is killed amid it', async (t) => {
  const server = await prepareServer();
  t.after(() => server.dispose());
  await server.start();
  const stage = new Stage(t);
  const names = Array.from({ length: 30 }, (_, nth) => `shops/${nth}`);
  const [shop, doomed, steady] = [stage.process(), stage.process(), stage.process()];
  await begin(shop, server, names, Array(names.length).fill(Date.now() + WAVE_MS));
  for (const process_ of [doomed, steady]) await works(process_, server, { documentsMax: 3 });
  const wokenBy = (process_) => process_.reports.filter((it) => it.woke).map((it) => it.woke);
  await eventually(() => wokenBy(doomed).length >= 4, { withinMs: WAVE_MS + 60_000 });
  await doomed.kill();
  const woken = new Set([...wokenBy(doomed), ...wokenBy(steady)]);
  assert.ok(woken.size < names.length, 'others are due yet');
  const once = Array(names.length).fill('completed paid');
  let states;
  await eventually(
    async () => {
      states = await completed(shop, server, names);
      return states.every((it) => it === once[0]);
    },
    { withinMs: 90_000, everyMs: 1_000 },
  );
  assert.deepEqual(states, once);
  assert.deepEqual(await stopped(steady), []);
});

/** Goal: a worker has no more documents open than it may, and none when there is nothing to do.
 * Method: work in more of them than that, which takes a while. */
test('few documents are open at a time', async (t) => {
  const server = await prepareServer();
  t.after(() => server.dispose());
  await server.start();
  const stage = new Stage(t);
  const names = Array.from({ length: 12 }, (_, nth) => `shops/${nth}`);
  const [shop, worker] = [stage.process(), stage.process()];
  await begin(shop, server, names, Array(12).fill(Date.now()));
  await works(worker, server, { documentsMax: 3 });
  const clients = async () => {
    const all = await Promise.all(names.map((name) => server.document(name)));
    return all.reduce((sum, { clients }) => sum + clients, 0);
  };
  let most = 0;
  const states = () => completed(shop, server, names);
  await eventually(
    async () => {
      most = Math.max(most, await clients());
      return worker.reports.filter((it) => it.woke).length === 12;
    },
    { withinMs: 60_000 },
  );
  assert.ok(most >= 1 && most <= 3, `${most} are open`);
  await eventually(async () => (await clients()) === 0, { what: 'all of them to be closed' });
  assert.deepEqual(await states(), Array(12).fill('completed paid'));
  assert.deepEqual(await stopped(worker), []);
  // Nothing keeps it going.
  assert.deepEqual(await worker.leave(), { code: 0, signal: null });
});

test('what cannot be worked for is said at once', () => {
  const options = { server: 'ws://127.0.0.1:9', webSocket: WebSocket, documents: 'shops/*' };
  const tries = (of, handlers) => () => work(doctypes.works, { ...options, ...of }, handlers);
  const steps = async () => {};
  const invalid = { name: 'InvalidOptionError' };
  assert.throws(tries({ documents: 'a*b' }, { steps }), invalid);
  assert.throws(tries({ documents: undefined }, { steps }), invalid);
  assert.throws(tries({ server: 'http://127.0.0.1:9' }, { steps }), invalid);
  assert.throws(tries({ documentsMax: 0 }, { steps }), invalid);
  assert.throws(tries({ folder: '.' }, { steps }), invalid);
  assert.throws(tries({ concurrency: 0 }, { steps }), invalid);
  assert.throws(tries({}, { order: { initial: 0, commands: { pai: () => [] } } }), invalid);
  assert.throws(tries({}, {}), invalid);
  assert.throws(tries({}, { stepz: steps }), invalid);
});

/** Goal: a server that is away is waited for, and one that refuses is told of. Method: nobody is
 * there; and a server that asks for a token. */
test('who works without a server or a token is told, and can stop', async (t) => {
  const server = await prepareServer({ env: { TIDELOG_ADMIN_PASSWORD: 'secret' } });
  t.after(() => server.dispose());
  const errors = [];
  const onError = (error, at) => errors.push([error.name, error.status, at]);
  const options = { server: server.ws, webSocket: WebSocket, documents: '*', onError };
  const working = work(doctypes.works, options, { steps: async () => {} });
  await eventually(() => errors.length > 0);
  assert.deepEqual(errors[0], ['TypeError', undefined, {}]);
  await server.start();
  await eventually(() => errors.length > 1);
  assert.deepEqual(errors[1], ['DueRefusedError', 401, {}]);
  await working.close();
});
