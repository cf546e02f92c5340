import { doctype, mutation } from 'tidelog';

const create = (table) => `create table ${table} (id text primary key, at real) strict`;

export const drawn = doctype({
  name: 'drawn',
  migrations: [create('one')],
  mutations: { add: mutation({ id: 'uuid' }, 'insert into one (id, at) values (:id, random())') },
});

export const misspelt = doctype({
  name: 'misspelt',
  migrations: [create('one'), 'create tabel two (id text)'],
  mutations: {},
});
