import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core';
import { drizzle } from 'drizzle-orm/sqlite-proxy';
import { Kysely } from 'kysely';
import { expect, expectTypeOf, test, vi } from 'vitest';
import type { Value } from '../src/codec.js';
import { queryOf as ofDrizzle, proxyOf } from '../src/drizzle.js';
import { ReadOnlyError } from '../src/errors.js';
import { queryOf as ofKysely, TidelogDialect } from '../src/kysely.js';
import { type Asking, type Query, sql } from '../src/sql.js';

interface Tables {
  todo: { id: string; title: string };
}

const todo = sqliteTable('todo', {
  id: text().primaryKey(),
  isDone: integer('done', { mode: 'boolean' }).notNull(),
});

/** A document in which every query has these rows, and what it was asked. */
function reading(rows: readonly object[]) {
  const asked: Query[] = [];
  const answer = (...[query]: Asking<never>): Promise<never[]> => {
    asked.push(query as Query);
    return Promise.resolve(rows as never[]);
  };
  return { asked, db: { query: answer, values: answer } as never };
}

test('values in a template are parameters, and a query within another a part of it', () => {
  const word = "'; drop table todo; --";
  const where = sql`title = ${word} and at > ${7n}`;
  const query = sql<{ id: string }>`select id from todo where ${where} limit ${3}`;
  expect(query).toEqual({
    sql: 'select id from todo where title = ? and at > ? limit ?',
    parameters: [word, 7n, 3],
  });
  expect(sql`select ${null}, ${new Uint8Array([1])}, ${true}`).toEqual({
    sql: 'select ?, ?, ?',
    parameters: [null, new Uint8Array([1]), true],
  });
  expectTypeOf(query).toExtend<Query<{ id: string }>>();
  expect(sql`select '\u' || ${'a'} escape '\'`.sql).toBe("select '\\u' || ? escape '\\'");
  // @ts-expect-error: it is no value of SQL.
  expect(sql`select ${new Date()}`.parameters).toHaveLength(1);
});

test('what Kysely builds is asked of the document, whose rows have its types', async () => {
  const { asked, db } = reading([{ id: 'a' }]);
  const kysely = new Kysely<Tables>({ dialect: new TidelogDialect(db) });
  const built = kysely.selectFrom('todo').select('id').where('title', '=', 'milk');
  const rows = await built.execute();
  expect(rows).toEqual([{ id: 'a' }]);
  const query = {
    sql: 'select "id" from "todo" where "title" = ?',
    parameters: ['milk'],
  };
  expect(asked).toEqual([query]);
  expect(ofKysely(built)).toEqual(query);
  expectTypeOf(ofKysely(built)).toExtend<Query<{ id: string }>>();
  await kysely.destroy();
});

test('Kysely is told what there is not: transactions, rows in parts, introspection', async () => {
  const { asked, db } = reading([]);
  const kysely = new Kysely<Tables>({ dialect: new TidelogDialect(db) });
  const never = vi.fn();
  await expect(kysely.transaction().execute(never)).rejects.toThrow('there are no transactions');
  const loop = async (): Promise<void> => {
    for await (const row of kysely.selectFrom('todo').selectAll().stream()) never(row);
  };
  await expect(loop()).rejects.toThrow('rows come whole');
  expect(never).not.toHaveBeenCalled();
  expect(() => kysely.introspection).toThrow('not introspected');
  expect(asked).toEqual([]);
});

test('what Drizzle builds is asked of the document, and rows are what its tables say', async () => {
  const rows: Value[][] = [
    ['a', 1],
    ['b', 0],
  ];
  const { asked, db } = reading(rows);
  const orm = drizzle(proxyOf(db));
  const built = orm.select().from(todo);
  expect(await built).toEqual([
    { id: 'a', isDone: true },
    { id: 'b', isDone: false },
  ]);
  expect(await built.get()).toEqual({ id: 'a', isDone: true });
  expect(await built.values()).toEqual(rows);
  const query = { sql: 'select "id", "done" from "todo"', parameters: [] };
  expect(asked).toEqual([query, query, query]);
  expect(ofDrizzle(built)).toEqual(query);
  expect(
    await drizzle(proxyOf(reading([]).db))
      .select()
      .from(todo)
      .get(),
  ).toBeUndefined();
  const refusing = { values: () => Promise.reject(new ReadOnlyError('it writes')) };
  const writes = drizzle(proxyOf(refusing)).delete(todo).run();
  await expect(writes).rejects.toMatchObject({ cause: expect.any(ReadOnlyError) });
});
