// Processes that share documents through the server, and handlers that go on where they were killed.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { prepareServer } from '../browser/harness/tidelog-server.mjs';
import { eventually } from '../browser/harness/time.mjs';
import { Stage } from './process.mjs';

let server;
let documents = 0;
before(async () => {
  server = await prepareServer();
  await server.start();
});
after(() => server.dispose());

/** Options of a document that no other test has. */
function synced() {
  documents += 1;
  return { document: `node-${documents}`, server: server.ws };
}

const idsIn = async (process_) =>
  (await process_.query('select id from item order by id')).map(({ id }) => id);

const becomes = (process_, ids) =>
  eventually(async () => (await idsIn(process_)).join() === ids, { what: ids });

const sync = (process_) => process_.run(() => kept.db.sync());

test('two processes see what each other issues, also what was issued offline', async (t) => {
  const stage = new Stage(t);
  const [ada, bob] = [stage.process(), stage.process()];
  const options = synced();
  const folder = stage.folder();
  await ada.open('list', { ...options, folder });
  await bob.open('list', options);
  await ada.mutate('add', { id: 'a', title: 'a' }, 'confirmed');
  await bob.mutate('add', { id: 'b', title: 'b' }, 'confirmed');
  await becomes(ada, 'a,b');
  await becomes(bob, 'a,b');

  await ada.run(() => kept.db.disconnect());
  await ada.mutate('add', { id: 'c', title: 'c' });
  await ada.mutate('claim', { id: 'seat', by: 'ada' });
  await bob.mutate('claim', { id: 'seat', by: 'bob' }, 'confirmed');
  await ada.kill();
  const later = stage.process();
  await later.open('list', { ...options, folder });
  await later.run(() => {
    kept.rejected = [];
    kept.db.on('rejected', ({ mutation, reason }) => kept.rejected.push([mutation, reason]));
  });
  await sync(later);
  assert.deepEqual(await idsIn(later), ['a', 'b', 'c']);
  assert.deepEqual(await later.query('select body from note'), [{ body: 'bob' }]);
  await eventually(() => later.run(() => kept.rejected.length === 1));
  assert.deepEqual(await later.run(() => kept.rejected), [['claim', 'already taken']]);
  await becomes(bob, 'a,b,c');

  // Who is present is told too, and the connection that Node has itself serves as well.
  const own = stage.process({ execArgv: ['--experimental-websocket'] });
  await own.open('list', { ...options, webSocket: undefined });
  await becomes(own, 'a,b,c');
  await own.mutate('add', { id: 'd', title: 'd' }, 'confirmed');
  await becomes(later, 'a,b,c,d');
  await own.close();
  assert.deepEqual(await own.leave(), { code: 0, signal: null });
  await later.run(() => kept.db.presence.set({ name: 'ada' }));
  await eventually(() => bob.run(() => kept.db.presence.others.length === 1));
});

test('a server that goes away and comes back is gone on with', async (t) => {
  const stage = new Stage(t);
  const own = await prepareServer();
  t.after(() => own.dispose());
  const options = { document: 'away', server: own.ws, folder: stage.folder() };
  const process_ = stage.process();
  await process_.open('list', options);
  await process_.mutate('add', { id: 'a', title: 'a' });
  assert.equal(await process_.run(() => kept.db.status.pending), 1);
  await own.start();
  await sync(process_);
  await own.kill();
  await eventually(() => process_.run(() => kept.db.status.connection !== 'online'));
  await process_.mutate('add', { id: 'b', title: 'b' });
  await own.start();
  await sync(process_);
  assert.equal(await process_.run(() => kept.db.status.pending), 0);
  assert.equal((await own.document('away')).state, 'whole');
});

test('a consumer that is killed again and again is told each event at least once, in order', async (t) => {
  const stage = new Stage(t);
  const [shop, watcher] = [stage.process(), stage.process()];
  const options = synced();
  await shop.open('shop', options);
  await watcher.open('shop', options);
  const mail = { ...options, folder: stage.folder() };
  const handled = [];
  let placed = 0;
  for (let round = 0; round < 5; round += 1) {
    const handler = stage.process();
    await handler.open('shop', mail);
    await handler.run(() => {
      (async () => {
        for await (const { sequence } of kept.db.events('order', { consumer: 'mail' })) {
          report(sequence);
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      })();
    });
    for (let at = 0; at < 10; at += 1) {
      placed += 1;
      await shop.mutate('place', { id: `o-${placed}`, items: [1] }, 'confirmed');
    }
    const [first = 1] = [handled.at(-1)];
    await eventually(() => handler.reports.length > 0 && handler.reports.at(-1) > first);
    if (round === 4) await eventually(() => handler.reports.at(-1) === placed);
    await handler.kill();
    handled.push(...handler.reports);
  }
  const times = new Map();
  for (const sequence of handled) times.set(sequence, (times.get(sequence) ?? 0) + 1);
  const expected = Array.from({ length: placed }, (_, index) => index + 1);
  assert.deepEqual(
    [...times.keys()].sort((a, b) => a - b),
    expected,
  );
  assert.ok(handled.length < 3 * placed, `${handled.length} were told of ${placed}`);

  const seen = await watcher.run(async () => {
    await kept.db.sync();
    const seen = [];
    for await (const { sequence } of kept.db.events({ live: false })) seen.push(sequence);
    return seen;
  });
  assert.deepEqual(seen, expected);
});

test('a token that cannot be had does not end the process, and is asked for again', async (t) => {
  const stage = new Stage(t);
  const env = { TIDELOG_WRITER_PASSWORD: 'a long password of a writer' };
  const own = await prepareServer({ env });
  t.after(() => own.dispose());
  await own.start();
  const response = await fetch(`${own.http}/v1/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ user: 'writer', password: env.TIDELOG_WRITER_PASSWORD }),
  });
  const { token } = await response.json();
  const process_ = stage.process();
  await process_.run(
    async (server, token) => {
      let asked = 0;
      const options = {
        document: 'token',
        server,
        webSocket,
        token: () => {
          asked += 1;
          if (asked < 3) throw new Error('no network');
          return token;
        },
      };
      kept.db = await tidelog.open(doctypes.list, options);
    },
    own.ws,
    token,
  );
  // The doctype was deployed by nobody: the token at least was taken.
  const error = await eventually(() =>
    process_.run(
      () => /doctype|deploy/.test(kept.db.status.error?.message) && kept.db.status.error.message,
    ),
  );
  assert.match(error, /list/);
  assert.match(process_.said, /no network/);
});
