import { doctype, mutation } from 'tidelog';

export const notes = doctype({
  name: 'hinted',
  migrations: [
    'create table note (id text primary key, body text not null) strict',
    'alter table note add column at integer not null',
  ],
  mutations: {
    add: mutation(
      { id: 'uuid', body: 'text' },
      'insert into note (id, body, at) values (:id, :body, :now)',
    ),
    clear: mutation({ id: 'uuid', all: 'boolean' }, 'delete from note where id = :id'),
  },
});
