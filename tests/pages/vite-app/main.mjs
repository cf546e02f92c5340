// The least of an app, to be bundled: it says on the page what its database holds.

import { doctype, mutation, open } from 'tidelog';

const visits = doctype({
  name: 'visits',
  migrations: ['create table visit (at integer not null) strict'],
  mutations: { add: mutation({}, 'insert into visit values (:now)') },
});

try {
  const db = await open(visits, { document: 'visits' });
  await db.mutate.add({});
  const [{ count }] = await db.query('select count(*) as count from visit');
  document.title = `visits: ${count}`;
} catch (error) {
  document.title = `failed: ${error}`;
}
