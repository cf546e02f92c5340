import { doctype, mutation } from 'tidelog';

export const todos = doctype({
  name: 'todos',
  migrations: [
    `create table todo (
       id text primary key, title text not null, done integer not null default 0, at integer
     ) strict`,
    'create table item (id integer primary key, todo text not null) strict',
  ],
  mutations: {
    add: mutation(
      { id: 'uuid', title: 'text' },
      'insert into todo (id, title, at) values (:id, :title, :now)',
    ),
  },
});

export const ALL = 'select id, title, done from todo order by at, id';
