// What a list is: its table, and every change that can be made to it. This runs in the browser at
// once, and on the server for good.

import { doctype, mutation } from 'tidelog';

export const todos = doctype({
  name: 'todos',
  // Each brings a document from one version to the next: append, and change none that was released.
  migrations: [
    `create table todo (
       id text primary key,
       title text not null,
       done integer not null default 0,
       at integer not null
     ) strict`,
  ],
  mutations: {
    add: mutation({ id: 'uuid', title: 'text' }, [
      `select reject('a to-do needs a title') where trim(:title) = ''`,
      `insert into todo (id, title, at) values (:id, trim(:title), :now)`,
    ]),
    // Says what it shall be and does not flip it: two people who both check it off agree.
    check: mutation({ id: 'text', done: 'boolean' }, `update todo set done = :done where id = :id`),
    remove: mutation({ id: 'text' }, `delete from todo where id = :id`),
  },
});

/** A row of {@link ALL}. */
export interface Todo {
  id: string;
  title: string;
  done: number;
}

export const ALL = 'select id, title, done from todo order by at, id';

/** Which list it is. Without `server` it stays in this browser. */
export const place = { document: 'groceries', server: 'ws://127.0.0.1:8787' };
