// The doctypes of the tests.

import { doctype, mutation } from 'tidelog';
import { command, stream, workflow } from 'tidelog/events';

const itemTable = `create table item (
  id text primary key, title text not null, done integer not null default 0,
  at integer not null, runs integer not null default 1) strict`;

const noteTable = 'create table note (id text primary key, body text) strict';

const itemMutations = {
  add: mutation(
    { id: 'text', title: 'text' },
    'insert into item (id, title, at) values (:id, :title, :now)',
  ),
  // Running it twice can be seen.
  count: mutation(
    { id: 'text', title: 'text' },
    `insert into item (id, title, at) values (:id, :title, :now)
     on conflict (id) do update set runs = runs + 1`,
  ),
  addMany: mutation(
    { items: 'json' },
    `insert into item (id, title, at)
     select value ->> 'id', value ->> 'title', :now from json_each(:items)`,
  ),
  rename: mutation({ id: 'text', title: 'text' }, 'update item set title = :title where id = :id'),
  toggle: mutation({ id: 'text' }, 'update item set done = 1 - done where id = :id'),
  remove: mutation({ id: 'text' }, [
    `select reject('no such item') where not exists (select 1 from item where id = :id)`,
    'delete from item where id = :id',
  ]),
  note: mutation({ id: 'text', body: 'text?' }, 'insert into note values (:id, :body)'),
  // Refused where somebody else was first: what two offline clients cannot both have.
  claim: mutation({ id: 'text', by: 'text' }, [
    `select reject('already taken') where exists (select 1 from note where id = :id)`,
    'insert into note values (:id, :by)',
  ]),
};

export const list = doctype({
  name: 'list',
  migrations: [itemTable, noteTable],
  mutations: itemMutations,
});

/** Succeeds `list`. */
export const listWithColor = doctype({
  name: 'list',
  migrations: [
    itemTable,
    noteTable,
    `alter table item add column color text not null default 'none'`,
  ],
  mutations: {
    ...itemMutations,
    add: mutation(
      { id: 'text', title: 'text' },
      `insert into item (id, title, at, color) values (:id, :title, :now, 'red')`,
    ),
    paint: mutation({ id: 'text', color: 'text' }, 'update item set color = :color where id = :id'),
  },
});

/** Another successor of `list`: neither it nor `listWithColor` succeeds the other. */
export const listWithShape = doctype({
  name: 'list',
  migrations: [itemTable, noteTable, `alter table item add column shape text`],
  mutations: {
    ...itemMutations,
    shape: mutation({ id: 'text', shape: 'text' }, 'update item set shape = :shape where id = :id'),
  },
});

/** `list` with no migration more: one mutation means something else, one is gone, one is new. */
export const listReworded = doctype({
  name: 'list',
  migrations: [itemTable, noteTable],
  mutations: {
    add: mutation(
      { id: 'text', title: 'text', loud: 'boolean?' },
      `insert into item (id, title, at)
       values (:id, case when :loud then upper(:title) else '- ' || :title end, :now)`,
    ),
    rename: itemMutations.rename,
    clear: mutation({}, 'delete from item where done'),
  },
});

/** Succeeds `list`, whose mutations on items do not run any more once it is here. */
export const listOfThings = doctype({
  name: 'list',
  migrations: [itemTable, noteTable, 'alter table item rename to thing'],
  mutations: {
    add: mutation(
      { id: 'text', title: 'text' },
      'insert into thing (id, title, at) values (:id, :title, :now)',
    ),
    note: itemMutations.note,
  },
});

/** Neither succeeds `list` nor is succeeded by it. */
export const otherList = doctype({
  name: 'list',
  migrations: ['create table item (id integer primary key)'],
  mutations: { add: mutation({ id: 'integer' }, 'insert into item values (:id)') },
});

const recorded = {
  place: mutation(
    { id: 'text', items: 'json' },
    `insert into tidelog_events (aggregate, stream, type, data)
     values ('order', :id, 'placed', json_object('items', json(:items)))`,
  ),
  ship: mutation(
    { id: 'text' },
    `insert into tidelog_events (aggregate, stream, type) values ('order', :id, 'shipped')`,
  ),
};

