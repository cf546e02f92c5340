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

export const tidelog = (server) => () => {
  let db;
  return {
    async open(name, isText) {
      db = await open(doctypeOf(isText), { document: name, ...(server && { server }) });
    },
    // A receipt settles when the mutation is on the disk.
    mutate: (statement, values) => db.mutate[statement](values),
    query: (statement, values) => db.query(QUERIES[statement], values),
    settle: () => (server ? db.sync() : undefined),
  };
};
