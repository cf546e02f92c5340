// What a process said is durable is there after it was killed, and what is full or gone is told.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { crc32c } from '../browser/harness/store-files.mjs';
import { eventually, sleep } from '../browser/harness/time.mjs';
import { Stage } from './process.mjs';

const ROUNDS = 20;

/** Issues rows without an end, some of them large, and reports each that is durable. */
const writeOn = (first) => {
  let next = first;
  const go = async () => {
    for (;;) {
      const id = String(next++).padStart(6, '0');
      const title = next % 50 === 0 ? id.repeat(50_000) : id;
      await kept.db.mutate.add({ id, title });
      report(id);
    }
  };
  for (let writer = 0; writer < 3; writer += 1) go();
};

test('SIGKILL at any moment keeps every durable row', async (t) => {
  const stage = new Stage(t);
  const options = { document: 'killed', folder: stage.folder() };
  const durable = new Set();
  for (let round = 0; round < ROUNDS; round += 1) {
    const process_ = stage.process();
    await process_.open('list', options);
    const rows = await process_.query('select id, title from item order by id');
    const found = new Set(rows.map(({ id }) => id));
    for (const id of durable) assert.ok(found.has(id), `round ${round} lost ${id}`);
    for (const { id, title } of rows) assert.equal(title.replaceAll(id, ''), '', 'rows are whole');
    // What is issued in order is recorded in order.
    assert.deepEqual(
      [...found].map(Number),
      [...found.keys()].map((_, index) => index),
    );
    await process_.run(writeOn, found.size);
    await eventually(() => process_.reports.length > 0);
    await sleep(Math.random() * 100);
    await process_.kill();
    for (const id of [...found, ...process_.reports]) durable.add(id);
  }
  assert.ok(durable.size > 2 * ROUNDS, `only ${durable.size} rows were written`);
});

test('a process that ends with what it has issued keeps what was durable', async (t) => {
  const stage = new Stage(t);
  const options = { document: 'exits', folder: stage.folder() };
  const first = stage.process();
  await first.open('list', options);
  await first
    .run(async () => {
      await kept.db.mutate.add({ id: 'a', title: 'a' });
      process.exit(3);
    })
    .catch(() => {});
  assert.deepEqual(await first.ended, { code: 3, signal: null });
  const second = stage.process();
  await second.open('list', options);
  assert.deepEqual(await second.query('select id from item'), [{ id: 'a' }]);
});

// A limit on the size of a file, which can be lifted while a process runs, stands in for a device.
const skip = process.platform !== 'linux';

test('a full disk is told, and is used again once there is room', { skip }, async (t) => {
  const stage = new Stage(t);
  const options = { document: 'full', folder: stage.folder() };
  const process_ = stage.process({ limit: '-Sf 12000' });
  await process_.open('list', options);
  await process_.mutate('add', { id: 'a', title: 'a' });
  const failed = await process_.run(async () => {
    for (let at = 0; ; at += 1) {
      try {
        await kept.db.mutate.add({ id: `large ${at}`, title: 'x'.repeat(500_000) });
      } catch (error) {
        return errorOf(error);
      }
    }
  });
  assert.equal(failed.name, 'StorageFullError');
  assert.equal(failed.ours, true);
  assert.deepEqual(await process_.query(`select id from item where id = 'a'`), [{ id: 'a' }]);
  execFileSync('prlimit', [`--pid=${process_.pid}`, '--fsize=unlimited:']);
  await eventually(
    () =>
      process_.mutate('add', { id: 'z', title: 'z' }).then(
        () => true,
        () => false,
      ),
    {
      everyMs: 200,
    },
  );
  await process_.kill();
  const later = stage.process();
  await later.open('list', options);
  const rows = await later.query(`select id from item where id in ('a', 'z') order by id`);
  assert.deepEqual(rows, [{ id: 'a' }, { id: 'z' }]);
});

