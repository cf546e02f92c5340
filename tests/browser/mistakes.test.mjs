// What is said of the mistakes that are made while an app is written: the page docs/mistakes.md.
//
// `UPDATE=1 node --test tests/browser/mistakes.test.mjs` makes it anew. Read it then: each message
// is to say what is wrong, where, and what to do.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { atLeast, both, inRoot } from './harness.mjs';

const PAGE = inRoot('docs/mistakes.md');

const ABOVE = `# Mistakes

What is said of what is easily done while an app is written, and where. TypeScript refuses many of
these before they are run, and [\`tidelog/vite\` and \`npx tidelog check\`](./developing.md) those of
a doctype before there is a browser. [Errors](./errors.md) says more of each class.

<!-- Made by tests/browser/mistakes.test.mjs: what a browser said. -->
`;

/** Runs in the page: what was done, and what came of it, in groups. */
async function makeMistakes(document) {
  const { doctype, mutation, open, destroy } = tidelog;
  const list = doctype({
    name: 'list',
    migrations: ['create table item (id text primary key, title text not null) strict'],
    mutations: {
      add: mutation(
        { id: 'text', title: 'text' },
        'insert into item (id, title) values (:id, :title)',
      ),
      draw: mutation({ id: 'uuid' }, `insert into item (id, title) values (:id, '')`),
      refuse: mutation({ id: 'text' }, [
        `select reject('there is no such item') where not exists (select 1 from item where id = :id)`,
        'delete from item where id = :id',
      ]),
      typed: mutation(
        { t: 'text', i: 'integer', r: 'real', b: 'blob', y: 'boolean', j: 'json' },
        'insert into item (id, title) select :t, :i || :r || :b || :y || :j',
      ),
    },
  });
  const db = await open(list, { document });
  let count = 0;
  const note = 'create table note (id text primary key, n integer) strict';
  const opening = (definition) => () => {
    const whole = { name: 'mistake', migrations: [note], mutations: {}, ...definition };
    return open(doctype(whole), { document: `${document}-${++count}` });
  };
  const migrated = (sql) => opening({ migrations: [note, sql] });
  const mutated = (sql, params = {}) => {
    return () => opening({ mutations: { put: mutation(params, sql) } })();
  };
  const added = (...args) => {
    return () => db.mutate.add(...args);
  };
  const typed = (name, value) => {
    const right = { t: 't', i: 1, r: 1, b: new Uint8Array(1), y: true, j: {} };
    return () => db.mutate.typed({ ...right, [name]: value });
  };
  const asked = (...args) => {
    return () => db.query(...args);
  };
  const given = new Uint8Array(8);
  structuredClone(given, { transfer: [given.buffer] });
  const circle = {};
  circle.circle = circle;
  const fine = { document: `${document}-options` };
  const opened = (options) => {
    return () => open(list, { ...fine, ...options });
  };

  const groups = {
    'A doctype': {
      'no doctype at all': () => open({}, fine),
      'a doctype without a name': opening({ name: undefined }),
      'one migration, and no list': opening({ migrations: note }),
      'a function as a mutation': opening({ mutations: { put: () => {} } }),
      'a function as the SQL of a mutation': mutated(() => {}),
      'SQL without `mutation()`': opening({ mutations: { put: 'delete from note' } }),
      'a mutation whose parameters are left out': () => mutation('delete from note'),
      'an unknown type of argument': mutated('select :a', { a: 'string' }),
      'a parameter called `now`': mutated('select :now', { now: 'integer' }),
    },
    'A migration': {
      'a syntax error': migrated('create tabel other (id text)'),
      'a table that is there already': migrated('create table note (id text)'),
      'a column of a table that is not there': migrated('alter table other add column n integer'),
      'a parameter': migrated('insert into note (id) values (:id)'),
      'a transaction': migrated('begin; delete from note; commit'),
      'a pragma': migrated('pragma foreign_keys = off'),
      'a temporary table': migrated('create temp table other (id text)'),
      'a virtual table': migrated('create virtual table other using fts5 (text)'),
      'another database': migrated("attach 'other.db' as other"),
      '`vacuum`': migrated('vacuum'),
      'a table of Tidelog’s': migrated('create table _tidelog_mine (id text)'),
      'random rows': migrated('insert into note (id) values (hex(randomblob(8)))'),
      'the time as a default': migrated(
        'create table log (id text primary key, at text default current_timestamp)',
      ),
      'no SQL': migrated(7),
    },
    'A mutation': {
      'a syntax error': mutated('delet from note'),
      'a table that is not there': mutated('delete from notes'),
      'a column that is not there': mutated('update note set text = 1'),
      'a parameter that was not declared': mutated('delete from note where id = :id'),
      'a parameter by position': mutated('delete from note where id = ?', { id: 'text' }),
      'a random id': mutated('insert into note (id) values (hex(randomblob(8)))'),
      '`random()`': mutated('update note set n = random()'),
      '`datetime()`': mutated("update note set n = datetime('now')"),
      '`current_timestamp`': mutated('update note set n = current_timestamp'),
      '`unixepoch()` without a time': mutated('update note set n = unixepoch()'),
      'a new table': mutated('create table other (id text)'),
      'a transaction': mutated(['begin', 'delete from note', 'commit']),
      'a pragma': mutated('pragma user_version = 2'),
      'a table of Tidelog’s': mutated('delete from _tidelog_timeline'),
      'the rows of the schema': mutated('delete from sqlite_schema'),
      'no statement': mutated(''),
    },
    'What is issued': {
      'a mutation that is not there': () => db.mutate.ad({ id: 'a', title: 'b' }),
      'a bare value': added('milk'),
      'arguments by position': added('a', 'milk'),
      'an array of arguments': added(['a', 'milk']),
      nothing: added(),
      'an argument that is missing': added({ id: 'a' }),
      'an argument that is misspelt': added({ id: 'a', titel: 'milk' }),
      '`undefined` for an argument': added({ id: 'a', title: undefined }),
      '`null` for one that is not optional': added({ id: 'a', title: null }),
      'a number for text': added({ id: 'a', title: 7 }),
      'a `Date` for text': added({ id: 'a', title: new Date(0) }),
      'half a character': added({ id: 'a', title: '\ud800' }),
      'text for an integer': typed('i', '1'),
      'a fraction for an integer': typed('i', 1.5),
      'a number beyond 2^53': typed('i', 2 ** 60),
      'a bigint beyond 64 bits': typed('i', 2n ** 64n),
      'a `Date` for an integer': typed('i', new Date(0)),
      '`NaN` for a real': typed('r', Number.NaN),
      'infinity for a real': typed('r', Number.POSITIVE_INFINITY),
      'an array for a blob': typed('b', [1, 2]),
      'bytes that are a worker’s now': typed('b', given),
      '1 for a boolean': typed('y', 1),
      'text for a boolean': typed('y', 'yes'),
      'a function for JSON': typed('j', () => {}),
      'JSON that never ends': typed('j', circle),
      'a blob over 16 MiB': typed('b', new Uint8Array(17 << 20)),
      'text that is no UUID': () => db.mutate.draw({ id: 'abc' }),
      'what the database refuses': async () => {
        await db.mutate.add({ id: 'twice', title: 'a' });
        await db.mutate.add({ id: 'twice', title: 'b' });
      },
      'what `reject()` refuses': () => db.mutate.refuse({ id: 'none' }),
    },
    'A query': {
      'no SQL': asked(),
      'a function': asked(() => {}),
      'an empty text': asked(''),
      'a syntax error': asked('selct 1'),
      'a table that is not there': asked('select * from items'),
      'a column that is not there': asked('select name from item'),
      'two statements': asked('select 1; select 2'),
      'a change': asked("insert into item (id, title) values ('a', 'b')"),
      'a deletion that returns rows': asked('delete from item returning id'),
      'a table of Tidelog’s': asked('select * from _tidelog_timeline'),
      'a parameter too few': asked('select ?, ?', [1]),
      'a parameter too many': asked('select ?', [1, 2]),
      'a named parameter that is not there': asked('select :a', { b: 1 }),
      'an array for named parameters': asked('select :a', [1, 2]),
      'a bare value for a parameter': asked('select ?', 'a'),
      '`undefined` as a parameter': asked('select ?', [undefined]),
      'a `Date` as a parameter': asked('select ?', [new Date(0)]),
      'an object as a parameter': asked('select ?', [{}]),
      'a function as a parameter': asked('select ?', [() => {}]),
      'two columns of one name': asked('select 1 as a, 2 as a'),
      'a query that never ends': asked(
        'with recursive r (n) as (select 1 union all select n + 1 from r) select count(*) from r',
      ),
      'a live query that was closed': () => {
        const live = db.live('select 1');
        live.close();
        live.subscribe(() => {});
      },
      'a document that was closed': async () => {
        const other = await open(list, { document: `${document}-closed` });
        await other.close();
        await other.query('select 1');
      },
    },
    Options: {
      none: () => open(list),
      'a text': () => open(list, 'groceries'),
      'no document': () => open(list, {}),
      'a document without a name': opened({ document: '' }),
      'a user that is a number': opened({ user: 7 }),
      'an option that is misspelt': opened({ sever: 'ws://127.0.0.1:8787' }),
      'a server by http': opened({ server: 'http://127.0.0.1:8787' }),
      'a server with the path of its protocol': opened({ server: 'ws://127.0.0.1:8787/v1/sync' }),
      'a token in the address': opened({ server: 'ws://127.0.0.1:8787?token=a' }),
      'a token that is a text': opened({ token: 'secret' }),
      'a worker at no address': opened({ workerUrl: 'http://[' }),
      'another word for `dev`': opened({ dev: { onMigrationEdited: 'yes' } }),
      'an event that there is not': () => db.on('change', () => {}),
      'another doctype for a document': () => {
        const other = doctype({ name: 'other', migrations: [note], mutations: {} });
        return open(other, { document });
      },
      'a migration that was edited': () => {
        const [first, ...more] = list.migrations;
        const migrations = [first.replace('strict', ''), ...more];
        return open({ ...list, migrations }, { document });
      },
      'a document that is open, to be deleted': () => destroy(document),
      'a document to delete, without a name': () => destroy(),
    },
  };
  const said = {};
  for (const [group, mistakes] of Object.entries(groups)) {
    said[group] = {};
    for (const [mistake, make] of Object.entries(mistakes)) {
      const made = async () => {
        await make();
      };
      const { error } = await outcome(made);
      said[group][mistake] = error ?? null;
    }
  }
  return said;
}

/** A row of the table; what differs from run to run is left out. */
function row(mistake, { name, message }, document) {
  const text = message.replaceAll(document, 'groceries').replaceAll('|', '\\|');
  return `| ${mistake} | \`${name}\` | ${text} |`;
}

both('each of a hundred mistakes is answered by what is wrong, where, and how', async (stage) => {
  const { document } = stage;
  const tab = await stage.tab();
  const said = await tab.evaluate(makeMistakes, document);
  const all = Object.values(said).flatMap(Object.entries);
  const isOurs = (error) => /^(?!Type|Range|Syntax)\w+Error$/.test(error?.name);
  assert.deepEqual(
    all.filter(([, error]) => !isOurs(error)),
    [],
  );
  assert.ok(all.length >= 95, `${all.length}`);
  const sections = Object.entries(said).map(([group, mistakes]) => {
    const rows = Object.entries(mistakes).map(([mistake, error]) => row(mistake, error, document));
    return `\n## ${group}\n\n| | | |\n| --- | --- | --- |\n${rows.join('\n')}\n`;
  });
  const page = ABOVE + sections.join('');
  if (process.env.UPDATE) writeFileSync(PAGE, page);
  assert.equal(page, readFileSync(PAGE, 'utf8'));
});

atLeast(1);
