// What an app, its SQL or its server gets wrong is a typed error that says what to do, and every
// local row is still there.

import assert from 'node:assert/strict';
import { startStranger } from './harness/stranger.mjs';
import {
  atLeast,
  both,
  freePort,
  INSECURE_HOST,
  mutateIn,
  openIn,
  rowsIn,
  statusBecomes,
  statusIn,
  syncIn,
  tryOpen,
} from './harness.mjs';

/** An error of ours, of this class, that says something and left nothing behind. */
function assertError(error, name, message = /\w+ \w+ \w+/) {
  assert.ok(error, `${name} was expected`);
  assert.equal(error.name, name, error.message);
  assert.ok(error.ours, 'it is a TidelogError');
  assert.match(error.code, /^[a-z]+(-[a-z]+)*$/);
  assert.equal(error.outcome, 'none');
  assert.match(error.message, message);
}

/** An open document with one row. */
async function withRow(stage, options = {}) {
  const tab = await stage.tab();
  await openIn(tab, 'list', { document: stage.document, ...options });
  const { error } = await mutateIn(tab, 'add', { id: 'a', title: 'still there' });
  assert.equal(error, undefined);
  return tab;
}

async function assertStillThere(tab) {
  assert.deepEqual(await rowsIn(tab, 'select id, title from item'), [
    { id: 'a', title: 'still there' },
  ]);
  const next = await mutateIn(tab, 'rename', { id: 'a', title: 'and goes on' });
  assert.equal(next.error, undefined);
}

both('an unknown mutation is refused', async (stage) => {
  const tab = await withRow(stage);
  const { error } = await tab.evaluate(() => outcome(() => kept.db.mutate.explode({ id: 'a' })));
  assertError(error, 'UnknownMutationError', /explode/);
  await assertStillThere(tab);
});

both('arguments of another name or type are refused, and change nothing', async (stage) => {
  const tab = await withRow(stage);
  const cases = [
    { id: 'b' },
    { id: 'b', title: 7 },
    { id: 'b', title: 'b', colour: 'red' },
    { id: null, title: 'b' },
    undefined,
  ];
  for (const args of cases) {
    const { error } = await tab.evaluate((args) => outcome(() => kept.db.mutate.add(args)), args);
    assertError(error, 'MutationArgumentError', /add/);
  }
  await assertStillThere(tab);
});

both('SQL that is wrong in a query is said to be so', async (stage) => {
  const tab = await withRow(stage);
  for (const [sql, message] of [
    ['select title from nowhere', /nowhere/],
    ['selekt 1', /selekt/],
    ['select abs(-9223372036854775807 - 1)', /overflow/],
    ['', /./],
  ]) {
    const { error } = await tab.evaluate((sql) => outcome(kept.db.query(sql)), sql);
    assertError(error, 'QueryError', message);
  }
  await assertStillThere(tab);
});

both('a query that writes is refused', async (stage) => {
  const tab = await withRow(stage);
  for (const sql of [
    `insert into item (id, title, at) values ('b', 'b', 1)`,
    'delete from item',
    `delete from item where id = 'nobody' returning id`,
    'create table more (id)',
    'drop table item',
  ]) {
    const { error } = await tab.evaluate((sql) => outcome(kept.db.query(sql)), sql);
    assertError(error, 'ReadOnlyError');
  }
  await assertStillThere(tab);
});

both('an endless query ends with an error, and nobody is held up for good', async (stage) => {
  const tab = await withRow(stage);
  const { error, ms } = await tab.evaluate(async () => {
    const began = performance.now();
    const { error } = await outcome(
      kept.db.query(
        'with recursive n(i) as (select 1 union all select i + 1 from n) select sum(i) from n',
      ),
    );
    return { error, ms: performance.now() - began };
  });
  assertError(error, 'BudgetExceededError');
  assert.ok(ms < 10_000, `it took ${Math.round(ms)} ms`);
  await assertStillThere(tab);
  stage.note(`ended after ${Math.round(ms)} ms`);
});

both('an endless mutation ends with an error and records nothing', async (stage) => {
  const tab = await withRow(stage);
  const error = await tab.evaluate(async (document) => {
    const endless = doctypes.withStatement({
      statement: `insert into t with recursive n(i) as (select 1 union all select i + 1 from n)
                  select :id || sum(i) from n`,
    });
    const db = await tidelog.open(endless, { document });
    const { error } = await outcome(db.mutate.run({ id: 'x' }));
    const rows = await db.query('select * from t');
    return { ...error, rows: rows.length };
  }, `${stage.document}-endless`);
  assert.ok(['BudgetExceededError', 'RejectedError'].includes(error.name), error.name);
  assert.equal(error.outcome, 'none');
  assert.equal(error.rows, 0);
  await assertStillThere(tab);
});

