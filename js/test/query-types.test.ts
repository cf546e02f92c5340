import { expect, test } from 'vitest';
import { declare } from '../src/node/types/declarations.js';
import { QueryTypes } from '../src/node/types/query-types.js';
import { loadSqlite, Schema } from '../src/node/types/schema.js';
import { findQueries } from '../src/node/types/source-queries.js';
import { written, writtenParameter } from '../src/node/types/value-type.js';
import { sqlite } from './query-sqlite.js';

const schema = new Schema(sqlite, [
  `create table todo (
     id text primary key, title text not null, done integer not null default 0,
     at integer, weight real, picture blob, extra any
   ) strict;
   create table item (id integer primary key, todo text not null) strict;
   create view open as select id, title from todo where done = 0;
   create view pairs as select id, title from todo union select todo, null from item`,
  'create table loose (id text primary key, at integer, sold boolean, rest)',
]);

/** What a query gives, as `name: type` of each column. */
const rowsOf = (sql: string): string =>
  new QueryTypes(schema, sql)
    .columns()
    .map(({ name, kind }) => `${name}: ${written(kind)}`)
    .join(', ');

const paramsOf = (sql: string): string =>
  new QueryTypes(schema, sql)
    .parameters()
    .map(({ name, kind }) => `${name ?? ''}${writtenParameter(kind)}`)
    .join(', ');

test('a column is of the type that its table declares, and null where that lets it be', () => {
  expect(rowsOf('select * from todo')).toBe(
    'id: string, title: string, done: number, at: number | null, weight: number | null, ' +
      'picture: Uint8Array | null, extra: Value',
  );
  expect(rowsOf('select id, todo as "of" from item')).toBe('id: number, of: string');
  expect(rowsOf('select rowid as place from todo')).toBe('place: number');
  // A key may be null in a table that is not strict.
  expect(rowsOf('select * from loose')).toBe(
    'id: string | null, at: number | null, sold: number | null, rest: Value',
  );
});

test.each([
  ['todo t left join item i on i.todo = t.id', 't.title, i.id', 'title: string, id: number | null'],
  ['todo t join item i on i.todo = t.id', 't.title, i.id', 'title: string, id: number'],
  ['todo t right join item i', 't.title, i.id', 'title: string | null, id: number'],
  ['todo t full outer join item i', 't.title, i.id', 'title: string | null, id: number | null'],
  ['item i, todo t', 't.title, i.id', 'title: string, id: number'],
])('from %s', (from, columns, types) => {
  expect(rowsOf(`select ${columns} from ${from}`)).toBe(types);
});

test('what is selected of a select is as certain as that', () => {
  expect(rowsOf('select id from open')).toBe('id: string');
  expect(rowsOf('with c as (select id from todo) select id from c')).toBe('id: string');
  expect(rowsOf('select id from (select id, max(at) from todo)')).toBe('id: string | null');
  expect(rowsOf('select o.id from (select 1) left join open o')).toBe('id: string | null');
  expect(rowsOf('select title from pairs')).toBe('title: Value');
  expect(rowsOf('select id from todo union all select at from todo order by 1')).toBe(
    'id: number | string | null',
  );
});

test('a select of one value may have no row, wherever it stands', () => {
  const one = '(select title from todo t where t.id = i.todo)';
  const all = `select i.id, ${one} as title from item i`;
  expect(rowsOf(`with s as (${all}) select title from s`)).toBe('title: string | null');
  expect(rowsOf(`select id, title from (${all})`)).toBe('id: number | null, title: string | null');
  // One that counts always has one, and names no column; and an expression is none.
  const count = '(select count(*) from item)';
  expect(rowsOf(`select t.id, ${count} as n from todo t`)).toBe('id: string, n: number');
  expect(rowsOf(`select t.*, ${one} as n from todo t, item i`)).toMatch(
    /^id: string, title: string,/,
  );
  expect(rowsOf(`select ${one} as n, i.* from item i`)).toBe(
    'n: string | null, id: number, todo: string',
  );
  for (const other of ['(done + 1)', '(title)']) {
    expect(rowsOf(`select id from (select id, ${other} as n from todo)`)).toBe('id: string');
  }
  expect(rowsOf(`select i.*, ${one} as x, j.* from item i, item j`)).toMatch(
    /, x: string \| null,/,
  );
  const value = '(select title from todo where id = 1)';
  expect(rowsOf(`with c(a) as (values (${value})) select a from c`)).toBe('a: string | null');
  expect(rowsOf(`select * from (values (${value}))`)).toBe('column1: string | null');
});

