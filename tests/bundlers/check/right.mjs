import { doctype, mutation } from 'tidelog';

export const notes = doctype({
  name: 'notes',
  migrations: ['create table note (id text primary key, body text not null) strict'],
  mutations: {
    add: mutation({ id: 'uuid', body: 'text' }, 'insert into note (id, body) values (:id, :body)'),
  },
});

export default notes;
