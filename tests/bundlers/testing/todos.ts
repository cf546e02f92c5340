import { doctype, mutation } from 'tidelog';

const migrations = [
  `create table todo (id text primary key, title text not null unique,
                      done integer not null default 0, at integer not null) strict`,
];

const mutations = {
  add: mutation(
    { id: 'uuid', title: 'text' },
    'insert into todo (id, title, at) values (:id, :title, :now)',
  ),
  done: mutation({ title: 'text' }, [
    `select reject('no such to-do') where not exists (select 1 from todo where title = :title)`,
    'update todo set done = 1 where title = :title',
  ]),
};

export const todos = doctype({ name: 'todos', migrations, mutations });

/** The next release of the app. */
export const todosWithNotes = doctype({
  name: 'todos',
  migrations: [...migrations, `alter table todo add column note text not null default ''`],
  mutations: {
    ...mutations,
    note: mutation(
      { title: 'text', note: 'text' },
      'update todo set note = :note where title = :title',
    ),
  },
});

export const albums = doctype({
  name: 'albums',
  migrations: ['create table album (id text primary key) strict'],
  mutations: { add: mutation({ id: 'uuid' }, 'insert into album (id) values (:id)') },
});
