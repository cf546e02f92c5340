import { expect, test, vi } from 'vitest';
import { doctype, mutation } from '../src/doctype.js';
import { doctypesOf, flawAmong, hintsOf } from '../src/node/check.js';

const TODO = 'create table todo (id text primary key, title text not null) strict';

const hinted = (migrations: readonly string[], mutations = {}): readonly string[] =>
  hintsOf(doctype({ name: 'todos', migrations, mutations }));

test.each([
  ['alter table todo add column starred integer not null', 'NOT NULL and has no default'],
  ['alter table "Todo" add starred integer default null not null', 'NOT NULL and has no default'],
  [
    `alter table todo add p text default 'x' references todo`,
    'references a table and has a default',
  ],
  ['alter table todo add a integer not null default (1 + 1)', 'whose default is no constant'],
  ['alter table todo add a text default current_timestamp', 'whose default is no constant'],
  [
    'alter table todo add up text generated always as (upper(title)) stored',
    'generated and stored',
  ],
])('a column that no table with rows takes is told of: %s', (sql, why) => {
  const [hint, ...more] = hinted([TODO, `create index i on todo (title); ${sql}`]);
  expect(hint).toContain('migration 2 of doctype todos adds');
  expect(hint).toContain(why);
  expect(more).toEqual([]);
  // Where the table is new it has none.
  expect(hinted([`${TODO}; ${sql}`])).toEqual([]);
});

test.each([
  'integer not null default 0',
  `text not null default ('x y')`,
  'integer not null default (-1)',
  'text references todo',
  'text references todo default null',
  'text default null',
  'text as (upper(title)) not null',
  `text check (title <> 'not null stored')`,
])('and one that any table takes is not: %s', (definition) => {
  expect(hinted([TODO, `alter table todo add column more ${definition}`])).toEqual([]);
});

test('a uuid that finds nothing where it is drawn is told of, whatever replaces text', () => {
  const put = (sql: string) => ({ put: mutation({ id: 'uuid' }, sql) });
  expect(hinted([], put(`update t set s = replace(s, 'a', 'b') where id = :id`))).toHaveLength(1);
  expect(hinted([], put('insert or ignore into t (id) values (:id)'))).toEqual([]);
  expect(hinted([], put('replace into t (id) values (:id)'))).toEqual([]);
});

test('a doctype that is made by another copy of the package is one', async () => {
  vi.resetModules();
  const { doctype: made } = await import('../src/doctype.js');
  const { stream } = await import('../src/events.js');
  const streams = { log: stream({ events: { noted: { text: 'text' } } }) };
  const other = made({ name: 'shop', migrations: [], mutations: {}, streams });
  expect(doctypesOf({ other })).toEqual([other]);
  expect(flawAmong({ other })).toBeUndefined();
});

test('what is nearly a doctype says what is wrong with it', () => {
  const bad = { name: 'bad', migrations: [], mutations: { put: 'delete from a' } };
  expect(flawAmong({ bad, other: { name: 'x' } })).toContain('mutation put of doctype bad');
  expect(
    flawAmong({ right: doctype({ name: 'a', migrations: [], mutations: {} }) }),
  ).toBeUndefined();
});

test('a question mark stands at the end of a type, and once', () => {
  for (const type of ['?text', 'te?xt', 'text??']) {
    expect(() => mutation({ a: type as 'text' }, 'select :a')).toThrow(`there is no type ${type}`);
  }
});
