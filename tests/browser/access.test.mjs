// A server that lets nobody in whom it does not know: logins, roles, and tokens that end.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { list, listWithColor, works } from '../pages/doctypes.mjs';
import {
  atLeast,
  both,
  closeIn,
  contentOf,
  eventually,
  exportFrom,
  mutateIn,
  rowsIn,
  statusBecomes,
  statusIn,
  syncIn,
} from './harness.mjs';

const PASSWORDS = { admin: 'a password', writer: 'another one', reader: 'a third' };

/** A server with its three users and two doctypes of the pages, and what logs them in. */
async function guarded(stage, args = []) {
  const env = Object.fromEntries(
    Object.entries(PASSWORDS).map(([user, password]) => [
      `TIDELOG_${user.toUpperCase()}_PASSWORD`,
      password,
    ]),
  );
  const server = await stage.server({ env, args: ['--allow-origin', stage.site.origin, ...args] });
  const logIn = async (user, password = PASSWORDS[user]) => {
    const body = JSON.stringify({ user, password });
    const answer = await fetch(`${server.http}/v1/login`, { method: 'POST', body });
    return { status: answer.status, ...(answer.ok ? await answer.json() : {}) };
  };
  const { token } = await logIn('admin');
  const headers = { authorization: `Bearer ${token}` };
  const deploy = async (doctype) => {
    const deployed = await fetch(`${server.http}/v1/doctypes/${doctype.name}`, {
      method: 'PUT',
      headers,
      body: JSON.stringify(doctype),
    });
    assert.equal(deployed.status, 201);
  };
  for (const doctype of [list, works]) await deploy(doctype);
  /** What the server has of the test's document. */
  const exported = async () => {
    const at = `${server.http}/v1/documents/${encodeURIComponent(stage.document)}/export`;
    const answer = await fetch(at, { headers });
    return contentOf(new Uint8Array(await answer.arrayBuffer()));
  };
  return { server, logIn, deploy, exported };
}

/** Opens the list, or another document, with what this user has been given. */
const openAs = (page, server, document, token, doctype = 'list') =>
  page.evaluate(
    async ([document, server, given, doctype]) => {
      kept.token = given;
      kept.db = await tidelog.open(doctypes[doctype], {
        document,
        server,
        token: async () => kept.token,
      });
    },
    [document, server.ws, token, doctype],
  );

both(
  'who has logged in writes, and who may only read follows and changes nothing',
  async (stage) => {
    const { server, logIn, exported } = await guarded(stage);
    assert.equal((await logIn('writer', 'guessed')).status, 401);
    const { document } = stage;
    const [writing, reading] = await stage.twoDevices();
    await openAs(writing, server, document, (await logIn('writer')).token);
    assert.equal(await syncIn(writing), null);
    const added = await mutateIn(writing, 'add', { id: 'a', title: 'by a writer' }, 'confirmed');
    assert.equal(added.error, undefined);

    await openAs(reading, server, document, (await logIn('reader')).token);
    assert.equal(await syncIn(reading), null);
    assert.deepEqual(await rowsIn(reading, 'select title from item'), [{ title: 'by a writer' }]);
    const before = await exported();
    assert.equal((await statusIn(reading)).access, 'read');
    assert.equal((await statusIn(writing)).access, 'write');
    const { error } = await mutateIn(reading, 'add', { id: 'b', title: 'by a reader' });
    assert.deepEqual([error.name, error.outcome], ['AccessError', 'none']);
    assert.match(error.message, /may only read/);
    assert.equal((await statusIn(reading)).pending, 0, 'nothing was recorded');
    assert.deepEqual(await exported(), before, 'nothing of it is on the server');
    assert.deepEqual(contentOf(await exportFrom(writing)), await exported());
  },
);

