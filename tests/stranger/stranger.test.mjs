// A client that knows the protocol's paper alone gets along with the server.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { prepareServer } from '../browser/harness/tidelog-server.mjs';
import { fileOfSql, queryFile } from '../browser/harness.mjs';
import { CHANNEL, localPosition, Stranger } from './client.mjs';
import * as wire from './messages.mjs';

const STOCK = {
  name: 'stock',
  migrations: [
    `create table part (name text primary key, count integer not null check (count >= 0),
       weight real, image blob) strict`,
  ],
  mutations: {
    take: {
      params: { name: 'text', count: 'integer' },
      sql: ['update part set count = count - :count where name = :name'],
    },
    add: {
      params: { name: 'text', count: 'integer', weight: 'real?', image: 'blob?' },
      sql: ['insert into part values (:name, :count, :weight, :image)'],
    },
    note: { params: { text: 'text' }, sql: ['insert into part values (:text, 1, null, null)'] },
    refuse: { params: { why: 'text' }, sql: ['select reject(:why)'] },
    fill: {
      params: { pages: 'integer' },
      sql: [
        `with recursive n(i) as (select 1 union all select i + 1 from n where i < :pages)
         insert into part select 'filler ' || i, i, null, zeroblob(4000) from n`,
      ],
    },
    clear: { params: {}, sql: [`delete from part where name glob 'filler*'`] },
  },
};

let server;
let folder;
let names = 0;

before(async () => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'tidelog-stranger-'));
  server = await prepareServer();
  await server.start();
});

after(async () => {
  await server.dispose();
  rmSync(folder, { recursive: true, force: true });
});

function newDocument() {
  names += 1;
  return `stranger-${names}`;
}

/** A client that is not connected yet. */
function stranger(t, document, doctype = STOCK) {
  const file = path.join(folder, randomBytes(8).toString('hex'));
  const client = new Stranger({ document, doctype, file });
  t.after(() => client.cut());
  return client;
}

const started = (t, document, doctype) => stranger(t, document, doctype).start(server.ws);

/** The copy is the server's, byte for byte, and a sound database. */
async function isTheServers(client, document) {
  const theirs = await server.export(document);
  assert.ok(Buffer.from(client.copy.bytes()).equals(Buffer.from(theirs)), 'byte for byte');
  assert.deepEqual(queryFile(theirs, 'pragma integrity_check'), [{ integrity_check: 'ok' }]);
}

const rows = (client, sql) => queryFile(client.copy.bytes(), sql);

test('it makes a document, and another one follows it', async (t) => {
  const document = newDocument();
  const client = await started(t, document);
  await client.sync();
  await isTheServers(client, document);
  // One by one: those that are decided together come as one entry, which says less.
  client.mutate('add', { name: 'bolt', count: 12 });
  await client.sync();
  client.mutate('add', { name: 'nut', count: 7, weight: 0.5, image: Buffer.from([1, 0, 255]) });
  await client.sync();
  client.mutate('take', { name: 'bolt', count: 2 });
  await client.sync();
  await isTheServers(client, document);
  assert.deepEqual(rows(client, 'select name, count, weight, hex(image) as image from part'), [
    { name: 'bolt', count: 10, weight: null, image: '' },
    { name: 'nut', count: 7, weight: 0.5, image: '0100FF' },
  ]);

  const other = await started(t, document);
  await other.sync();
  await isTheServers(other, document);
  other.mutate('take', { name: 'nut', count: 7 });
  await other.sync();
  await client.sync();
  assert.deepEqual(rows(client, `select count from part where name = 'nut'`), [{ count: 0 }]);
  await isTheServers(client, document);
  assert.ok(client.copy.chainsChecked >= 4, 'each entry of one LSN follows on its chain');
  assert.ok(client.copy.codings.Previous >= 4, 'it has what the changes of a page go by');
  assert.equal(other.copy.codings.Previous > 0, true, 'once it has caught up');
});

