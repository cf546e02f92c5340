import { doctype, mutation } from 'tidelog';

const table: string = 'create table note (id text primary key, body text not null) strict';

export const notes = doctype({
  name: 'notes',
  migrations: [table],
  mutations: {
    add: mutation({ id: 'uuid', body: 'text' }, 'insert into note (id, body) values (:id, :body)'),
  },
});
