// Opens two documents, says what is in them, adds a row to each, and says so the moment both are
// durable. Whoever listens then kills the browser.

import { open } from 'tidelog';
import { list } from './doctypes.mjs';

const given = new URLSearchParams(location.search);
const report = (message) =>
  fetch('/report', { method: 'POST', body: JSON.stringify(message), keepalive: true });

try {
  const round = Number(given.get('round'));
  const worker = given.has('worker') ? { workerUrl: given.get('worker') } : {};
  const dbs = await Promise.all([
    open(list, { ...worker, document: `${given.get('document')}-local` }),
    open(list, {
      ...worker,
      document: `${given.get('document')}-synced`,
      server: given.get('server'),
    }),
  ]);
  const found = await Promise.all(
    dbs.map(async (db) =>
      (await db.query('select title from item order by at, id')).map((row) => row.title),
    ),
  );
  const title = `round ${round}`;
  const id = String(round).padStart(4, '0');
  await Promise.all(dbs.map((db) => db.mutate.count({ id, title })));
  await report({ round, found, pending: dbs[1].status.pending });
} catch (error) {
  await report({ error: `${error?.name}: ${error?.message}\n${error?.stack}` });
}