const project = {
  placed: `insert into orders (id, items, at) values (:stream, :items, :now)`,
  shipped: [
    `select reject('no such order') where not exists (select 1 from orders where id = :stream)`,
    `update orders set state = 'shipped' where id = :stream`,
  ],
};

const orders = `create table orders (
  id text primary key, items text not null, at integer not null, state text) strict`;

/** Orders, which are what their events say. */
export const shop = doctype({
  name: 'shop',
  migrations: [orders],
  mutations: recorded,
  streams: { order: stream({ events: { placed: { items: 'json' }, shipped: {} }, project }) },
});

/** Succeeds `shop`: who places an order says whether it is a gift. */
export const shopWithGifts = doctype({
  name: 'shop',
  migrations: [orders],
  mutations: recorded,
  streams: {
    order: stream({
      events: { placed: { items: 'json', gift: 'boolean?' }, shipped: {} },
      upcast: { placed: [`json_set(:data, '$.gift', json('false'))`] },
      project,
    }),
  },
});

/** Orders that somebody has to decide on. */
export const depot = doctype({
  name: 'depot',
  migrations: ['create table orders (id text primary key, state text not null) strict'],
  mutations: {
    note: mutation(
      { id: 'text', count: 'integer' },
      `with recursive each (n) as (select 1 union all select n + 1 from each where n < :count)
       insert into tidelog_events (aggregate, stream, type) select 'order', :id, 'noted' from each`,
    ),
  },
  streams: {
    order: stream({
      events: {
        noted: {},
        placed: { items: 'json', noted: 'integer' },
        paid: { attempt: 'integer' },
      },
      project: {
        placed: `update orders set state = 'placed' where id = :stream`,
        paid: `update orders set state = 'paid' where id = :stream`,
      },
      commands: {
        place: command(
          { items: 'json' },
          {
            received: `insert into orders (id, state) values (:stream, 'sent')
                       on conflict (id) do update set state = 'sent'`,
            failed: 'update orders set state = :reason where id = :stream',
          },
        ),
        pay: command({}, { retries: 1 }),
      },
    }),
  },
});

/** Orders that take several steps, whoever does them. */
export const works = doctype({
  name: 'works',
  migrations: ['create table orders (id text primary key, state text not null) strict'],
  mutations: {
    ship: mutation(
      { id: 'text', by: 'text' },
      `insert into tidelog_events (aggregate, stream, type, data)
       values ('order', :id, 'shipped', json_object('by', :by))`,
    ),
  },
  streams: {
    order: stream({
      events: { paid: {}, shipped: { by: 'text' } },
      project: {
        paid: `insert into orders (id, state) values (:stream, 'paid')
               on conflict (id) do update set state = 'paid'`,
        shipped: `update orders set state = 'shipped' where id = :stream`,
      },
      commands: { pay: command({}) },
    }),
  },
  workflows: {
    fulfil: workflow({ order: 'text' }),
    label: workflow({ weight: 'integer' }),
    rounds: workflow({ left: 'integer' }),
    steps: workflow({ count: 'integer' }),
  },
});

/** Orders whose commands have a number each, and may take as long as they like. */
export const numbered = doctype({
  name: 'numbered',
  migrations: [],
  mutations: {},
  streams: {
    order: stream({
      events: { paid: { nth: 'integer' } },
      commands: { pay: command({ nth: 'integer' }, { timeout: 0 }) },
    }),
  },
});

/** One of every type of argument, and what the two names say that every mutation may read. */
export const kinds = doctype({
  name: 'kinds',
  migrations: [
    'create table kind (id integer primary key, t text, i integer, r real, b blob, f, j text, n, c)',
  ],
  mutations: {
    add: mutation(
      {
        t: 'text',
        i: 'integer',
        r: 'real',
        b: 'blob',
        f: 'boolean',
        j: 'json',
        maybe: 'text?',
      },
      `insert into kind (t, i, r, b, f, j, n, c) values (:t, :i, :r, :b, :f, :j, :now, :client)`,
    ),
  },
});

/** A doctype of one table, of which one statement is the caller's. */
export const withStatement = ({ migration, statement = `insert into t values (:id)` }) =>
  doctype({
    name: 'odd',
    migrations: [migration ?? 'create table t (id text primary key)'],
    mutations: { run: mutation({ id: 'text' }, statement) },
  });
