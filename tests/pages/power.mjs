// Writes rows as fast as they become durable, and says so of each; or, with `read`, says which
// rows are there. Whoever listens cuts the power.

import { open } from 'tidelog';
import { list } from './doctypes.mjs';

const given = new URLSearchParams(location.search);
const report = (message) => fetch('/report', { method: 'POST', body: JSON.stringify(message) });

try {
  const server = given.get('server');
  const dbs = await Promise.all([
    open(list, { document: 'power-local' }),
    // Its server is away: what is issued stays in the timeline.
    open(list, { document: 'power-synced', server }),
  ]);
  if (given.has('read')) {
    const titles = async (db) => (await db.query('select title from item')).map((row) => row.title);
    await report({ found: await Promise.all(dbs.map(titles)) });
  } else {
    for (let row = 1; ; row += 1) {
      const id = crypto.randomUUID();
      await Promise.all(dbs.map((db) => db.mutate.add({ id, title: `row ${row}` })));
      await report({ durable: row, settling: dbs[0].status.settling });
    }
  }
} catch (error) {
  await report({ error: `${error?.name}: ${error?.message}\n${error?.stack}` });
}