test('a newer format is refused and left untouched, and destroyAll is the way out', async (t) => {
  const stage = new Stage(t);
  const options = { document: 'newer', folder: stage.folder() };
  const log = path.join(options.folder, 'tidelog/log-a');
  const process_ = stage.process();
  await process_.open('list', options);
  await process_.mutate('add', { id: 'a', title: 'a' });
  await process_.close();
  const before = readFileSync(log);
  const newer = Buffer.from(before);
  for (const at of [0, 4096]) {
    newer.writeUInt32LE(2, at + 8);
    newer.writeUInt32LE(crc32c(newer.subarray(at, at + 508)), at + 508);
  }
  writeFileSync(log, newer);
  const error = await process_.tryOpen('list', options);
  assert.equal(error?.name, 'NewerFormatError');
  assert.deepEqual(readFileSync(log), newer);
  writeFileSync(log, before);
  await process_.open('list', options);
  assert.deepEqual(await process_.query('select id from item'), [{ id: 'a' }]);
  await process_.close();
  writeFileSync(log, newer);
  await process_.run((folder) => tidelog.destroyAll({ folder }), options.folder);
  await process_.open('list', options);
  assert.deepEqual(await process_.query('select id from item'), []);
});

test('a damaged store can be read, says so, and takes no more', async (t) => {
  const stage = new Stage(t);
  const options = { document: 'hurt', folder: stage.folder() };
  const log = path.join(options.folder, 'tidelog/log-a');
  const process_ = stage.process();
  await process_.open('list', options);
  for (const id of ['first', 'second', 'third']) {
    await process_.mutate('add', { id, title: `the ${id}` });
  }
  await process_.close();
  const bytes = readFileSync(log);
  const at = bytes.indexOf('the second');
  assert.ok(at > 8192, 'it is in the log');
  bytes[at] ^= 1;
  writeFileSync(log, bytes);
  await process_.open('list', options);
  const failed = await process_.mutate('add', { id: 'late', title: '' }).catch((error) => error);
  assert.equal(failed.name, 'StorageError');
  assert.equal(failed.outcome, 'none');
  assert.match(failed.message, /damaged/);
});

test('files that are deleted under it are noticed, and no write into them is called durable', async (t) => {
  const stage = new Stage(t);
  const process_ = stage.process();
  for (const deleted of ['', 'log-a']) {
    const options = { document: 'gone', folder: stage.folder() };
    const store = path.join(options.folder, 'tidelog');
    await process_.open('list', options);
    await process_.mutate('add', { id: 'a', title: 'a' });
    rmSync(path.join(store, deleted), { recursive: true });
    const began = performance.now();
    const failed = await process_.mutate('add', { id: 'b', title: 'b' }).catch((error) => error);
    assert.deepEqual([failed.name, failed.outcome], ['StorageError', 'unknown'], failed.message);
    assert.ok(performance.now() - began < 5_000);
    const refused = await process_.mutate('add', { id: 'c', title: 'c' }).catch((error) => error);
    assert.deepEqual([refused.name, refused.outcome], ['StorageError', 'none'], refused.message);
    // What it has in memory can be saved.
    assert.deepEqual(await process_.query(`select id from item where id = 'a'`), [{ id: 'a' }]);
    await process_.close();
    // Whoever opens it again begins anew, unless that would throw away what is left.
    if (deleted) {
      assert.equal((await process_.tryOpen('list', options)).name, 'StorageError');
      await process_.run((folder) => tidelog.destroyAll({ folder }), options.folder);
    }
    await process_.open('list', options);
    assert.deepEqual(await process_.query('select id from item'), []);
    await process_.close();
  }
  // Also where nothing is written.
  const options = { document: 'idle', folder: stage.folder() };
  await process_.open('list', options);
  rmSync(path.join(options.folder, 'tidelog'), { recursive: true });
  await eventually(() => process_.run(() => kept.db.status.error?.code === 'storage'));
});