test('a document of many pages travels in parts, and stays the same file', async (t) => {
  const document = newDocument();
  const client = await started(t, document);
  client.mutate('fill', { pages: 700 });
  await client.sync();
  await isTheServers(client, document);
  const other = await started(t, document);
  await other.sync();
  await isTheServers(other, document);
  assert.ok(other.copy.partsMax >= 3, 'no message has more than 256 pages');
  client.mutate('clear', {});
  client.mutate('add', { name: 'bolt', count: 1 });
  for (const each of [client, other]) {
    await each.sync();
    await isTheServers(each, document);
  }
});

test('events are counted by the server, and followed from by its rows', async (t) => {
  const insert = `insert into tidelog_events (aggregate, stream, type, data) values`;
  const doctype = {
    name: 'shop',
    migrations: ['create table orders (id text primary key, place integer, gift integer)'],
    mutations: {
      place: {
        params: { id: 'text', gift: 'boolean' },
        sql: [
          `${insert} ('order', :id, 'placed', json_object('gift', json(iif(:gift, 'true',
               'false'))))`,
        ],
      },
      ship: { params: { id: 'text' }, sql: [`${insert} ('order', :id, 'shipped', null)`] },
    },
    streams: {
      order: {
        shipped: {
          fields: {},
          project: [
            `select reject('no such order') where not exists
             (select 1 from orders where id = :stream)`,
          ],
        },
        placed: {
          fields: { gift: 'boolean', note: 'text?' },
          upcasts: [`json_set(:data, '$.gift', json('false'))`],
          project: ['insert into orders values (:stream, :sequence, :gift)'],
        },
      },
    },
  };
  const document = newDocument();
  const client = await started(t, document, doctype);
  client.mutate('place', { id: 'one', gift: true });
  client.mutate('ship', { id: 'none' });
  client.mutate('ship', { id: 'one' });
  client.mutate('place', { id: 'two', gift: false });
  await client.sync();
  await isTheServers(client, document);
  assert.deepEqual(rows(client, 'select * from orders'), [
    { id: 'one', place: 1, gift: 1 },
    { id: 'two', place: 3, gift: 0 },
  ]);
  const events = `select sequence, stream, position, type, version, data, cause from tidelog_events
                  order by sequence`;
  const event = (sequence, stream, position, type, version, data, cause) => {
    return { sequence, stream, position, type, version, data, cause: `mutation:${cause}` };
  };
  assert.deepEqual(rows(client, events), [
    event(1, 'one', 1, 'placed', 2, '{"gift":true}', 'place'),
    event(2, 'one', 2, 'shipped', 1, '{}', 'ship'),
    event(3, 'two', 1, 'placed', 2, '{"gift":false}', 'place'),
  ]);
});

