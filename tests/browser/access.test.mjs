// A server that lets nobody in whom it does not know: logins, roles, and a token that ends.

import assert from 'node:assert/strict';
import { list } from '../pages/doctypes.mjs';
import {
  atLeast,
  both,
  closeIn,
  contentOf,
  exportFrom,
  mutateIn,
  rowsIn,
  statusBecomes,
  statusIn,
  syncIn,
} from './harness.mjs';

const PASSWORDS = { admin: 'a password', writer: 'another one', reader: 'a third' };

/** A server with its three users and the doctype of the pages, and what logs them in. */
async function guarded(stage) {
  const env = Object.fromEntries(
    Object.entries(PASSWORDS).map(([user, password]) => [
      `TIDELOG_${user.toUpperCase()}_PASSWORD`,
      password,
    ]),
  );
  const server = await stage.server({ env, args: ['--allow-origin', stage.site.origin] });
  const logIn = async (user, password = PASSWORDS[user]) => {
    const body = JSON.stringify({ user, password });
    const answer = await fetch(`${server.http}/v1/login`, { method: 'POST', body });
    return { status: answer.status, ...(answer.ok ? await answer.json() : {}) };
  };
  const { token } = await logIn('admin');
  const headers = { authorization: `Bearer ${token}` };
  const deployed = await fetch(`${server.http}/v1/doctypes/list`, {
    method: 'PUT',
    headers,
    body: JSON.stringify(list),
  });
  assert.equal(deployed.status, 201);
  return { server, logIn, headers };
}

/** Opens the list with what this user has been given. */
const openAs = (page, server, document, token) =>
  page.evaluate(
    async ([document, server, given]) => {
      kept.token = given;
      kept.db = await tidelog.open(doctypes.list, {
        document,
        server,
        token: async () => kept.token,
      });
    },
    [document, server.ws, token],
  );

both(
  'who has logged in writes, and who may only read follows and changes nothing',
  async (stage) => {
    const { server, logIn, headers } = await guarded(stage);
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
    const exported = async () => {
      const at = `${server.http}/v1/documents/${encodeURIComponent(document)}/export`;
      const answer = await fetch(at, { headers });
      return contentOf(new Uint8Array(await answer.arrayBuffer()));
    };
    const before = await exported();
    await mutateIn(reading, 'add', { id: 'b', title: 'by a reader' });
    const { error } = await statusBecomes(reading, { error: 'AccessError' });
    assert.match(error.message, /gives no access.*token/);
    assert.equal((await statusIn(reading)).pending, 1, 'it waits, and is not given up');
    assert.deepEqual(await exported(), before, 'nothing of it is on the server');

    // Somebody lets them write: what waited goes up.
    await closeIn(reading);
    await openAs(reading, server, document, (await logIn('writer')).token);
    await statusBecomes(reading, { connection: 'online', pending: 0 });
    assert.equal(await syncIn(writing), null);
    assert.deepEqual(contentOf(await exportFrom(writing)), await exported());
  },
);

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

atLeast(2);
