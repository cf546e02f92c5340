// What the apps of all frameworks keep.

import { doctype, mutation } from 'tidelog';

export const notes = doctype({
  name: 'notes',
  migrations: ['create table note (id text primary key, text text not null) strict'],
  mutations: {
    add: mutation({ id: 'uuid', text: 'text' }, 'insert into note (id, text) values (:id, :text)'),
  },
});

export const ALL = 'select id, text from note order by text';
