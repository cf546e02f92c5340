// What a board is: its tables, and every change that can be made to it. This runs in the browser at
// once and on the server for good; what the server rejects is undone in the browser.

import { doctype, mutation } from 'tidelog';
import { createHooks } from 'tidelog/react';

export const LANES = { todo: 'To do', doing: 'Doing', done: 'Done' };

const MUST_EXIST = `select reject('this card was removed meanwhile')
                    where not exists (select 1 from card where id = :id and removed = 0)`;
const NEEDS_TITLE = `select reject('a card needs a title') where trim(:title) = ''`;

export const board = doctype({
  name: 'kanban',
  migrations: [
    `create table card (
       id text primary key,
       title text not null,
       lane text not null check (lane in ('todo', 'doing', 'done')),
       place text not null,
       removed integer not null default 0 check (removed in (0, 1))
     ) strict`,
    `create table comment (
       id text primary key,
       card text not null,
       text text not null,
       at integer not null
     ) strict`,
    `create index comment_card on comment (card)`,
  ],
  mutations: {
    add: mutation({ id: 'uuid', title: 'text', lane: 'text', place: 'text' }, [
      NEEDS_TITLE,
      `insert into card (id, title, lane, place) values (:id, trim(:title), :lane, :place)`,
    ]),
    // An undo says what it takes back, `was`: what somebody has done since is left alone. Where a
    // card was moved to is no other move's place, for each draws a key of its own.
    rename: mutation({ id: 'text', title: 'text', was: 'text?' }, [
      MUST_EXIST,
      NEEDS_TITLE,
      `select reject('this card was renamed meanwhile')
       where exists (select 1 from card where id = :id and title <> :was)`,
      `update card set title = trim(:title) where id = :id`,
    ]),
    move: mutation({ id: 'text', lane: 'text', place: 'text', was: 'text?' }, [
      MUST_EXIST,
      `select reject('this card was moved meanwhile')
       where exists (select 1 from card where id = :id and place <> :was)`,
      `update card set lane = :lane, place = :place where id = :id`,
    ]),
    // Removing what somebody else has removed is no conflict. The row stays, and its comments with
    // it, so that there is something to restore.
    remove: mutation({ id: 'text' }, `update card set removed = 1 where id = :id`),
    restore: mutation({ id: 'text' }, `update card set removed = 0 where id = :id`),
    comment: mutation({ comment: 'uuid', id: 'text', text: 'text' }, [
      MUST_EXIST,
      `select reject('a comment needs a text') where trim(:text) = ''`,
      `insert into comment (id, card, text, at) values (:comment, :id, trim(:text), :now)`,
    ]),
    withdraw: mutation({ comment: 'text' }, `delete from comment where id = :comment`),
  },
});

export const { Provider, useLive, useMutate, useStatus, useDocument } = createHooks(board);
