// A process beside its documents: when it ends, what it keeps in memory, and engines that die.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { inRoot } from '../browser/harness/places.mjs';
import { eventually } from '../browser/harness/time.mjs';
import { Stage } from './process.mjs';

/** Runs a script of an app to its end, and gives what that has said. */
async function runs(script) {
  const text = `
    import { destroy, destroyAll, doctype, mutation, open } from 'tidelog/node';
    const list = doctype({
      name: 'list',
      migrations: ['create table item (id text primary key) strict'],
      mutations: { add: mutation({ id: 'text' }, 'insert into item values (:id)') },
    });
    ${script}`;
  const args = ['--input-type=module', '-e', text];
  const options = { cwd: inRoot(), timeout: 10_000 };
  const { stdout, stderr } = await promisify(execFile)(process.execPath, args, options);
  return stdout + stderr;
}

test('a process ends by itself once all is closed, and whatever it is at', async (t) => {
  const folder = JSON.stringify(new Stage(t).folder());
  const away = `server: 'ws://127.0.0.1:1', webSocket: (await import('ws')).WebSocket`;
  const said = await Promise.all([
    runs(`await using db = await open(list, { document: 'a' }); console.log('memory');`).catch(
      // Node 20 knows no such declaration.
      () =>
        runs(`const db = await open(list, { document: 'a' }); console.log('memory');
                  await db[Symbol.asyncDispose]();`),
    ),
    runs(`const db = await open(list, { document: 'a', folder: ${folder} });
          const other = await open(list, { document: 'b', folder: ${folder} });
          const live = db.live('select id from item');
          live.subscribe(() => {});
          db.mutate.add({ id: 'a' });
          await Promise.all([db.close(), other.close()]);
          console.log('folder');`),
    runs(`const db = await open(list, { document: 'a', ${away} });
          db.sync().catch(() => {});
          await db.mutate.add({ id: 'a' });
          await db.close();
          console.log('away');`),
    runs(`const db = await open(list, { document: 'a' });
          await db.mutate.add({ id: 'a' });
          console.log('exits');
          process.exit(0);`),
    runs(`await destroyAll(); await destroyAll({ user: 'ada' });
          await open(list, { document: '' }).catch(({ code }) => console.log(code));`),
    runs(''),
  ]);
  assert.deepEqual(said, ['memory\n', 'folder\n', 'away\n', 'exits\n', 'invalid-option\n', '']);
});

test('what is open keeps a process going', async (t) => {
  const stage = new Stage(t);
  const process_ = stage.process();
  await process_.open('list', { document: 'a' });
  await process_.run(() => {
    setTimeout(() => kept.db.close().then(() => console.log('closed')), 1_500).unref();
  });
  assert.deepEqual(await process_.leave(), { code: 0, signal: null });
  assert.equal(process_.said, 'closed\n');
});

test('documents in memory last as long as one of them is open', async (t) => {
  const process_ = new Stage(t).process();
  await process_.open('list', { document: 'a' }, 'one');
  await process_.open('list', { document: 'a' }, 'two');
  await process_.mutate('add', { id: 'a', title: 'a' }, 'confirmed', 'one');
  assert.deepEqual(await process_.query('select id from item', 'two'), [{ id: 'a' }]);
  const { storage, engine } = await process_.run(() => ({ ...kept.one.status, error: null }));
  assert.deepEqual({ storage, engine }, { storage: 'memory', engine: 'worker' });
  await process_.close('one');
  await process_.open('list', { document: 'a' }, 'three');
  await process_.close('two');
  assert.deepEqual(await process_.query('select id from item', 'three'), [{ id: 'a' }]);
  const size = await process_.run(async () => (await kept.three.export()).length);
  assert.ok(size >= 4096);
  await process_.close('three');
  await process_.open('list', { document: 'a' });
  assert.deepEqual(await process_.query('select id from item'), []);
});

test('copies are destroyed one by one, by user, and all at once', async (t) => {
  const stage = new Stage(t);
  const folder = stage.folder();
  const process_ = stage.process();
  const count = async (document, user) => {
    await process_.open('list', { document, user, folder }, 'look');
    const rows = await process_.query('select id from item', 'look');
    await process_.close('look');
    return rows.length;
  };
  const open = [
    ['a', undefined],
    ['b', undefined],
    ['a', 'ada'],
  ];
  for (const [document, user] of open) {
    await process_.open('list', { document, user, folder }, `${document} ${user}`);
    await process_.mutate('add', { id: 'a', title: 'a' }, 'durable', `${document} ${user}`);
  }
  const destroy = (...args) =>
    process_.run((...args) => tidelog.destroy(...args).catch(errorOf), ...args);
  const destroyAll = (options) =>
    process_.run((options) => tidelog.destroyAll(options).catch(errorOf), options);
  assert.equal((await destroy('a', { folder })).code, 'document-in-use');
  assert.equal((await destroyAll({ folder })).code, 'document-in-use');
  assert.equal((await destroyAll({ folder, document: 'a' })).code, 'invalid-option');
  assert.equal(await destroy('a', { folder, everywhere: true }), undefined);
  assert.equal(await destroyAll({ folder, user: 'ada', everywhere: true }), undefined);
  await process_.close('b undefined');
  assert.deepEqual([await count('a'), await count('b'), await count('a', 'ada')], [0, 1, 0]);
  assert.equal(await destroyAll({ folder }), undefined);
  assert.ok(!existsSync(path.join(folder, 'tidelog/log-a')));
  assert.equal(await count('b'), 0);
});

