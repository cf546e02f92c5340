// What a to-do list is: its table, and every change that can be made to it. This runs in the
// browser at once and on the server for good; what the server rejects is undone in the browser.

import { doctype, mutation } from 'tidelog';

const MUST_EXIST = `select reject('this to-do was removed meanwhile')
                    where not exists (select 1 from todo where id = :id)`;
const NEEDS_TITLE = `select reject('a to-do needs a title') where trim(:title) = ''`;
/** The unique index would refuse it as well, in words that say less. */
const IS_NEW = `select reject('“' || trim(:title) || '” is on this list already')
                where exists (select 1 from todo where title = trim(:title) and id <> :id)`;

export const todos = doctype({
  name: 'todos',
  migrations: [
    `create table todo (
       id text primary key,
       title text not null collate nocase,
       done integer not null default 0 check (done in (0, 1)),
       at integer not null
     ) strict`,
    `create unique index todo_title on todo (title)`,
  ],
  mutations: {
    add: mutation({ id: 'text', title: 'text' }, [
      NEEDS_TITLE,
      IS_NEW,
      `insert into todo (id, title, done, at) values (:id, trim(:title), 0, :now)`,
    ]),
    // Says what it shall be and does not flip it: two people who both check it off agree.
    check: mutation({ id: 'text', done: 'boolean' }, [
      MUST_EXIST,
      `update todo set done = :done where id = :id`,
    ]),
    rename: mutation({ id: 'text', title: 'text' }, [
      MUST_EXIST,
      NEEDS_TITLE,
      IS_NEW,
      `update todo set title = trim(:title) where id = :id`,
    ]),
    // Removing what somebody else has removed is no conflict.
    remove: mutation({ id: 'text' }, `delete from todo where id = :id`),
    restore: mutation({ id: 'text', title: 'text', done: 'boolean', at: 'integer' }, [
      IS_NEW,
      `insert into todo (id, title, done, at) values (:id, :title, :done, :at)
       on conflict (id) do nothing`,
    ]),
    removeDone: mutation({}, `delete from todo where done = 1`),
  },
});

/** A row of the table. */
export interface Todo {
  id: string;
  title: string;
  done: number;
  at: number;
}