/** A token as an app signs it, which is good for so many seconds yet. */
function signed(subject, grants, secondsLeft) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1_000) + secondsLeft;
  const claims = { sub: subject, exp, tidelog: grants };
  const content = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`;
  return `${content}.${createHmac('sha256', SECRET).update(content).digest('base64url')}`;
}

const SECRET = 'the secret of an app, of thirty-two bytes';
const WRITES = [{ document: '*', role: 'write', create: true }];
const READS = [{ document: '*', role: 'read' }];
const SENDS = [{ document: '*', role: 'read', send: true }];

/** A server that also takes tokens which an app signs. */
async function signing(stage) {
  const folder = mkdtempSync(path.join(tmpdir(), 'tidelog-secret-'));
  const file = path.join(folder, 'secret');
  writeFileSync(file, SECRET);
  return guarded(stage, ['--token-secret-file', file]);
}

/** What the app's function gives from now on. */
const nowGives = (page, token) =>
  page.evaluate((given) => {
    kept.token = given;
  }, token);

both('a writer who becomes a reader is told what is not taken, and goes on', async (stage) => {
  const { server } = await signing(stage);
  const { document } = stage;
  const [page, other] = await stage.twoDevices();
  await openAs(page, server, document, signed('ada', WRITES, 600));
  await page.evaluate(() => {
    kept.rejected = [];
    kept.db.on('rejected', ({ args, reason }) => void kept.rejected.push([args.id, reason]));
  });
  await mutateIn(page, 'add', { id: 'a', title: 'while it may write' }, 'confirmed');
  await page.evaluate(() => kept.db.disconnect());
  await mutateIn(page, 'add', { id: 'b', title: 'while it is away' });
  await nowGives(page, signed('ada', READS, 600));
  await page.evaluate(() => kept.db.connect());
  await statusBecomes(page, { connection: 'online', pending: 0, access: 'read' });
  const isTold = () => page.evaluate(() => kept.rejected.length > 0);
  await eventually(isTold, { what: 'the rejection' });
  assert.deepEqual(await page.evaluate(() => kept.rejected), [['b', 'access']]);
  assert.deepEqual(await rowsIn(page, 'select id from item'), [{ id: 'a' }]);

  await page.evaluate(() => kept.db.disconnect());
  await nowGives(page, signed('ada', WRITES, 600));
  await page.evaluate(() => kept.db.connect());
  await statusBecomes(page, { connection: 'online', access: 'write' });
  await mutateIn(page, 'add', { id: 'c', title: 'again' }, 'confirmed');
  await openAs(other, server, document, signed('bob', READS, 600));
  assert.equal(await syncIn(other), null);
  assert.deepEqual(await rowsIn(other, 'select id from item order by id'), [
    { id: 'a' },
    { id: 'c' },
  ]);
});

both(
  'who may read and send has commands and runs done, and changes nothing else',
  async (stage) => {
    const { server } = await signing(stage);
    const { document } = stage;
    const [handling, sending] = await stage.twoDevices();
    const handles = [{ ...WRITES[0], handle: true }];
    await openAs(handling, server, document, signed('ada', handles, 600), 'works');
    await handling.evaluate(() => {
      kept.db.handle('order', { initial: 0, commands: { pay: () => [{ type: 'paid' }] } });
      kept.db.handle('label', async (_, { weight }) => 2 * weight);
    });
    assert.equal(await syncIn(handling), null);
    await openAs(sending, server, document, signed('bob', SENDS, 600), 'works');
    await statusBecomes(sending, { connection: 'online', access: 'send' });
    const done = await sending.evaluate(async () => {
      const { db } = kept;
      const { events } = await db.send.order.pay('o-1', {}, { key: 'k' }).completed;
      const result = await db.start.label({ weight: 4 }, { id: 'l' }).completed;
      const error = await db.mutate.ship({ id: 'o-1', by: 'van' }).catch(({ name }) => name);
      return [events.map(({ type, user }) => [type, user]), result, error, db.status.pending];
    });
    assert.deepEqual(done, [[['paid', 'bob']], 8, 'AccessError', 0]);
    assert.deepEqual(await rowsIn(handling, 'select id, state from orders'), [
      { id: 'o-1', state: 'paid' },
    ]);
    // What it sends offline counts too, as long as it may.
    await sending.evaluate(() => {
      kept.db.disconnect();
      kept.db.send.order.pay('o-2', {}, { key: 'k' });
      return kept.db.connect();
    });
    assert.equal(await syncIn(sending), null);
    const paid = async () =>
      (await rowsIn(handling, 'select id from orders order by id')).map(({ id }) => id).join();
    await eventually(async () => (await paid()) === 'o-1,o-2', { what: 'the second order' });
  },
);

both('a token is renewed while the connection stays', async (stage) => {
  const { server } = await signing(stage);
  const page = await stage.tab();
  await openAs(page, server, stage.document, signed('ada', WRITES, 8));
  await page.evaluate(() => {
    kept.connections = [];
    kept.db.on('status', ({ connection }) => void kept.connections.push(connection));
  });
  await statusBecomes(page, { connection: 'online', access: 'write' });
  await nowGives(page, signed('ada', READS, 600));
  // Three quarters of eight seconds.
  await statusBecomes(page, { access: 'read' });
  const connections = await page.evaluate(() => kept.connections);
  assert.ok(!connections.includes('offline'), connections.join());
});

both('after thirty days with a token that is long over all is confirmed', async (stage) => {
  const { server, exported } = await signing(stage);
  const { document } = stage;
  const [page, other] = await stage.twoDevices();
  const good = () => signed('ada', WRITES, 600);
  await openAs(page, server, document, good());
  await mutateIn(page, 'add', { id: 'before', title: 'thirty days ago' }, 'confirmed');
  await closeIn(page);
  const over = signed('ada', WRITES, -30 * 24 * 60 * 60);
  await openAs(page, server, document, over);
  for (const id of ['a', 'b', 'c']) await mutateIn(page, 'add', { id, title: id });
  await closeIn(page);

  // What others did in thirty days, and a server that was away.
  await openAs(other, server, document, good());
  assert.equal(await syncIn(other), null);
  for (let day = 0; day < 30; day += 1) {
    await mutateIn(other, 'add', { id: `day ${day}`, title: 'of another device' }, 'confirmed');
  }
  await server.stop();
  await server.start();

  await openAs(page, server, document, over);
  await mutateIn(page, 'add', { id: 'd', title: 'd' });
  const { error } = await statusBecomes(page, { error: 'AccessError' });
  assert.match(error.message, /wants to know who this is/);
  assert.equal((await statusIn(page)).pending, 4);
  await nowGives(page, good());
  await statusBecomes(page, { connection: 'online', pending: 0 });
  for (const device of [page, other]) assert.equal(await syncIn(device), null);
  const rows = await rowsIn(page, 'select count(*) as count from item');
  assert.deepEqual(rows, [{ count: 35 }]);
  const all = await exported();
  for (const device of [page, other]) {
    assert.deepEqual(contentOf(await exportFrom(device)), all, 'all have the same');
  }
});

both('a tab that gives no token is passed over for one that does', async (stage) => {
  const { server } = await signing(stage);
  const [silent, other] = [await stage.tab(), await stage.tab()];
  await silent.evaluate(
    async ([document, server]) => {
      const token = () => new Promise(() => {});
      kept.db = await tidelog.open(doctypes.list, { document, server, token });
    },
    [stage.document, server.ws],
  );
  await mutateIn(silent, 'add', { id: 'a', title: 'by a tab that hangs' });
  await openAs(other, server, stage.document, signed('ada', WRITES, 600));
  for (const tab of [silent, other]) {
    await statusBecomes(tab, { connection: 'online', pending: 0, access: 'write' });
  }
});

both('who is let in no further keeps the copy and what waits', async (stage) => {
  const { server } = await signing(stage);
  const page = await stage.tab();
  await openAs(page, server, stage.document, signed('ada', WRITES, 600));
  await mutateIn(page, 'add', { id: 'a', title: 'let in' }, 'confirmed');
  const connectBy = async (grants) => {
    await page.evaluate(() => kept.db.disconnect());
    await nowGives(page, signed('ada', grants, 600));
    await page.evaluate(() => kept.db.connect());
  };
  await connectBy([{ document: 'elsewhere', role: 'admin' }]);
  await mutateIn(page, 'add', { id: 'b', title: 'shut out' });
  const { access, pending } = await statusBecomes(page, { error: 'AccessError' });
  assert.deepEqual([access, pending], [null, 1]);
  const all = [{ id: 'a' }, { id: 'b' }];
  assert.deepEqual(await rowsIn(page, 'select id from item order by id'), all);
  await connectBy(WRITES);
  await statusBecomes(page, { connection: 'online', pending: 0, access: 'write' });
  assert.deepEqual(await rowsIn(page, 'select id from item order by id'), all);
});

both('a release that comes before its doctype is deployed loses nothing', async (stage) => {
  const { server, deploy } = await signing(stage);
  const page = await stage.tab();
  await openAs(page, server, stage.document, signed('ada', WRITES, 600));
  await mutateIn(page, 'add', { id: 'a', title: 'by the release before' }, 'confirmed');
  await closeIn(page);
  await openAs(page, server, stage.document, signed('ada', WRITES, 600), 'listWithColor');
  await mutateIn(page, 'paint', { id: 'a', color: 'blue' });
  const { error, pending } = await statusBecomes(page, { error: 'DoctypeMismatchError' });
  assert.match(error.message, /not deployed/);
  assert.equal(pending, 1);
  await deploy(listWithColor);
  await page.evaluate(() => {
    kept.db.disconnect();
    return kept.db.connect();
  });
  await statusBecomes(page, { connection: 'online', pending: 0 });
  assert.deepEqual(await rowsIn(page, 'select color from item'), [{ color: 'blue' }]);
});

both('a reader with a newer release has its columns, and the server has none', async (stage) => {
  const { server, deploy, exported } = await signing(stage);
  const [writing, reading] = await stage.twoDevices();
  await openAs(writing, server, stage.document, signed('ada', WRITES, 600));
  await mutateIn(writing, 'add', { id: 'a', title: 'by an older release' }, 'confirmed');
  await deploy(listWithColor);
  const before = await exported();
  await openAs(reading, server, stage.document, signed('bob', READS, 600), 'listWithColor');
  assert.equal(await syncIn(reading), null);
  const ids = () => rowsIn(reading, 'select id, color from item order by id');
  assert.deepEqual(await ids(), [{ id: 'a', color: 'none' }]);
  assert.deepEqual(await exported(), before);
  await mutateIn(writing, 'add', { id: 'b', title: 'later' }, 'confirmed');
  await eventually(async () => (await ids()).length === 2, { what: 'the second row' });
});

both('each user of a device has a copy and a token of their own', async (stage) => {
  const { server } = await signing(stage);
  const { document } = stage;
  const page = await stage.tab();
  const shown = await page.evaluate(
    async ([document, server, tokens]) => {
      const openFor = (user) => {
        const token = async () => tokens[user];
        return tidelog.open(doctypes.list, { document, server, user, token });
      };
      const copies = [];
      for (const user of Object.keys(tokens)) {
        const db = await openFor(user);
        // One who may only read does not begin the document.
        await db.sync();
        copies.push(db);
      }
      const access = copies.map((db) => db.status.access);
      await Promise.all(copies.map((db) => db.close()));
      return access;
    },
    [document, server.ws, { ada: signed('ada', WRITES, 600), bob: signed('bob', READS, 600) }],
  );
  assert.deepEqual(shown, ['write', 'read']);

  // A copy that was let in as somebody's says nothing by the token of another one.
  await openAs(page, server, document, signed('ada', WRITES, 600));
  await mutateIn(page, 'add', { id: 'a', title: 'of ada' }, 'confirmed');
  await closeIn(page);
  await openAs(page, server, document, signed('bob', WRITES, 600));
  await mutateIn(page, 'add', { id: 'b', title: 'of ada too' });
  const { error } = await statusBecomes(page, { error: 'AccessError' });
  assert.match(error.message, /belongs to ada, and the token is for bob/);
  assert.equal((await statusIn(page)).pending, 1);
});

both('whoever has no token waits with what is written, and goes on with one', async (stage) => {
  const { server, logIn } = await guarded(stage);
  const page = await stage.tab();
  await openAs(page, server, stage.document, 'no.such.token');
  await mutateIn(page, 'add', { id: 'a', title: 'before anybody let us in' });
  const { error } = await statusBecomes(page, { error: 'AccessError' });
  assert.match(error.message, /wants to know who this is/);
  await page.evaluate(
    (token) => {
      kept.token = token;
    },
    (await logIn('writer')).token,
  );
  await statusBecomes(page, { connection: 'online', pending: 0 });
});

atLeast(10);