test('options that cannot be used are told, and so is a WebSocket that is missing', async (t) => {
  const process_ = new Stage(t).process();
  const wrong = (options) =>
    process_.run((options) => tidelog.open(doctypes.list, options).catch(errorOf), options);
  const server = 'ws://127.0.0.1:1';
  for (const [options, told] of [
    [undefined, /options have to be an object/],
    [{ document: 'a', workerUrl: 'x' }, /no option workerUrl/],
    [{ document: 'a', server: 'http://x' }, /ws:\/\//],
    [{ document: 'a', token: 'x' }, /token has to be a function/],
    [{ document: 'a', webSocket: 'ws' }, /webSocket has to be a class/],
    [{ document: 5 }, /document has to be a string/],
  ]) {
    const error = await wrong(options);
    assert.equal(error.name, 'InvalidOptionError');
    assert.match(error.message, told);
  }
  const missing = await process_.run(
    async (options) => {
      delete globalThis.WebSocket;
      return tidelog.open(doctypes.list, options).catch(errorOf);
    },
    { document: 'a', server },
  );
  assert.equal(missing.code, 'invalid-option');
  assert.match(missing.message, /has no WebSocket.*webSocket.*package ws.*Node 22/);
  // The class that Node has is used where it has one.
  const used = await process_.run(
    async (options) => {
      let url;
      globalThis.WebSocket = class {
        constructor(address) {
          url = address;
        }
        close() {}
      };
      const db = await tidelog.open(doctypes.list, options);
      while (!url) await new Promise((resolve) => setTimeout(resolve, 5));
      await db.close();
      return url;
    },
    { document: 'a', server },
  );
  assert.match(used, /^ws:\/\/127.0.0.1:1\/v1\/sync/);
});

test('an engine that dies is replaced: what was durable is there, what was asked is answered', async (t) => {
  const stage = new Stage(t);
  const process_ = stage.process();
  await process_.open('list', { document: 'a', folder: stage.folder() });
  await process_.mutate('add', { id: '0', title: '' });
  await process_.run(() => {
    kept.live = [];
    kept.db
      .live('select id from item order by id')
      .subscribe((rows) => rows && kept.live.push(rows));
  });
  for (let death = 1; death <= 3; death += 1) {
    const answers = await process_.run(async (death) => {
      const began = performance.now();
      const asked = [];
      for (let at = 0; at < 20; at += 1) {
        asked.push(kept.db.mutate.count({ id: `${death}`, title: '' }));
        asked.push(kept.db.query('select count(*) from item'));
        if (at === 10) threads.at(-1).terminate();
      }
      const settled = await Promise.allSettled(asked);
      const failed = settled.filter(({ status }) => status === 'rejected');
      return {
        took: performance.now() - began,
        failed: failed.map(({ reason }) => errorOf(reason)),
      };
    }, death);
    assert.ok(answers.took < 10_000, `it took ${answers.took} ms`);
    assert.deepEqual(answers.failed, []);
    const rows = await process_.query(`select runs from item where id = '${death}'`);
    assert.deepEqual(rows, [{ runs: 20 }], 'each ran once');
  }
  assert.ok((await process_.run(() => threads.length)) > 3);
  await eventually(() =>
    process_.run(
      () =>
        kept.live
          .at(-1)
          ?.map(({ id }) => id)
          .join() === '0,1,2,3',
    ),
  );
});

test('an engine that answers nothing, or does not start, is given up within ten seconds', async (t) => {
  const stage = new Stage(t);
  const [silent, late] = [stage.process(), stage.process()];
  await silent.open('list', { document: 'a', folder: stage.folder() });
  const asked = silent.run(async () => {
    threads[0].postMessage = () => {};
    const began = performance.now();
    const calls = [
      kept.db.mutate.add({ id: 'a', title: '' }),
      kept.db.query('select 1'),
      kept.db.export(),
      kept.db.close(),
    ];
    const settled = await Promise.allSettled(calls);
    const codes = settled.map(({ reason }) => reason && [reason.code, reason.outcome]);
    return { took: performance.now() - began, codes };
  });
  const opening = late.run(async (folder) => {
    kept.hangs = true;
    const began = performance.now();
    const error = await tidelog.open(doctypes.list, { document: 'a', folder }).catch(errorOf);
    kept.hangs = false;
    const took = performance.now() - began;
    // Whoever tries again may have better luck.
    kept.db = await tidelog.open(doctypes.list, { document: 'a', folder });
    await kept.db.close();
    return { took, code: error.code };
  }, stage.folder());
  const { took, codes } = await asked;
  // With its document open nobody knows whether it was closed there; here it is.
  assert.deepEqual(codes.slice(0, 3), [
    ['not-durable-yet', 'unknown'],
    ['engine', 'none'],
    ['engine', 'none'],
  ]);
  assert.ok(took < 11_000, `it took ${took} ms`);
  const opened = await opening;
  assert.equal(opened.code, 'engine');
  assert.ok(opened.took < 11_000, `opening took ${opened.took} ms`);
  for (const it of [silent, late]) assert.deepEqual(await it.leave(), { code: 0, signal: null });
});