test('a command is received, handled by somebody, and over once', async (t) => {
  const doctype = {
    name: 'shop',
    migrations: ['create table orders (id text primary key, state text)'],
    mutations: {},
    streams: {
      order: {
        placed: {
          fields: { items: 'json' },
          project: [`update orders set state = 'placed' where id = :stream`],
        },
        commands: {
          place: {
            fields: { items: 'json' },
            received: [`insert into orders values (:stream, 'sent by ' || :key)`],
            failed: ['update orders set state = :reason where id = :stream'],
          },
        },
      },
    },
  };
  const document = newDocument();
  const [sender, handler] = [
    await started(t, document, doctype),
    await started(t, document, doctype),
  ];
  const place = (id, key, items) =>
    sender.mutate('send:order.place', { stream: id, args: JSON.stringify({ items }), key });
  handler.send(wire.register(CHANNEL, 3, [['order', 'place']], { concurrency: 2 }));
  const { instance } = await handler.hears('Registered');
  place('one', 'a', [1]);
  place('one', 'a', [1]);
  const reused = place('one', 'a', [2]);
  place('two', 'b', []);
  await sender.sync();
  assert.deepEqual(rows(sender, 'select lsn, reason from _tidelog_rejection'), [
    { lsn: reused, reason: 'key reused: place of one was sent by it before, with other arguments' },
  ]);
  const given = `select number, stream, args, attempt, coalesce(length, 0) as position
                 from _tidelog_task left join tidelog_streams using (aggregate, stream)
                 where state = 'started' and instance = ${instance} order by number`;
  await handler.until('two commands', () => rows(handler, given).length === 2);
  const [one, two] = rows(handler, given);
  assert.deepEqual([one.stream, one.args, two.stream], ['one', '{"items":[1]}', 'two']);
  let completions = 0;
  const answer = async (completion) => {
    handler.said = [];
    completions += 1;
    handler.send(wire.complete(CHANNEL, 3, completions, completion));
    const { number, answer } = await handler.hears('Completed');
    assert.equal(number, completions);
    return answer;
  };
  const [first, second] = [one, two].map(({ number, attempt, position }) => {
    return { task: number, attempt, position };
  });
  const events = [['placed', { items: [1] }]];
  assert.equal(await answer({ ...first, position: 1, events }), 'Stale');
  assert.equal(await answer({ ...first, attempt: 2, events }), 'Late');
  const snapshot = ['placed', '0'];
  assert.equal(await answer({ ...first, events, snapshot }), 'Done');
  assert.equal(await answer({ ...first, events }), 'Late');
  assert.equal(await answer({ ...second, reason: 'sold out' }), 'Done');
  await sender.sync();
  await isTheServers(sender, document);
  await isTheServers(handler, document);
  assert.deepEqual(rows(sender, 'select * from orders'), [
    { id: 'one', state: 'placed' },
    { id: 'two', state: 'sold out' },
  ]);
  const over = 'select stream, state, attempt, first, last, reason from tidelog_commands';
  assert.deepEqual(rows(sender, over), [
    { stream: 'one', state: 'completed', attempt: 1, first: 1, last: 1, reason: null },
    { stream: 'two', state: 'failed', attempt: 1, first: null, last: null, reason: 'sold out' },
  ]);
});

