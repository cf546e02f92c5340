import { doctype, mutation } from 'tidelog';

export const notes = doctype({
  name: 'hinted',
  migrations: ['create table note (id text primary key, body text not null) strict'],
  mutations: {
    add: mutation({ id: 'uuid', body: 'text' }, 'insert into note values (:id, :body)'),
    clear: mutation({ id: 'uuid', all: 'boolean' }, 'delete from note where id = :id'),
  },
});
