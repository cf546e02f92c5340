// Workflows: runs that go on in whichever tab handles them, and do nothing again that was done.

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

/**
 * Has a page do all that there is to do. It keeps what it was asked by which key, and hangs at the
 * one that is named.
 */
const handle = (page, { hangsAt = '' } = {}) =>
  page.evaluate((hangsAt) => {
    kept.did = [];
    kept.errors = [];
    const options = { onError: (error, run) => kept.errors.push([String(error), run?.id]) };
    const ask = async ({ key }) => {
      kept.did.push(key);
      if (hangsAt && key.includes(hangsAt)) await new Promise(() => {});
      return key;
    };
    const fulfil = async (ctx, { order }) => {
      const begunAt = ctx.now;
      try {
        const paid = await ctx.send.order.pay(order);
        const label = await ctx.start.label({ weight: 5 });
        const stamps = [];
        for (let at = 0; at < 3; at += 1) stamps.push(await ctx.request('stamp', ask));
        const shipped = await ctx.waitFor('order', order, 'shipped');
        const late = await ctx.waitFor('order', order, 'shipped', { timeout: 50, name: 'late' });
        await ctx.sleep(300);
        return [paid, label, stamps.length, shipped.data.by, late, ctx.now - begunAt >= 300];
      } catch (error) {
        if (error.code !== 'workflow-cancelled') throw error;
        await ctx.sleep(10, { name: 'a while' });
        await ctx.step('tear up', () => kept.did.push('torn up'));
        throw error;
      }
    };
    const rounds = async (ctx, { left }) => {
      const key = await ctx.request('round', ask);
      if (left > 0) ctx.continueAsNew({ left: left - 1 });
      return key;
    };
    const steps = async (ctx, { count }) => {
      const keys = new Set();
      for (let at = 0; at < count; at += 1) keys.add(await ctx.request('step', ask));
      return keys.size;
    };
    const label = (ctx, { weight }) => ctx.step('print', () => ({ weight, printed: true }));
    const { db } = kept;
    const pay = { initial: 0, commands: { pay: () => [{ type: 'paid' }] } };
    kept.handling = [
      db.handle('order', pay, options),
      db.handle('fulfil', fulfil, options),
      db.handle('label', label, options),
      db.handle('rounds', rounds, options),
      db.handle('steps', { 1: steps }, options),
    ];
  }, hangsAt);

/** Starts a run. Says what it has come to. */
const start = (page, workflow, args, id) =>
  page.evaluate(
    async ([workflow, args, id]) => {
      const { completed } = kept.db.start[workflow](args, { id });
      const { value, error } = await outcome(completed);
      return error ? { ...error } : value;
    },
    [workflow, args, id],
  );

const did = (page) => page.evaluate(() => kept.did);
const errors = (page) => page.evaluate(() => kept.errors);

/** Waits until the run waits for that. */
const waitsFor = (page, name, id) =>
  eventually(
    async () => {
      const sql = `select 1 from tidelog_records as record join tidelog_workflows as run
                     on run.number = record.number
                   where record.name = '${name}' and record.id = '${id}'
                     and record.state = 'waiting' and run.state = 'waiting'`;
      return (await rowsIn(page, sql)).length > 0;
    },
    { what: `${id} to wait for ${name}` },
  );

const completed = (first) => [
  { first, last: first },
  { weight: 5, printed: true },
  3,
  'bob',
  null,
  true,
];

both('a run goes on from step to step, and its end is told where it was started', async (stage) => {
  const { options } = await stage.synced();
  const [tab, second] = [await stage.tab(), await stage.tab()];
  for (const page of [tab, second]) await openIn(page, 'works', options);
  await handle(second);
  const ended = start(tab, 'fulfil', { order: 'o-1' }, 'f-1');
  await waitsFor(tab, 'waitFor:order.shipped', 'f-1');
  await mutateIn(tab, 'ship', { id: 'o-1', by: 'bob' });
  assert.deepEqual(await ended, completed(1));
  const stamps = [0, 1, 2].map((at) => `fulfil/f-1~1/stamp/${at}`);
  assert.deepEqual([await did(second), await errors(second)], [stamps, []]);
  // Once more it is the same run, and nobody has anything to do.
  assert.deepEqual(await start(tab, 'fulfil', { order: 'o-1' }, 'f-1'), completed(1));
  const outcome = await tab.evaluate(() => kept.db.outcome('fulfil', 'f-1'));
  assert.deepEqual(outcome, completed(1));
  assert.deepEqual(await did(second), stamps);
  const reused = await start(tab, 'fulfil', { order: 'o-2' }, 'f-1');
  assert.deepEqual([reused.name, reused.code], ['KeyReusedError', 'key-reused']);
  const states = await rowsIn(tab, 'select workflow, state from tidelog_workflows order by number');
  assert.deepEqual(states, [
    { workflow: 'fulfil', state: 'completed' },
    { workflow: 'label', state: 'completed' },
  ]);
});