test('a run of a workflow goes on with what it remembers, until it returns', async (t) => {
  const insert = `insert into tidelog_events (aggregate, stream, type) values ('order', :id, :type)`;
  const doctype = {
    name: 'shop',
    migrations: [],
    mutations: { note: { params: { id: 'text', type: 'text' }, sql: [insert] } },
    streams: { order: { paid: { fields: {} }, shipped: { fields: {} } } },
    workflows: { fulfil: { version: 3, fields: { order: 'text' } } },
  };
  const document = newDocument();
  const [sender, handler] = [
    await started(t, document, doctype),
    await started(t, document, doctype),
  ];
  handler.send(wire.register(CHANNEL, 3, [['fulfil', '3']]));
  const { instance } = await handler.hears('Registered');
  sender.mutate('start:fulfil', { id: 'f', args: '{"order":"o"}' });
  sender.mutate('start:fulfil', { id: 'g', args: '{"order":"o"}' });
  sender.mutate('cancel:fulfil', { id: 'g' });
  sender.mutate('start:fulfil', { id: 'f', args: '{"order":"o"}' });
  const reused = sender.mutate('start:fulfil', { id: 'f', args: '{"order":"p"}' });
  const none = sender.mutate('cancel:fulfil', { id: 'h' });
  await sender.sync();
  assert.deepEqual(rows(sender, 'select lsn, reason from _tidelog_rejection'), [
    { lsn: reused, reason: 'key reused: fulfil of f was sent by it before, with other arguments' },
    { lsn: none, reason: 'there is no run h of workflow fulfil' },
  ]);
  const given = `select number as task, attempt from _tidelog_task
                 where state = 'started' and instance = ${instance}`;
  const says = async (attempt, completion) => {
    await handler.until(`attempt ${attempt}`, () => rows(handler, given)[0]?.attempt === attempt);
    const [run] = rows(handler, given);
    handler.said = [];
    handler.send(wire.complete(CHANNEL, 3, attempt, { ...run, ...completion }));
    const { number, answer, time } = await handler.hears('Completed');
    assert.equal(number, attempt);
    assert.equal(answer, 'Done');
    assert.ok(Math.abs(time - Date.now()) < 60_000, `${time}`);
  };
  const label = ['label', 0, 'step', '[7]'];
  await says(1, { records: [label, ['shipped', 4, 'order', 'o', 'shipped', 0]] });
  sender.mutate('note', { id: 'o', type: 'paid' });
  sender.mutate('note', { id: 'o', type: 'shipped' });
  await says(2, {
    records: [
      ['sleep', 3, 5],
      ['late', 4, 'order', 'o', 'shipped', 5],
    ],
  });
  await says(3, { result: '"done"' });
  await sender.sync();
  await isTheServers(sender, document);
  await isTheServers(handler, document);
  const runs = 'select id, version, state, attempt, result, reason from tidelog_workflows';
  assert.deepEqual(rows(sender, runs), [
    { id: 'f', version: 3, state: 'completed', attempt: 3, result: '"done"', reason: null },
    { id: 'g', version: 3, state: 'cancelled', attempt: 0, result: null, reason: 'cancelled' },
  ]);
  const remembered = rows(sender, 'select name, kind, state, result from tidelog_records');
  assert.deepEqual(remembered.slice(0, 3), [
    { name: 'label', kind: 'step', state: 'done', result: '[7]' },
    { name: 'shipped', kind: 'event', state: 'done', result: '2' },
    { name: 'sleep', kind: 'sleep', state: 'done', result: null },
  ]);
});

test('what has many bytes comes compressed, and may be said so', async (t) => {
  const document = newDocument();
  const client = await started(t, document);
  client.mutate('note', { text: 'buy milk and some bread, '.repeat(10_000) });
  await client.sync();
  await isTheServers(client, document);
  const before = wire.compressedCount();
  const other = await started(t, document);
  await other.sync();
  await isTheServers(other, document);
  assert.ok(wire.compressedCount() > before, 'all has come as it is');
  other.compresses = true;
  other.mutate('add', { name: 'bolt', count: 1 });
  await other.sync();
  await isTheServers(other, document);
});

test('a rejection is a row, and goes when it was kept', async (t) => {
  const document = newDocument();
  const client = await started(t, document);
  const rejected = client.mutate('refuse', { why: 'out of stock' });
  client.mutate('add', { name: 'bolt', count: 1 });
  const broken = client.mutate('take', { name: 'bolt', count: 2 });
  await client.sync();
  const rejections = 'select timeline, lsn, mutation, reason from _tidelog_rejection order by lsn';
  const found = rows(client, rejections);
  assert.deepEqual(
    found.map(({ timeline, lsn, mutation }) => [Buffer.from(timeline), lsn, mutation]),
    [
      [client.timeline, rejected, 'refuse'],
      [client.timeline, broken, 'take'],
    ],
  );
  assert.equal(found[0].reason, 'out of stock');
  assert.match(found[1].reason, /CHECK constraint/);
  assert.deepEqual(rows(client, 'select name, count from part'), [{ name: 'bolt', count: 1 }]);

  client.kept = broken + 1;
  const last = client.mutate('take', { name: 'bolt', count: 1 });
  await client.sync();
  assert.deepEqual(rows(client, rejections), []);
  const [{ wanted, lives }] = rows(client, 'select wanted, lives from _tidelog_timeline');
  assert.equal(wanted, last + 1);
  const first = Buffer.alloc(8);
  first.writeBigUInt64LE(1n);
  assert.deepEqual(Buffer.from(lives), Buffer.concat([wire.publicLife(client.life), first]));
});

