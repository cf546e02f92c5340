// Runs that a process of Node begins and one in Rust ends, and the other way round.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { rustWorker } from '../browser/harness/places.mjs';
import { prepareServer } from '../browser/harness/tidelog-server.mjs';
import { eventually } from '../browser/harness/time.mjs';
import { works } from '../pages/doctypes.mjs';
import { Stage } from './process.mjs';

let server;
before(async () => {
  server = await prepareServer();
  await server.start();
});
after(() => server.dispose());

/** Has a process of Node handle all there is: the same story as in `examples/worker.rs`. */
const handleInNode = (process_) =>
  process_.run(() => {
    const ask = ({ key }) => {
      report(`asked ${key}`);
      return key;
    };
    kept.handling = [
      kept.db.handle('order', { initial: 0, commands: { pay: () => [{ type: 'paid' }] } }),
      kept.db.handle('label', (_, { weight }) => weight * 2),
      kept.db.handle('fulfil', async (ctx, { order }) => {
        const drawn = ctx.random();
        const stamp = await ctx.step('stamp', () => drawn);
        const first = await ctx.request('label', ask);
        await ctx.sleep(20);
        const paid = await ctx.send.order.pay(order);
        const shipped = await ctx.waitFor('order', order, 'shipped');
        const weight = await ctx.start.label({ weight: 3 });
        const tear = () => {
          throw 'no paper';
        };
        const reason = await ctx.step('torn', tear, { retries: 0 }).catch((error) => error.reason);
        const keys = [first, await ctx.request('label', ask)];
        const { by } = shipped.data;
        return { stamp, keys, paid: paid.last - paid.first, by, weight, reason };
      }),
    ];
  });

/** A worker in Rust for a document. */
function startRust(t, stage, document, ...hangsAt) {
  const doctype = path.join(stage.folder(), 'works.json');
  writeFileSync(doctype, JSON.stringify(works));
  const child = spawn(rustWorker(), [server.ws, document, doctype, ...hangsAt]);
  t.after(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout.on('data', (text) => {
    said += text;
  });
  child.stderr.on('data', (text) => process.stderr.write(text));
  const exit = new Promise((resolve) => child.once('exit', (...how) => resolve(how)));
  return {
    lines: () => said.split('\n').filter((line) => line !== ''),
    isReady: () => eventually(() => said.includes('ready\n')),
    async close() {
      child.stdin.end();
      assert.deepEqual(await exit, [0, null]);
    },
    kill() {
      child.kill('SIGKILL');
      return exit;
    },
  };
}

const RECORDS = `select name, count, kind, state, result from tidelog_records
  where id = 'f-1' order by record`;

/** One run in a document of its own, and what it has come to. */
async function tell(t, document, beforeShipped, afterShipped) {
  const stage = new Stage(t);
  const shop = stage.process();
  await shop.open('works', { document, server: server.ws });
  await shop.run(async () => {
    kept.receipt = kept.db.start.fulfil({ order: 'order-7' }, { id: 'f-1' });
    await kept.receipt.confirmed;
  });
  const beginners = await beforeShipped(stage, document);
  const waits = "select 1 from tidelog_records where kind = 'event' and state = 'waiting'";
  await eventually(async () => (await shop.query(waits)).length === 1);
  await beginners.close();
  const enders = await afterShipped(stage, document);
  await shop.mutate('ship', { id: 'order-7', by: 'van' }, 'confirmed');
  const result = await shop.run(() => kept.receipt.completed);
  await shop.run(() => kept.db.sync());
  const records = await shop.query(RECORDS);
  await enders.close();
  return { result, records, asked: [...beginners.asked(), ...enders.asked()] };
}

/**
 * Goal: what a run remembers says nothing of whose code it ran by: it goes on in another language,
 * from any place. Method: one story told by both, alone and in turns, and its records compared.
 */
test('a run goes on in Rust that Node began, and the other way round', async (t) => {
  const node = async (stage, document) => {
    const process_ = stage.process();
    await process_.open('works', { document, server: server.ws });
    await handleInNode(process_);
    const close = () => process_.run(() => Promise.all(kept.handling.map((it) => it.close())));
    return { close, asked: () => process_.reports };
  };
  const rust = async (stage, document) => {
    const worker = startRust(t, stage, document);
    await worker.isReady();
    const asked = () => worker.lines().filter((line) => line !== 'ready');
    return { close: worker.close, asked };
  };
  const keys = ['fulfil/f-1~1/label/0', 'fulfil/f-1~1/label/1'];
  const stamp = 0.729999443891969;
  const result = { stamp, keys, paid: 0, by: 'van', weight: 6, reason: 'no paper' };
  const done = { count: 0, state: 'done' };
  const records = [
    { ...done, name: 'stamp', kind: 'step', result: JSON.stringify(stamp) },
    { ...done, name: 'label', kind: 'request', result: JSON.stringify(keys[0]) },
    { ...done, name: 'sleep', kind: 'sleep', result: null },
    { ...done, name: 'send:order.pay', kind: 'command', result: '{"first":1,"last":1}' },
    { ...done, name: 'waitFor:order.shipped', kind: 'event', result: '2' },
    { ...done, name: 'start:label', kind: 'workflow', result: '6' },
    { ...done, name: 'torn', kind: 'step', state: 'failed', result: 'no paper' },
    { ...done, name: 'label', count: 1, kind: 'request', result: JSON.stringify(keys[1]) },
  ];
  const asked = keys.map((key) => `asked ${key}`);
  const expected = { result, records, asked };
  const stories = { 'node-node': [node, node], 'rust-rust': [rust, rust] };
  Object.assign(stories, { 'node-rust': [node, rust], 'rust-node': [rust, node] });
  for (const [document, [one, other]] of Object.entries(stories)) {
    assert.deepEqual(await tell(t, document, one, other), expected, document);
  }
});

/**
 * Goal: what a process in Rust dies amid goes on in Node, by the same key. Method: SIGKILL as a
 * request is under way, after which nobody says that the run is free: others have it in 30 seconds.
 */
test('a request amid which a process in Rust was killed Node makes once more', async (t) => {
  const [stage, document] = [new Stage(t), 'killed-in-rust'];
  const key = 'fulfil/f-1~1/label/0';
  const doomed = startRust(t, stage, document, key);
  const shop = stage.process();
  await shop.open('works', { document, server: server.ws });
  await shop.run(async () => {
    kept.receipt = kept.db.start.fulfil({ order: 'order-7' }, { id: 'f-1' });
    await kept.receipt.confirmed;
  });
  await eventually(() => doomed.lines().includes(`asked ${key}`));
  await doomed.kill();
  await handleInNode(shop);
  await shop.mutate('ship', { id: 'order-7', by: 'van' }, 'confirmed');
  const isOver = "select 1 from tidelog_workflows where id = 'f-1' and state = 'completed'";
  const ends = async () => (await shop.query(isOver)).length === 1;
  await eventually(ends, { withinMs: 60_000, what: 'the run to end' });
  const { keys } = await shop.run(() => kept.receipt.completed);
  assert.deepEqual(keys, [key, 'fulfil/f-1~1/label/1']);
  assert.deepEqual(
    shop.reports,
    keys.map((it) => `asked ${it}`),
  );
});