test('what a condition chooses from is any of it', () => {
  expect(rowsOf(`select iif(done, 1, at, 'x') as a from todo`)).toBe('a: number | string | null');
  expect(rowsOf(`select iif(done, 1, at, 'x', 2) as a from todo`)).toBe('a: number | string');
  expect(rowsOf('select iif(done, 1) as a, iif(done, 1, 2) as b from todo')).toBe(
    'a: number | null, b: number',
  );
});

test('one row of all may be one of none', () => {
  expect(rowsOf('select title, count(*) as n, max(at) as m from todo')).toBe(
    'title: string | null, n: number, m: number | null',
  );
  expect(rowsOf('select title, count(*) as n, max(done) as m from todo group by title')).toBe(
    'title: string, n: number, m: number',
  );
  const within = 'select title, (select count(*) from item where todo = todo.id) as n from todo';
  expect(rowsOf(within)).toBe('title: string, n: number');
  expect(rowsOf('select title, sum(done) over () as s from todo')).toBe(
    'title: string, s: number | null',
  );
});

test.each([
  ['done = 1', 'number'],
  ['at = 1', 'number | null'],
  ['at is null', 'number'],
  ['not done', 'number'],
  ['1 - done', 'number'],
  ['1 - at', 'number | null'],
  ['done / 2', 'number | null'],
  ['-done', 'number'],
  ['+title', 'string'],
  ['max(+title, at)', 'number | string | null'],
  ['+at - +1', 'number | null'],
  ['(done, at) = (0, 5)', 'number | null'],
  ['exists (select 1 from item) + at', 'number | null'],
  ['not exists (select 1 from item) + at', 'number | null'],
  ['not exists (select 1 from item)', 'number'],
  ['floor(done)', 'number'],
  ['sign(title)', 'number | null'],
  ['ceil(json_array(1))', 'number | null'],
  ["title || '!'", 'string'],
  ['title collate nocase', 'string'],
  ['length(title)', 'number'],
  ['lower(title)', 'string'],
  ['coalesce(at, 0)', 'number'],
  ['coalesce(at, weight)', 'number | null'],
  ['cast(at as text)', 'string | null'],
  ["case when done then title else '' end", 'string'],
  ['case when done then title end', 'string | null'],
  ['iif(done, title, 0)', 'number | string'],
  ['exists (select 1 from item)', 'number'],
  ['(select title from todo)', 'string | null'],
  ["json_extract(title, '$.a')", 'Value'],
  ["title ->> '$.a'", 'Value'],
  ["x'00'", 'Uint8Array'],
  ['null', 'null'],
])('the expression %s is %s', (expression, type) => {
  expect(rowsOf(`select ${expression} as it from todo`)).toBe(`it: ${type}`);
});

const INTEGER = 'number | bigint | boolean';

test.each([
  ['id = ? and at > ?', `string, ${INTEGER}`],
  ['todo.id = :id', ':idstring'],
  ['? = title', 'string'],
  ['title = +? and +title = ?', 'string, string'],
  ['done + ? = 1', INTEGER],
  ['id in (?, ?)', 'string, string'],
  ['at not between ? and ?', `${INTEGER}, ${INTEGER}`],
  ['at is ?', `${INTEGER} | null`],
  [':q is null or title like :q', ':qstring | null'],
  ["title like '%' || ? || '%'", 'string'],
  ['picture = ?', 'Uint8Array | ArrayBuffer'],
  ['length(title) > ?', INTEGER],
  ['id in (select value from json_each(?))', 'string'],
  ['exists (select 1 from item where item.todo = todo.id and item.id = ?)', INTEGER],
  ['(at, id) > (?, ?)', `${INTEGER}, string`],
  ['(?, ?) < (id, at)', `string, ${INTEGER}`],
  ['extra = ?', 'Param'],
  ['coalesce(?, 1) = 1', 'Param'],
  ['id = ?1 or at = ?1', `${INTEGER} | string`],
  ['id = ?1 or coalesce(?1, 1)', 'Param'],
  ['at + done = ?', 'Param'],
  ['done limit ? offset ?', `${INTEGER}, ${INTEGER}`],
])('a parameter in: %s', (where, types) => {
  expect(paramsOf(`select id from todo where ${where}`)).toBe(types);
});