test('a frame that has moved has the verdict of the one that it was', async (t) => {
  const document = newDocument();
  const client = await started(t, document);
  const other = await started(t, document);
  client.mutate('add', { name: 'bolt', count: 9 });
  const taken = client.mutate('take', { name: 'bolt', count: 1 });
  const refused = client.mutate('refuse', { why: 'out of stock' });
  await client.sync();
  const issuedAs = (lsn) => ({ timeline: client.timeline, life: client.life, lsn });
  const theirs = { timeline: randomBytes(16), life: randomBytes(16), lsn: 7 };
  other.mutate('take', { name: 'bolt', count: 1 }, issuedAs(taken));
  const again = other.mutate('refuse', { why: 'out of stock' }, issuedAs(refused));
  const placed = other.mutate('take', { name: 'bolt', count: 2 }, theirs);
  other.mutate('take', { name: 'bolt', count: 2 }, theirs);
  await other.sync();
  assert.deepEqual(rows(other, 'select count from part'), [{ count: 6 }]);
  const rejections = rows(other, 'select timeline, lsn, reason from _tidelog_rejection');
  const reason = 'out of stock';
  const ours = rejections.filter(({ timeline }) => other.timeline.equals(timeline));
  assert.deepEqual(
    ours.map(({ lsn, reason }) => ({ lsn, reason })),
    [{ lsn: again, reason }],
  );
  const moved = rows(other, 'select * from _tidelog_moved');
  const asIs = (value) => (typeof value === 'number' ? value : Buffer.from(value));
  assert.deepEqual(
    moved.map((row) => Object.values(row).map(asIs)),
    [
      [
        theirs.timeline,
        wire.publicLife(theirs.life),
        theirs.lsn,
        theirs.lsn,
        other.timeline,
        placed,
      ],
    ],
  );
});

test('bytes that are no mutation hold nobody up', async (t) => {
  const document = newDocument();
  const client = await started(t, document);
  client.frames.push({ call: randomBytes(16), mutation: Buffer.from('no mutation') });
  client.sendFrames(1);
  client.mutate('add', { name: 'bolt', count: 1 });
  await client.sync();
  const found = rows(client, 'select lsn, mutation from _tidelog_rejection');
  assert.deepEqual(found, [{ lsn: 1, mutation: '' }]);
  assert.equal(rows(client, 'select * from part').length, 1);
});

test('a frame of a doctype that is not known is left alone until it is brought', async (t) => {
  const document = newDocument();
  const client = await started(t, document);
  const next = { ...STOCK, migrations: [...STOCK.migrations, 'create table shelf (name text)'] };
  const later = stranger(t, document, next);
  later.secret = client.secret;
  later.mutate('add', { name: 'bolt', count: 1 });
  client.frames.push(later.frames[0]);
  client.sendFrames(1);
  const { lsn, why } = await client.hears('Undecided');
  assert.deepEqual([lsn, why.type], [1, 'UnknownDoctype']);
  client.open({ doctype: wire.doctype(next) });
  await client.until('the frame to be taken', () => client.acked === 2);
  await client.sync();
  assert.equal(rows(client, 'select * from part').length, 1);
  assert.deepEqual(rows(client, 'select value from _tidelog_meta'), [{ value: 2 }]);
  await isTheServers(client, document);
});

