// One process has a folder, for as long as it lives; and what is said where a folder is no good.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually } from '../browser/harness/time.mjs';
import { Stage } from './process.mjs';

const RACERS = 4;
const RACES = 6;

test('a second process is told who has the folder, and has it once that is killed', async (t) => {
  const stage = new Stage(t);
  const options = { document: 'a', folder: stage.folder() };
  const [first, second] = [stage.process(), stage.process()];
  await first.open('list', options);
  await first.mutate('add', { id: 'a', title: 'a' });
  const error = await second.tryOpen('list', options);
  assert.equal(error.name, 'FolderInUseError');
  assert.equal(error.code, 'folder-in-use');
  assert.equal(error.outcome, 'none');
  assert.match(error.message, new RegExp(`process ${first.pid} on `));
  const { folder } = options;
  const destroying = second.run((folder) => tidelog.destroyAll({ folder }), folder);
  await assert.rejects(destroying, { code: 'folder-in-use' });
  // One that is stopped is there.
  first.kill('SIGSTOP');
  assert.equal((await second.tryOpen('list', options)).code, 'folder-in-use');
  await first.kill();
  await second.open('list', options);
  assert.deepEqual(await second.query('select id from item'), [{ id: 'a' }]);
});

test('of several that want a folder at once just one has it, whatever was left behind', async (t) => {
  const stage = new Stage(t);
  const options = { document: 'a', folder: stage.folder() };
  let racers = Array.from({ length: RACERS }, () => stage.process());
  for (let race = 0; race < RACES; race += 1) {
    const errors = await Promise.all(racers.map((it) => it.tryOpen('list', options)));
    const codes = errors.map((error) => error?.code ?? 'has it').sort();
    assert.deepEqual(codes, [...Array(RACERS - 1).fill('folder-in-use'), 'has it']);
    // Killed, or closed properly.
    const winner = racers[errors.indexOf(null)];
    if (race % 2 === 0) {
      await winner.kill();
      racers = racers.map((it) => (it === winner ? stage.process() : it));
    } else await winner.close();
  }
  // What has had its time is cleared away.
  const left = readdirSync(path.join(options.folder, 'tidelog'));
  assert.equal(left.filter((name) => name.startsWith('lock')).length, 1);
});

test('however many race for a lock and are killed with it, no two have it at once', async (t) => {
  const folder = new Stage(t).folder();
  const script = fileURLToPath(new URL('racer.mjs', import.meta.url));
  const until = performance.now() + 3_000;
  let killed = 0;
  const race = async () => {
    while (performance.now() < until) {
      const racer = spawn(process.execPath, [script, folder, '1500'], { stdio: 'pipe' });
      let said = '';
      racer.stderr.on('data', (text) => {
        said += text;
      });
      const [code, signal] = await once(racer, 'close');
      if (signal === 'SIGKILL') killed += 1;
      else assert.equal(code, 0, said);
    }
  };
  await Promise.all(Array.from({ length: RACERS }, race));
  assert.ok(killed > 0, 'some were killed');
});

test('all that is open in a process shares an engine; another thread is refused', async (t) => {
  const stage = new Stage(t);
  const folder = stage.folder();
  const process_ = stage.process();
  const link = `${folder}-link`;
  symlinkSync(folder, link);
  t.after(() => rmSync(link));
  await Promise.all([
    process_.open('list', { document: 'a', folder }, 'one'),
    process_.open('list', { document: 'a', folder: `${folder}/.` }, 'two'),
    process_.open('list', { document: 'b', folder: link }, 'other'),
  ]);
  assert.equal(await process_.run(() => threads.length), 1);
  await process_.mutate('add', { id: 'a', title: 'a' }, 'durable', 'one');
  assert.deepEqual(await process_.query('select id from item', 'two'), [{ id: 'a' }]);
  assert.deepEqual(await process_.query('select id from item', 'other'), []);
  const { storage, persisted, usage, quota } = await eventually(() =>
    process_.run(() => kept.one.status.persisted && { ...kept.one.status, error: null }),
  );
  assert.deepEqual([storage, persisted], ['folder', true]);
  assert.ok(usage > 8192 && quota > usage, `${usage} of ${quota} bytes`);

  const refused = await process_.run(
    (folder, at) =>
      new Promise((resolve, reject) => {
        const text = `
          import { parentPort } from 'node:worker_threads';
          const { open, doctype } = await import(${JSON.stringify(at)});
          const list = doctype({ name: 'none', migrations: [], mutations: {} });
          open(list, { document: 'a', folder: ${JSON.stringify(folder)} }).then(
            () => parentPort.postMessage('has it'),
            ({ message }) => parentPort.postMessage(message),
          );`;
        const address = new URL(`data:text/javascript,${encodeURIComponent(text)}`);
        const thread = new threads[0].constructor(address);
        thread.once('message', resolve);
        thread.once('error', reject);
      }),
    folder,
    import.meta.resolve('tidelog/node'),
  );
  assert.match(refused, /another thread of this process/);

  // It is free for others once the last one is closed, and can be opened while that happens.
  await process_.close('one');
  await process_.close('other');
  const reopened = process_.open('list', { document: 'a', folder }, 'again');
  await Promise.all([process_.close('two'), reopened]);
  assert.deepEqual(await process_.query('select id from item', 'again'), [{ id: 'a' }]);
  await process_.close('again');
  const next = stage.process();
  await next.open('list', { document: 'a', folder });
});

test('a folder may lie deep, and may be an address', async (t) => {
  const stage = new Stage(t);
  const folder = path.join(stage.folder(), ...Array(6).fill('a folder with a long name'), 'ü');
  const [first, second] = [stage.process(), stage.process()];
  const address = new URL(`file://${folder.replaceAll(' ', '%20')}`);
  await first.run(async (address) => {
    const options = { document: 'a', folder: new URL(address) };
    kept.db = await tidelog.open(doctypes.list, options);
  }, address.href);
  const options = { document: 'a', folder };
  assert.equal((await second.tryOpen('list', options)).code, 'folder-in-use');
  await first.kill();
  await second.open('list', options);
});

test('a folder that cannot be written is told at once', async (t) => {
  const stage = new Stage(t);
  const folder = stage.folder();
  const process_ = stage.process();
  writeFileSync(path.join(folder, 'file'), '');
  mkdirSync(path.join(folder, 'other/tidelog/log-a'), { recursive: true });
  const refused = async (at) => {
    const began = performance.now();
    const error = await process_.tryOpen('list', { document: 'a', folder: at });
    assert.equal(error?.name, 'StorageError', `${at}: ${error?.message}`);
    assert.ok(performance.now() - began < 10_000);
    return error.message;
  };
  assert.match(await refused(path.join(folder, 'file')), /cannot be made/);
  assert.match(await refused('/proc/nothing'), /cannot be made/);
  // Something else has the name of one of its files.
  await refused(path.join(folder, 'other'));
  for (const wrong of ['', 1, null, new URL('http://example.org/')]) {
    const error = await process_.run(
      (wrong) => tidelog.open(doctypes.list, { document: 'a', folder: wrong }).catch(errorOf),
      wrong instanceof URL ? 'a\0b' : wrong,
    );
    assert.equal(error.code, 'invalid-option', `${wrong}`);
  }
});