test('what explains a query gives rows of its own', () => {
  const sql = '/* why */ explain query plan select title from todo where id = :id';
  expect(rowsOf(sql)).toBe('id: Value, parent: Value, notused: Value, detail: Value');
  expect(paramsOf(sql)).toBe(':idstring');
  expect(schema.writes(sql)).toBe(false);
});

const found = (text: string, file = 'app.tsx'): string[] =>
  findQueries([{ file, text }]).map(({ line, alternatives, key }) => {
    const sql = alternatives.map((it) => it.sql).join(' OR ');
    return `${line} ${key === sql ? '' : key} ${sql}`;
  });

test('queries are found where they are asked, and nowhere else', () => {
  expect(
    found(`
      // db.query('select 1')
      const rows = await db.query('select 2');
      db.live<{ a: number }>(\`select 3\`, [1]);
      const p = <p title="a">Don't {useLive<Row>('select 4').rows.length}</p>;
      const text = "db.query('select 5')", isRight = 1 / 2; // '
      const ALL = 'select 6'
      useSuspenseLive(ALL);
      db.query(\`select \${7}\`);
      map.values('x');
      pg.query('insert into log values (1)');
      db.values('select 8');
    `),
  ).toEqual(['3  select 2', '4  select 3', '5  select 4', '8  select 6', '12 undefined select 8']);
});

test('a query is found behind types of several members, and within what a hook reads', () => {
  expect(found("db.query<{ id: string; at: number }>('select 1 a')")).toHaveLength(1);
  expect(found('sql<{ id: string; at: number }>`select 1 a`')).toHaveLength(1);
  expect(found("useLive<Row>(() => 'select 1 a', () => [b()])")).toHaveLength(1);
  expect(found("useLive((): string => 'select 1 a')")).toHaveLength(1);
  expect(found("useLive(computed<string>((): string | Sql => 'select 1 a'))")).toHaveLength(1);
  expect(found("useLive(find(), () => 'select 1 a')")).toEqual([]);
  expect(found("useLive((): string => { f(() => 'select 1 a') })")).toEqual([]);
  expect(found("useLive(computed(() => 'select 1 a'))", 'App.vue')).toEqual([]);
  expect(
    found("<script setup>useLive(computed(() => 'select 1 a'))</script>", 'App.vue'),
  ).toHaveLength(1);
  expect(found("a < { b: 1 }; db.query('select 1 a')")).toHaveLength(1);
  expect(found("import { sql } from '$lib/db'; sql<'n'>`select 1 a`")).toHaveLength(1);
  expect(found("function f() { if (x.live < 3) { return } } g(a > ('select 1 a'));")).toEqual([]);
});

test('a module of very many tokens is read', () => {
  expect(found(`export const x = [${'1,'.repeat(200_000)}]; db.query('select 1 a')`)).toHaveLength(
    1,
  );
  expect(found(`x = {a: [${'1,'.repeat(200_000)}]}; db.query('select 1 a')`)).toHaveLength(1);
  expect(found(`<A d={[${'1,'.repeat(200_000)}]} />; db.query('select 1 a')`)).toHaveLength(1);
});