test('what is refused is refused by name, and the channel is free again', async (t) => {
  const document = newDocument();
  const client = await started(t, document);
  await client.sync();
  const refused = async (what, options) => {
    client.said = [];
    client.open(options);
    const { refusal } = await client.hears('Refused');
    assert.equal(refusal.type, what);
  };
  const other = { ...STOCK, name: 'another' };
  await refused('DoctypeMismatch', { doctype: wire.doctype(other) });
  const broken = { ...STOCK, migrations: [...STOCK.migrations, 'create nonsense'] };
  await refused('DoctypeInvalid', { doctype: wire.doctype(broken) });
  await refused('DoctypeWanted', { named: wire.hash(wire.doctype(other)) });
  const { position } = localPosition([], 0);
  await refused('Exists', { have: position, offered: [{ life: position.life, first: 1 }] });

  client.said = [];
  client.open({ named: wire.hash(wire.doctype(STOCK)) });
  await client.hears('Opened');
  client.sendFrames(3, [{ call: randomBytes(16), mutation: Buffer.alloc(1) }]);
  const { refusal } = await client.hears('Refused');
  assert.equal(refusal.type, 'Protocol');

  const lost = stranger(t, newDocument());
  await lost.connect(server.ws);
  lost.send(wire.hello(wire.clientOf(lost.secret)));
  lost.open({ have: client.copy.position });
  const missing = await lost.hears('Refused');
  assert.equal(missing.refusal.type, 'Missing');

  client.said = [];
  client.open();
  await client.hears('Opened');
  client.mutate('add', { name: 'bolt', count: 1 });
  await client.sync();
  await isTheServers(client, document);
});

test('a connection that breaks the rules hears why, and is closed', async (t) => {
  const client = stranger(t, newDocument());
  const hearsBye = async (...messages) => {
    await client.connect(server.ws);
    for (const bytes of messages) client.send(bytes);
    const { reason } = await client.hears('Bye');
    await client.hears('closed');
    return reason.type;
  };
  assert.equal(await hearsBye(wire.ping()), 'Protocol', 'the first message is Hello');
  assert.equal(await hearsBye(Buffer.from([1, 0, 99, 0, 0, 0])), 'Protocol', 'no such message');
  const left = Buffer.concat([wire.hello(wire.clientOf(client.secret)), Buffer.alloc(1)]);
  assert.equal(await hearsBye(left), 'Protocol', 'a byte is left over');
  assert.equal(await hearsBye(Buffer.from([9, 0])), 'Version');
  assert.equal(await hearsBye('text'), 'Protocol', 'a text message');
  const behind = Array.from({ length: 2_000 }, () => wire.ping());
  assert.equal(await hearsBye(...behind), 'Protocol', 'also where more was on its way');

  await client.connect(server.ws);
  client.send(wire.hello(wire.clientOf(client.secret)));
  client.send(wire.ping());
  await client.hears('Pong');
});

test('after a cut, and after a kill of the server, it goes on from its position', async (t) => {
  const document = newDocument();
  const [client, other] = [await started(t, document), await started(t, document)];
  client.mutate('add', { name: 'bolt', count: 100 });
  await client.sync();
  await other.sync();

  // What was sent may have arrived or not: it is sent again, and applied once.
  client.mutate('take', { name: 'bolt', count: 1 });
  client.cut();
  client.mutate('take', { name: 'bolt', count: 10 });
  other.mutate('take', { name: 'bolt', count: 5 });
  await other.sync();
  await client.start(server.ws);
  await client.sync();
  assert.deepEqual(rows(client, 'select count from part'), [{ count: 84 }]);
  await isTheServers(client, document);

  await server.kill();
  await client.hears('closed');
  client.mutate('take', { name: 'bolt', count: 4 });
  await server.start();
  await client.start(server.ws);
  await client.sync();
  assert.deepEqual(rows(client, 'select count from part'), [{ count: 80 }]);
  await isTheServers(client, document);

  await server.stop();
  const { reason } = await client.hears('Bye');
  assert.equal(reason.type, 'Shutdown');
  await server.start();
  const held = client.copy.position.next;
  await client.start(server.ws);
  const { from, storage } = await client.hears('Opened');
  assert.deepEqual([from, storage.next], [held, held], 'there is nothing to send');
  await isTheServers(client, document);
});

