// What the list is, and who may do what with it beside what the server says of their role.
import { doctype, mutation } from 'tidelog';

export const sharedList = doctype({
  name: 'shared-list',
  migrations: [
    `create table item (id text primary key, text text not null, done integer not null default 0,
                        added_by text not null, at integer not null) strict`,
  ],
  mutations: {
    add: mutation({ id: 'uuid', text: 'text' }, [
      `select reject('an item needs a text') where trim(:text) = ''`,
      // The server takes no mutation of somebody else's name, so this is who it says.
      `insert into item (id, text, added_by, at) values (:id, trim(:text), :user, :now)`,
    ]),
    check: mutation({ id: 'text', done: 'boolean' }, 'update item set done = :done where id = :id'),
    remove: mutation({ id: 'text' }, [
      `select reject('only ' || added_by || ' may remove it') from item
       where id = :id and added_by <> :user`,
      'delete from item where id = :id',
    ]),
  },
});

export interface Item {
  readonly id: string;
  readonly text: string;
  readonly done: number;
  readonly added_by: string;
}