test('a comment leaves out the query behind it, on its line or the next', () => {
  expect(
    found(`
      // tidelog-ignore: of the server
      await pg.query(
        'select 1');
      /* tidelog-ignore */ pg.query('select 2');
      pg.query('select 3'); // tidelog-ignore
      pg.query('select 4');
      // tidelog-ignore
      pg.query(sql\`select 5\`);
      <p>
        {/* tidelog-ignore */}
        {useLive('select 6')}
      </p>
    `),
  ).toEqual(['6  select 3', '7  select 4']);
});

test('a quote in a regular expression begins no text, also behind a condition', () => {
  const text = `
    if (f(x)) /[\`']/.test(y); else (a) / b;
    for (const it of all) while (x) /'/.exec(it.if(x) / 2 + (await (y)) / 2);
    db.query('select 1'); // '
  `;
  expect(found(text)).toEqual(['4  select 1']);
});

test('a template is found by its tag, with a parameter for each value, its parts in place', () => {
  const text = `
    import { sql as q } from 'tidelog';
    import { sql } from 'other';
    const done = q\`done = \${1}\`;
    db.query(q<'some'>\`select id from todo where \${done} and at > \${at ? 1 : 2}\`);
    q\`select 1 \${isAll ? q\`where 1\` : q\`\`}\`;
    sql\`select 2\`;
    db.query(q\`selct 3\`);
  `;
  expect(found(text)).toEqual([
    '5 some select id from todo where done = ? and at > ?',
    '6 undefined select 1 where 1 OR select 1 ',
    '8 undefined selct 3',
  ]);
});

test('constants that are imported are found, and scripts of components', () => {
  const script = `import x, { ONE, type ALL as EACH } from './all'; useLive(EACH);`;
  const queries = findQueries([
    { file: 'list.vue', text: `<p>it's</p>\n<script setup lang="ts">\n${script}\n</script>` },
    { file: 'all.ts', text: `export const ALL = 'select 1';\nconst f = <T>(it: T) => it;` },
  ]);
  expect(queries).toMatchObject([{ file: 'list.vue', line: 3, key: 'select 1' }]);
});

test('a constant is that of its module, or where it is imported any of its name', () => {
  const queries = findQueries([
    {
      file: 'a.ts',
      text: `const text = 'Hello big world', ALL = ''; export const B = 'select 1';`,
    },
    { file: 'b.ts', text: `export const B = 'select 2'; const f = (text) => db.query(text);` },
    { file: 'c.ts', text: `export { B } from './b'; db.query(B);` },
    { file: 'd.ts', text: `const B = 'select 3'; db.query(B);` },
    { file: 'e.ts', text: `import { B } from './c'; db.query(B);` },
  ]);
  const keys = queries.map(({ file, key }) => `${file} ${key}`);
  expect(keys).toEqual(['d.ts select 3', 'e.ts select 1', 'e.ts select 2', 'e.ts select 3']);
});

test('a part is the constant of its name that stands before it', () => {
  const text = `
    function f() { const v = sql\`id\`; return sql\`select \${v}\`; }
    function g() { const v = sql\`at\`; return sql\`select \${v} or \${after}\`; }
    const after = sql\`1\`;
  `;
  expect(found(text)).toEqual(['2 undefined select id', '3 undefined select at or 1']);
});

const declared = (...lines: string[]) =>
  declare([{ name: 'todos', schema }], findQueries([{ file: 'app.ts', text: lines.join('\n') }]));

test('the file has the types of each query once, in an order of its own', () => {
  const { text, count, flaws, notes } = declared(
    "db.query('select title from todo where id = :id', { id });",
    "db.live('select id from todo where at > ?', [1]);",
    "db.query('select id from todo where at > ?', [2]);",
    `sql<'some'>\`select id from todo where \${sql\`done\`} and at > \${1} and \${it}\`;`,
  );
  expect({ count, flaws, notes }).toEqual({ count: 3, flaws: [], notes: [] });
  expect(text.split('\n').filter((line) => line.startsWith('    '))).toEqual([
    '    "select id from todo where at > ?": { row: { id: string }; ' +
      `params: readonly [${INTEGER}] };`,
    '    "select title from todo where id = :id": { row: { title: string }; ' +
      'params: { readonly id: string } };',
    '    "some": { row: { id: string }; ' +
      `params: readonly [Query<unknown>, ${INTEGER}, Param | Query<unknown>] };`,
  ]);
});