test('who holds what the server does not have gets the whole document', async (t) => {
  const document = newDocument();
  const client = await started(t, document);
  client.mutate('add', { name: 'bolt', count: 1 });
  await client.sync();
  client.cut();
  client.copy.position = { ...client.copy.position, life: randomBytes(16) };
  await client.start(server.ws);
  assert.equal((await client.hears('Opened')).from, 1);
  await client.sync();
  await isTheServers(client, document);
});

/** What the paper says of the system tables, in a document that has seen the one migration. */
const SYSTEM_TABLES = `
  create table _tidelog_meta (key text primary key, value any not null) strict, without rowid;
  create table _tidelog_timeline (timeline blob primary key, wanted integer not null,
     lives blob not null, forgotten integer not null, client blob) strict, without rowid;
  create table _tidelog_rejection (timeline blob not null, lsn integer not null,
     mutation text not null, reason text not null, primary key (timeline, lsn))
     strict, without rowid;
  create table _tidelog_moved (timeline blob not null, life blob not null,
     first integer not null, last integer not null, place blob not null,
     place_first integer not null, primary key (timeline, life, first))
     strict, without rowid;
  insert into _tidelog_meta values ('version', 1);`;

/** A client that offers the database that this SQL makes, and has sent all of it. */
async function offering(t, document, sql) {
  const file = fileOfSql(`${SYSTEM_TABLES} ${STOCK.migrations[0]}; ${sql}`);
  const pages = [];
  for (let pgid = 1; pgid * wire.PAGE_SIZE <= file.length; pgid += 1) {
    const end = pgid * wire.PAGE_SIZE;
    pages.push({ pgid, bytes: file.subarray(end - wire.PAGE_SIZE, end) });
  }
  const local = localPosition(pages, pages.length);
  const client = stranger(t, document);
  await client.connect(server.ws);
  client.send(wire.hello(wire.clientOf(client.secret)));
  const offered = [{ life: local.position.life, first: 1 }];
  client.open({ have: local.position, offered });
  await client.hears('SeedWanted');
  client.send(wire.seed(CHANNEL, local, pages.slice(0, 1), false));
  assert.equal((await client.hears('SeedTaken')).pagesCount, 1);
  client.send(wire.seed(CHANNEL, local, pages.slice(1), true));
  return { client, local };
}

test('a local database becomes the server’s, if it is of its doctype', async (t) => {
  const document = newDocument();
  const stray = await offering(t, document, 'create table more (x)');
  const { refusal } = await stray.client.hears('Refused');
  assert.equal(refusal.type, 'Protocol');

  const row = `insert into part values ('bolt', 3, null, null)`;
  const { client, local } = await offering(t, document, row);
  const { position } = await client.hears('Seeded');
  assert.deepEqual(position, local.position, 'it is the same journal, with the same chain');
  const other = await started(t, document);
  other.mutate('take', { name: 'bolt', count: 1 });
  await other.sync();
  assert.deepEqual(rows(other, 'select name, count from part'), [{ name: 'bolt', count: 2 }]);
  await isTheServers(other, document);
});

test('two copies of one client are told where they part', async (t) => {
  const document = newDocument();
  const client = await started(t, document);
  client.mutate('add', { name: 'bolt', count: 9 });
  await client.sync();
  const clone = stranger(t, document);
  clone.timeline = client.timeline;
  clone.life = randomBytes(16);
  clone.frames = [...client.frames];
  clone.secret = client.secret;
  client.mutate('take', { name: 'bolt', count: 1 });
  await client.sync();
  await clone.start(server.ws);
  // It wrote LSN 2 too, and its own is another one.
  clone.mutate('take', { name: 'bolt', count: 2 });
  clone.sendFrames(2);
  const { refusal } = await clone.hears('Refused');
  assert.equal(refusal.type, 'Parted');
  clone.said = [];
  clone.open();
  const { wanted, lives } = await clone.hears('Opened');
  assert.equal(wanted, 3);
  assert.deepEqual(
    lives.map(({ life }) => life),
    [wire.publicLife(client.life)],
  );
});
