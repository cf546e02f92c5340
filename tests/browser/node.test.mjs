// A page and a process of Node on one document: the same engine, on either side of the server.

import assert from 'node:assert/strict';
import { destroy, open } from 'tidelog/node';
import { WebSocket } from 'ws';
import * as doctypes from '../pages/doctypes.mjs';
import { atLeast, both, eventually, mutateIn, openIn, rowsIn, syncIn } from './harness.mjs';

both('a page and a process see what each other issues', async (stage) => {
  const { options } = await stage.synced();
  const tab = await stage.tab();
  await openIn(tab, 'shop', options);
  const db = await open(doctypes.shop, { ...options, webSocket: WebSocket });
  stage.onEnd(() => db.close());
  const handled = [];
  (async () => {
    for await (const { stream, type } of db.events('order')) {
      handled.push(`${stream} ${type}`);
      if (type === 'placed') await db.mutate.ship({ id: stream });
    }
  })().catch((error) => handled.push(error.name));

  await mutateIn(tab, 'place', { id: 'o-1', items: [1] }, 'confirmed');
  // The process has handled what the page has done, and the page sees what came of it.
  const shipped = async () =>
    (await rowsIn(tab, `select id from orders where state = 'shipped'`)).length === 1;
  await eventually(shipped, { what: 'the order to be shipped' });
  await eventually(() => handled.length === 2);
  assert.deepEqual(handled, ['o-1 placed', 'o-1 shipped']);
  assert.equal(await syncIn(tab), null);
  const rows = 'select id, state from orders order by id';
  assert.deepEqual(await db.query(rows), await rowsIn(tab, rows));
  await db.close();
  await destroy(options.document);
});

atLeast(1);