test('a part that is one of several is asked as each of them', () => {
  const { text, flaws, notes } = declared(
    `sql<'mixed'>\`select \${c ? sql\`id\` : d ? sql\`done\` : sql\`at\`} as v from todo
       where title = \${1} \${c ? sql\`and at > \${0}\` : sql\`\`}
       and \${d ? sql\`id\` : sql\`at\`} = \${2}\`;`,
    `sql<'named'>\`select \${c ? sql\`id\` : sql\`at\`} from todo\`;`,
    `sql<'many'>\`select \${it} ${`\${c ? sql\`+ 1\` : sql\`\`}`.repeat(9)}\`;`,
    `sql<'wrong'>\`select \${c ? sql\`id\` : sql\`nope\`} from todo\`;`,
  );
  expect(text.split('\n').filter((line) => line.startsWith('    '))).toEqual([
    '    "mixed": { row: { v: number | string | null }; params: readonly ' +
      `[Query<unknown>, string, Query<unknown>, Query<unknown>, ${INTEGER} | string] };`,
    '    "named": { row: { id: string } | { at: number | null }; ' +
      'params: readonly [Query<unknown>] };',
  ]);
  expect(flaws).toEqual([expect.stringMatching(/^app\.ts:6: .*no such column: nope$/)]);
  expect(notes).toEqual(['app.ts:5: not looked at: its parts make more than 256 queries']);
});

test('a name stands once among what is written', () => {
  const { text, count } = declared(
    "db.values('select a.id, b.id from todo a, item b');",
    "db.query('select id from todo where id = :x or at = $x or title = @x', { x });",
    "db.values(sql<'both'>`select a.id, b.id from todo a, item b`);",
  );
  expect(count).toBe(2);
  expect(text.split('\n').filter((line) => line.startsWith('    '))).toEqual([
    '    "both": { row: { id: number | string }; params: readonly [] };',
    '    "select id from todo where id = :x or at = $x or title = @x": { row: { id: string }; ' +
      `params: { readonly x: ${INTEGER} | string } };`,
  ]);
});

test('what is wrong is told with its line, in the words of SQLite', () => {
  const { flaws, notes } = declared(
    "db.query('select nope from todo');",
    "db.query('with a as (select 1) delete from todo');",
    'db.query(sql`insert into item (todo) values (1) returning id`);',
    "db.query('select id, id from todo');",
    "db.values('select id, id from todo');",
    "sql<'a'>`select 1 as b`; sql<'a'>`select 2 as b`; sql<'a'>` select 1  as b`",
    'db.live(sql`select id from todo order`);',
    `sql\`select id from todo \${tail}\`;`,
  );
  const isWriting = 'it does not only read: what changes a document is a mutation';
  expect(flaws.map((flaw) => flaw.replace(/SQLITE_ERROR: sqlite3 result code 1: /, ''))).toEqual([
    'app.ts:1: no such column: nope',
    `app.ts:2: ${isWriting}`,
    `app.ts:3: ${isWriting}`,
    'app.ts:4: two columns are named id: name one "... as another", or ask values()',
    'app.ts:6: another query is called a, too',
    expect.stringMatching(/^app\.ts:7: (incomplete input|near "order")/),
  ]);
  expect(notes).toEqual(['app.ts:8: not looked at: a part of it is SQL from elsewhere']);
});

test('a Node without what is needed is told of', async () => {
  const absent = () => Promise.reject(new Error('no such module'));
  const needed = /^types are found .* takes Node 22\.16 or newer \(23\.11 of 23\): this is v/;
  await expect(loadSqlite(absent)).rejects.toThrow(needed);
  class Older {
    exec(): void {}
    function(): void {}
    close(): void {}
    prepare(): { all: () => [] } {
      return { all: () => [] };
    }
  }
  await expect(loadSqlite(async () => ({ DatabaseSync: Older }))).rejects.toThrow(needed);
  expect(await loadSqlite(async () => sqlite)).toBe(sqlite);
});