both('a run that is cancelled puts right what it has done', async (stage) => {
  const { options } = await stage.synced();
  const [tab, second] = [await stage.tab(), await stage.tab()];
  for (const page of [tab, second]) await openIn(page, 'works', options);
  const cancel = (id) =>
    tab.evaluate(async (id) => {
      const { error } = await outcome(kept.db.cancel.fulfil(id).confirmed);
      return error ? error.message : null;
    }, id);
  // Nobody has begun it.
  const unbegun = start(tab, 'fulfil', { order: 'o-0' }, 'f-0');
  await eventually(async () => (await rowsIn(tab, 'select 1 from tidelog_workflows')).length > 0);
  assert.equal(await cancel('f-0'), null);
  assert.equal((await unbegun).name, 'WorkflowCancelledError');

  await handle(second);
  const ended = start(tab, 'fulfil', { order: 'o-1' }, 'f-1');
  await waitsFor(tab, 'waitFor:order.shipped', 'f-1');
  assert.equal(await cancel('f-1'), null);
  const { name, code, message } = await ended;
  assert.deepEqual([name, code], ['WorkflowCancelledError', 'workflow-cancelled']);
  assert.match(message, /run f-1 of workflow fulfil was cancelled/);
  assert.deepEqual((await did(second)).at(-1), 'torn up');
  assert.deepEqual(await errors(second), []);
  assert.equal(await cancel('f-1'), null);
  assert.match(await cancel('none'), /there is no run none of workflow fulfil/);
});

both('a run goes on as new, and asks by other keys', async (stage) => {
  const { options } = await stage.synced();
  const tab = await stage.tab();
  await openIn(tab, 'works', options);
  await handle(tab);
  const last = await start(tab, 'rounds', { left: 2 }, 'r');
  const keys = await did(tab);
  assert.equal(keys[0], 'rounds/r~1/round/0');
  assert.equal(new Set(keys).size, 3);
  assert.equal(last, keys[2]);
  const failing = await start(tab, 'label', { weight: 1 });
  assert.deepEqual(failing, { weight: 1, printed: true });
});

both('a run whose tab is closed amid a request goes on in another one', async (stage) => {
  const { options } = await stage.synced();
  const [tab, second, third] = [await stage.tab(), await stage.tab(), await stage.tab()];
  for (const page of [tab, second, third]) await openIn(page, 'works', options);
  await handle(second, { hangsAt: 'step/7' });
  const ended = start(tab, 'steps', { count: 20 }, 's');
  await eventually(async () => (await did(second)).length === 8, { what: 'the eighth step' });
  const before = await did(second);
  await handle(third);
  await second.close();
  assert.equal(await ended, 20);
  const keys = Array.from({ length: 20 }, (_, at) => `steps/s~1/step/${at}`);
  // What was under way was asked once more, with its key, and nothing else.
  assert.deepEqual([before, await did(third)], [keys.slice(0, 8), keys.slice(7)]);
});

both('started offline from two devices, across a reload, it is one run', async (stage) => {
  const { options } = await stage.synced();
  const [tab, elsewhere] = await stage.twoDevices();
  for (const page of [tab, elsewhere]) {
    await openIn(page, 'works', options);
    assert.equal(await syncIn(page), null);
    await page.evaluate(() => kept.db.disconnect());
    await statusBecomes(page, { connection: 'offline' });
    await page.evaluate(() => kept.db.start.steps({ count: 2 }, { id: 's' }));
    const runs = 'select id, state from tidelog_workflows';
    assert.deepEqual(await rowsIn(page, runs), [{ id: 's', state: 'received' }]);
  }
  await reload(tab);
  await openIn(tab, 'works', options);
  for (const page of [tab, elsewhere]) {
    await handle(page);
    await page.evaluate(() => kept.db.connect());
  }
  for (const page of [tab, elsewhere]) {
    assert.equal(await page.evaluate(() => kept.db.outcome('steps', 's')), 2);
  }
  const asked = [...(await did(tab)), ...(await did(elsewhere))];
  assert.deepEqual(asked, ['steps/s~1/step/0', 'steps/s~1/step/1']);
});

both('a local document has its runs go on by itself, after a reload too', async (stage) => {
  const tab = await stage.tab();
  await openIn(tab, 'works', { document: stage.document });
  await handle(tab);
  const begun = start(tab, 'fulfil', { order: 'o-1' }, 'f-1').catch(() => {});
  await waitsFor(tab, 'waitFor:order.shipped', 'f-1');
  await reload(tab);
  await begun;
  await openIn(tab, 'works', { document: stage.document });
  await handle(tab);
  await mutateIn(tab, 'ship', { id: 'o-1', by: 'bob' });
  const ended = await tab.evaluate(() => kept.db.outcome('fulfil', 'f-1'));
  assert.deepEqual(ended, completed(1));
  assert.deepEqual([await did(tab), await errors(tab)], [[], []]);
  await tab.evaluate(() => Promise.all(kept.handling.map((it) => it.close())));
});

atLeast(6);
