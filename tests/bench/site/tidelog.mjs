// Tidelog as an app uses it, behind the calls that the benchmark makes of everybody.

import { doctype, mutation, open } from 'tidelog';
import { FIRST, SELECT, TABLE } from './sql.mjs';

const bench = doctype({
  name: 'bench',
  migrations: [TABLE.replace('if not exists ', '')],
  mutations: {
    insert: mutation(
      { id: 'integer', title: 'text' },
      'insert into item (id, title) values (:id, :title)',
    ),
    insertMany: mutation(
      { rows: 'json' },
      `insert into item (id, title) select value ->> 0, value ->> 1 from json_each(:rows)`,
    ),
  },
});

export const tidelog = (server) => () => {
  let db;
  return {
    async open(name) {
      db = await open(bench, { document: name, ...(server && { server }) });
      if (server) await db.sync();
    },
    // A receipt settles when the mutation is on the disk.
    insert: (id, title) => db.mutate.insert({ id, title }),
    insertMany: (rows) => db.mutate.insertMany({ rows: JSON.parse(rows) }),
    select: async (id) => (await db.query(SELECT, [id]))[0],
    first: async () => (await db.query(FIRST))[0],
    settle: () => (server ? db.sync() : undefined),
  };
};