both(
  'of two doctypes of one name neither of which succeeds the other the second is refused',
  async (stage) => {
    const tab = await withRow(stage);
    const second = await stage.tab();
    for (const each of [tab, second]) {
      const error = await tryOpen(each, 'otherList', { document: stage.document }, 'other');
      assertError(error, 'DoctypeMismatchError', /list/);
    }
    await assertStillThere(tab);
  },
);

both('tables of Tidelog’s own are out of reach for SQL of an app', async (stage) => {
  const server = await stage.server();
  const tab = await withRow(stage, { server: server.ws });
  assert.equal(await syncIn(tab), null);
  const names = await tab.evaluate(async () => {
    const { value } = await outcome(
      kept.db.query(`select name from sqlite_schema where name like '\\_tidelog%' escape '\\'`),
    );
    return value?.map((row) => row.name) ?? [];
  });
  for (const name of ['_tidelog_x', '_TIDELOG_Timeline', ...names]) {
    const { error } = await tab.evaluate(
      (sql) => outcome(kept.db.query(sql)),
      `select * from ${name}`,
    );
    assertError(error, 'QueryError', /_tidelog/i);
  }
  const tries = [
    { migration: 'create table _tidelog_mine (id text)', statement: 'select 1 where :id is null' },
    { statement: 'insert into _tidelog_mine values (:id)' },
    { statement: `delete from sqlite_schema where :id <> ''` },
    ...names.map((name) => ({ statement: `delete from ${name} where :id <> ''` })),
  ];
  for (const given of tries) {
    const { error } = await tab.evaluate(
      ([given, document]) =>
        outcome(() => tidelog.open(doctypes.withStatement(given), { document })),
      [given, `${stage.document}-odd`],
    );
    assertError(error, 'DoctypeError');
  }
  await assertStillThere(tab);
});

both('what two runs would answer differently is refused at open', async (stage) => {
  const tab = await withRow(stage);
  const table = 'create table t (id text primary key, extra)';
  const tries = [
    { statement: 'insert into t values (:id || random())' },
    { statement: 'insert into t values (:id || hex(randomblob(4)))' },
    { statement: `insert into t values (:id || datetime('now'))` },
    { statement: `insert into t values (:id || strftime('%s'))` },
    { statement: 'insert into t values (:id || current_timestamp)' },
    { migration: 'create table t (id text primary key, extra default (random()))' },
    { migration: 'create table t (id text primary key, extra default current_timestamp)' },
    {
      migration: `${table}; create trigger tr after insert on t
        begin update t set extra = random() where id = new.id; end`,
      statement: 'insert into t (id) values (:id)',
    },
    { statement: 'pragma user_version = 7' },
    { statement: `attach ':memory:' as more` },
    { statement: 'begin' },
    { statement: 'create temp table passing (id)' },
    { statement: 'insert into nowhere values (:id)' },
  ];
  const went = [];
  for (const [index, given] of tries.entries()) {
    const { error } = await tab.evaluate(
      ([given, document]) =>
        outcome(async () => {
          await tidelog.open(
            doctypes.withStatement({ statement: 'insert into t (id) values (:id)', ...given }),
            { document },
          );
        }),
      [given, `${stage.document}-${index}`],
    );
    if (error?.name === 'DoctypeError') assertError(error, 'DoctypeError');
    else went.push(`${JSON.stringify(given)}: ${error?.name ?? 'opened'}`);
  }
  assert.deepEqual(went, [], 'every one of them is refused');
  await assertStillThere(tab);
});

both('a server of another protocol version is named, and the rows stay', async (stage) => {
  const stranger = await startStranger();
  stage.onEnd(() => stranger.close());
  const tab = await withRow(stage, { server: stranger.ws });
  const status = await statusBecomes(tab, { error: 'ProtocolError' });
  assert.match(status.error.message, /version|protocol/i);
  assert.equal(status.pending, 1);
  assertError(await syncIn(tab), 'ProtocolError', /version|protocol/i);
  await assertStillThere(tab);
  const asked = stranger.connections();
  assert.ok(asked >= 1 && asked < 20, `${asked} connections`);
});

both('no server there: the document works, and says that it is offline', async (stage) => {
  const tab = await withRow(stage, { server: `ws://127.0.0.1:${await freePort()}` });
  const status = await tab.evaluate(() => whenStatus(kept.db, (it) => it.connection === 'offline'));
  assert.equal(status.pending, 1);
  await tab.evaluate(() =>
    whenStatus(kept.db, (it) => it.error?.name === 'ServerUnreachableError'),
  );
  await assertStillThere(tab);
  assert.equal((await statusIn(tab)).pending, 2);
});

