import { expect, test, vi } from 'vitest';
import { type DoctypeDefinition, doctype, mutation } from '../src/doctype.js';
import { doctypesOf, flawAmong, hintsOf } from '../src/node/check.js';
import { sqlite } from './query-sqlite.js';

const MADE = 'create table todo (id text primary key, title text not null) strict';

/** SQLite itself in place of the engine, whose words these are as well. */
const ask = ({ migrations }: DoctypeDefinition): string | undefined => {
  const db = new sqlite.DatabaseSync(':memory:');
  try {
    db.exec('pragma foreign_keys = on');
    for (const migration of migrations) db.exec(migration);
    return undefined;
  } catch (error) {
    return `migration 2 of doctype late does not run: ${(error as Error).message}`;
  } finally {
    db.close();
  }
};

const hinted = (migrations: readonly string[], mutations = {}): readonly string[] =>
  hintsOf(doctype({ name: 'todos', migrations, mutations }), ask);

test.each([
  ['integer not null', 'Cannot add a NOT NULL column with default value NULL'],
  ['integer default null not null', 'Cannot add a NOT NULL column'],
  ['text not null default (null)', 'Cannot add a NOT NULL column'],
  [`text default 'x' references todo`, 'Cannot add a REFERENCES column'],
  ['integer not null default (1 + 1)', 'Cannot add a column with non-constant default'],
  ['text generated always as (upper(title)) stored', 'cannot add a STORED column'],
  ['integer not null default 0 check (stars > 0)', 'CHECK constraint failed'],
  [`integer default 'x'`, 'type mismatch on DEFAULT'],
])('a column that no table with rows takes is told of: %s', (definition, why) => {
  const sql = `alter table todo add column stars ${definition}`;
  const [hint, ...others] = hinted([MADE, `create index i on todo (title); ${sql}`]);
  const what =
    'migration 2 of doctype todos adds todo.stars, and fails in each document where todo';
  expect(hint).toContain(`${what} has a row: `);
  expect(hint).toContain(why);
  expect(others).toEqual([]);
});

test.each([
  'integer not null default 0',
  `text not null default ('x y')`,
  'integer not null default (-1)',
  'text references todo',
  'text references todo on delete set default on update cascade',
  'text default null',
  'text as (upper(title)) not null',
  `text check (title <> 'not null stored')`,
  'text constraint stored check (1)',
  'text check (at > 5)',
  'text',
])('and one that any table takes is not: %s', (definition) => {
  expect(hinted([MADE, `alter table todo add column more ${definition}`])).toEqual([]);
});

test.each([
  ['it is new', [`${MADE}; ADD todo`], 0],
  ['it is new by then', [MADE, `drop table todo; ${MADE}; ADD todo`], 0],
  ['it was emptied', [MADE, 'delete from todo; ADD todo'], 0],
  ['some of it was deleted', [MADE, `delete from todo where id = ''; ADD todo`], 1],
  ['it has another name by then', [MADE, 'alter table todo rename to task', 'ADD task'], 1],
  ['it is named with its schema', [MADE, 'ADD main."Todo"'], 1],
  ['it is made of another one', [MADE, 'create table task as select * from todo; ADD task'], 1],
  [
    'it is filled at once',
    [MADE, 'create table t (a text) strict; insert into t select id from todo; ADD t'],
    1,
  ],
  ['it is a rule', [MADE, 'alter table todo add check (title is not null)'], 0],
  [
    'a trigger empties it',
    [MADE, 'create trigger a after insert on todo begin delete from todo; end; ADD todo'],
    1,
  ],
  [
    'a trigger fills it',
    [
      MADE,
      `create table t (a text); create trigger a after insert on todo begin
         select case 1 when 1 then 2 end; insert into t values (new.id); end; ADD t`,
    ],
    0,
  ],
  ['a trigger was dropped', [MADE, 'drop trigger if exists g; ADD todo'], 1],
  [
    'a trigger was dropped as it was made',
    [MADE, 'drop trigger g; create table t (a)', 'ADD t'],
    1,
  ],
  [
    'it takes a type, and is not the first one',
    [`create table a (x text) strict; ${MADE}`, `alter table todo add b integer default 'x'`],
    1,
  ],
  ['it takes any type', ['create table t (a)', `alter table t add b integer default 'x'`], 0],
])('a table may have rows, or may not: %s', (_, migrations, count) => {
  const add = (sql: string) => sql.replace(/ADD (\S+)/, 'alter table $1 add more integer not null');
  expect(hinted(migrations.map(add))).toHaveLength(count);
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
