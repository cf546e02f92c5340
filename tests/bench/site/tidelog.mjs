// Tidelog as an app uses it, behind the calls that the benchmark makes of everybody.

import { doctype, mutation, open } from 'tidelog';
import { MUTATIONS, QUERIES, schema } from './sql.mjs';

const doctypeOf = (isText) => {
  const id = isText ? 'text' : 'integer';
  const { insert, update, remove, insertMany } = MUTATIONS;
  return doctype({
    name: isText ? 'bench-text' : 'bench',
    migrations: [schema(isText)],
    mutations: {
      insert: mutation({ id, title: 'text' }, insert),
      update: mutation({ id, title: 'text' }, update),
      remove: mutation({ id }, remove),
      insertMany: mutation({ rows: 'json' }, insertMany),
    },
  });
};

/** What a server has decided may go to the disk this much later. A page that is closed before runs
 * it once more when it is opened next. */
const LATE_MS = 1_500;

export const tidelog = (server) => () => {
  let db;
  return {
    async open(name, isText) {
      db = await open(doctypeOf(isText), { document: name, ...(server && { server }) });
    },
    // A receipt settles when the mutation is on the disk.
    mutate: (statement, values) => db.mutate[statement](values),
    query: (statement, values) => db.query(QUERIES[statement], values),
    async settle() {
      if (!server) return;
      await db.sync();
      await new Promise((resolve) => setTimeout(resolve, LATE_MS));
    },
  };
};