both('options that cannot be used are refused', async (stage) => {
  const tab = await withRow(stage);
  for (const options of [
    { document: '' },
    { document: 'x'.repeat(5000) },
    { document: 'fine', server: 'no address' },
    { document: 'fine', server: 'https://example.org' },
  ]) {
    assertError(await tryOpen(tab, 'list', options, 'other'), 'InvalidOptionError');
  }
  const errors = await tab.evaluate(async () => {
    const { list } = doctypes;
    const fine = { document: 'fine' };
    const part = (name, value) => ({ ...list, [name]: value });
    const tries = {
      'no doctype': () => tidelog.open(undefined, fine),
      'an empty doctype': () => tidelog.open({}, fine),
      'a doctype without a name': () => tidelog.open(part('name', undefined), fine),
      'a doctype whose name is a number': () => tidelog.open(part('name', 7), fine),
      'a doctype without migrations': () => tidelog.open(part('migrations', null), fine),
      'a migration that is no SQL': () => tidelog.open(part('migrations', [7]), fine),
      'a doctype without mutations': () => tidelog.open(part('mutations', undefined), fine),
      'a mutation without SQL': () => tidelog.open(part('mutations', { add: {} }), fine),
      'a mutation that is SQL alone': () => tidelog.open(part('mutations', { add: 'x' }), fine),
      'no options': () => tidelog.open(list),
      'null for options': () => tidelog.open(list, null),
      'text for options': () => tidelog.open(list, 'fine'),
      'options without a document': () => tidelog.open(list, {}),
      'a number for a document': () => tidelog.open(list, { document: 7 }),
      'a number for a user': () => tidelog.open(list, { ...fine, user: 7 }),
      'null for a server': () => tidelog.open(list, { ...fine, server: null }),
      'text for a token': () => tidelog.open(list, { ...fine, token: 'secret' }),
      'an option that is misspelled': () =>
        tidelog.open(list, { ...fine, sever: 'ws://a.example' }),
      'a worker at no address': () => tidelog.open(list, { ...fine, workerUrl: 'http://[' }),
      'nothing to destroy': () => tidelog.destroy(),
      'null for the options of destroy': () => tidelog.destroy('fine', null),
    };
    const named = Object.entries(tries).map(async ([name, call]) => [name, await outcome(call)]);
    return Promise.all(named);
  });
  for (const [name, { error }] of errors) {
    assert.ok(error, `${name} went through`);
    assert.equal(error.name, 'InvalidOptionError', `${name}: ${error.message}`);
    assertError(error, 'InvalidOptionError');
  }
  await assertStillThere(tab);
});

both('a core that cannot be started is said, and stands in nobody’s way', async (stage) => {
  const tab = await stage.tab();
  const other = await stage.tab();
  for (const workerUrl of ['/nothing-there.js', 'http://127.0.0.2/core.js']) {
    const { error } = await tab.evaluate(
      (workerUrl) => outcome(() => tidelog.open(doctypes.list, { document: 'fine', workerUrl })),
      workerUrl,
    );
    assertError(error, 'EngineError');
  }
  // The tab that failed lends to nobody, so it must let others have their turn; and another core.
  await openIn(other, 'list', { document: stage.document });
  await openIn(tab, 'list', { document: stage.document });
  await mutateIn(tab, 'add', { id: 'a', title: 'still there' });
  await assertStillThere(other);
});

both('an address that is no secure context is said to be the reason', async (stage) => {
  // W10: over http to another machine half of what a page may use is not there.
  const url = new URL('/app.html', stage.site.origin);
  url.hostname = INSECURE_HOST;
  const tab = await stage.tab(url.href);
  assert.equal(await tab.evaluate(() => isSecureContext), false);
  assertError(
    await tryOpen(tab, 'list', { document: 'fine' }),
    'EngineError',
    /over https, or open it on localhost/,
  );
  const { error } = await tab.evaluate(() => outcome(() => tidelog.destroy('fine')));
  assertError(error, 'EngineError', /over https, or open it on localhost/);
});

both('calls of a wrong shape are refused, and harm no call beside them', async (stage) => {
  const tab = await withRow(stage);
  const { wrong, right, event, live } = await tab.evaluate(async () => {
    const { db } = kept;
    // All in one turn, so that they would travel in one message.
    const calls = [
      db.query('select 1 as one'),
      db.query(),
      db.query(7),
      db.query(['select 1']),
      db.query('select ?', [() => {}]),
      db.query('select ?', [Symbol('x')]),
      db.query('select :a', { a: {} }),
      db.query('select 2 as two', null),
    ];
    const live = db.live();
    const liveError = new Promise((resolve) => {
      live.subscribe((_, error) => resolve(described(error)));
    });
    const event = await outcome(() => db.on('nonsense', () => {}));
    const all = await Promise.all(calls.map((call) => outcome(call)));
    return {
      right: [all[0].value, all.at(-1).value],
      wrong: all.slice(1, -1).map(({ error }) => error),
      event: event.error,
      live: await liveError,
    };
  });
  assert.deepEqual(right, [[{ one: 1 }], [{ two: 2 }]]);
  for (const error of [...wrong, live]) assertError(error, 'QueryError');
  assertError(event, 'InvalidOptionError', /nonsense/);
  await assertStillThere(tab);
});

atLeast(15);
