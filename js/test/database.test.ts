import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { ref } from 'vue';
import type { Caller, Connection, OpenDocument } from '../src/connection.js';
import { Database } from '../src/database.js';
import { doctype, mutation } from '../src/doctype.js';
import {
  BudgetExceededError,
  DoctypeMismatchError,
  DocumentClosedError,
  EngineError,
  QueryError,
  RejectedError,
  ServerUnreachableError,
} from '../src/errors.js';
import type { Answer, EntryId, Params, ToCore } from '../src/messages.js';
import { sql } from '../src/sql.js';
import type { Status } from '../src/status.js';
import { BROWSER } from '../src/tab-host.js';

const KIND = doctype({
  name: 'a',
  migrations: [],
  mutations: { add: mutation({ b: 'blob' }, 'select 1') },
});

/** One row, whose cells did not all get here. */
const CUT_OFF: Answer = {
  type: 'rows',
  rows: { columns: ['a'], count: 1, cells: new Uint8Array([9, 0, 0, 0, 2]) },
};

const NONE = new Uint8Array();

/** What was asked, in order. */
let asked: ToCore['mutate'][] = [];

/** What was said that is not answered, in order. */
let said: string[] = [];

/** The calls that nobody waits for any more. */
let leftAlone: number[] = [];

/** The document that was opened last, as its core tells it news. */
let told: OpenDocument;

/** A document whose core answers each call so. */
function answeredBy(answer: Answer, status: Partial<Status> = {}, head?: EntryId) {
  const connection = {
    host: BROWSER,
    attach: (_: number, document: OpenDocument) => {
      told = document;
    },
    detach: () => {},
    call: (_: unknown, message: ToCore['mutate'], caller: Caller) => {
      asked.push(message);
      queueMicrotask(() => callSafely(() => caller(answer, true)));
      return 1;
    },
    giveUp: (call: number) => leftAlone.push(call),
    tell: (kind: string) => said.push(kind),
  };
  const opened = { handle: 1, doctype: KIND };
  return new Database<typeof KIND.mutations>(connection as unknown as Connection, opened, {
    status: { error: null, ...status } as Status,
    memo: { word: 0, copy: undefined, head },
  });
}

/** As a connection does it: what a caller throws is reported and harms nobody else. */
function callSafely(call: () => void): void {
  try {
    call();
  } catch (error) {
    reportError(error);
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

beforeEach(() => vi.stubGlobal('reportError', () => {}));
afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

test('an error says all of itself as JSON', () => {
  const error = new ServerUnreachableError('it does not answer', { outcome: 'unknown' });
  expect(JSON.parse(JSON.stringify({ error }))).toEqual({
    error: {
      name: 'ServerUnreachableError',
      code: 'server-unreachable',
      message: 'it does not answer',
      outcome: 'unknown',
    },
  });
});

test('an answer that this page cannot take settles the call with an error', async () => {
  const db = answeredBy(CUT_OFF);
  await expect(db.query('select a from b')).rejects.toThrow(EngineError);
});

test('the stack of what failed a query names who has asked', async () => {
  const db = answeredBy({ type: 'failed', error: new QueryError('no such table: b') });
  async function shownOnTheBoard(): Promise<void> {
    await db.query('select a from b');
  }
  const error: Error = await shownOnTheBoard().catch((it) => it);
  expect(error.stack).toMatch(/^QueryError: no such table: b\n/);
  expect(error.stack).toContain('shownOnTheBoard');
});

test('the stack of what failed a mutation names who has issued it, of each its own', async () => {
  const rejected = new RejectedError('no', { mutation: 'add', reason: 'full' });
  const db = answeredBy({ type: 'failed', error: rejected });
  const putOnTheBoard = () => db.mutate.add({ b: NONE });
  const dragOnTheBoard = () => db.mutate.add({ b: NONE });
  const [put, drag] = [putOnTheBoard(), dragOnTheBoard()];
  const errors = [put.confirmed, put, drag.confirmed, drag].map((it) => it.catch((why) => why));
  for (const [index, error] of (await Promise.all(errors)).entries()) {
    expect(error).toBeInstanceOf(RejectedError);
    expect(error).toMatchObject({ message: 'no', mutation: 'add', reason: 'full' });
    expect(error.stack).toMatch(/^RejectedError: no\n/);
    expect(error.stack).toContain(index < 2 ? 'putOnTheBoard' : 'dragOnTheBoard');
    expect(error.stack).not.toContain(index < 2 ? 'dragOnTheBoard' : 'putOnTheBoard');
  }
  // It takes time, and a process that serves users calls often.
  vi.stubEnv('NODE_ENV', 'production');
  const unnamed = await putOnTheBoard().catch((why) => why);
  vi.unstubAllEnvs();
  expect(unnamed).toBe(rejected);
});

test('a live query tells of an answer that this page cannot take', async () => {
  const listener = vi.fn();
  answeredBy(CUT_OFF).live('select a from b').subscribe(listener);
  await turn();
  expect(listener.mock.calls).toEqual([[undefined, expect.any(EngineError)]]);
});

test('Vue leaves a document and its queries as they are, and mutations can be called', async () => {
  const entry: EntryId = { journal: new Uint8Array(16), life: new Uint8Array(16), lsn: 7 };
  const db = answeredBy({ type: 'durable', entry }, { connection: 'local' });
  const held = ref(db);
  expect(held.value).toBe(db);
  expect(await ref(db.mutate).value.add({ b: new Uint8Array() })).toEqual({ lsn: 7 });
  const live = db.live('select 1');
  expect(ref(live).value).toBe(live);
});

test('a listener that another one has stopped is not called', () => {
  const db = answeredBy({ type: 'done' });
  const heard: string[] = [];
  const { signal } = controllerOf(db, heard);
  for (const name of ['second', 'third']) db.on('status', () => heard.push(name), { signal });
  tellStatus(db);
  expect(heard).toEqual(['first']);
});

/** Has the first listener of a document stop all that listen with the signal of this. */
function controllerOf(db: ReturnType<typeof answeredBy>, heard: string[]): AbortController {
  const controller = new AbortController();
  db.on('status', () => {
    heard.push('first');
    controller.abort();
  });
  return controller;
}

function tellStatus(db: ReturnType<typeof answeredBy>): void {
  told.news({
    type: 'status',
    status: db.status,
    memo: { word: 0, copy: undefined, head: undefined },
  });
}

test('where a listener closes the document others hear of that last', () => {
  const db = answeredBy({ type: 'done' });
  const heard: unknown[] = [];
  db.on('status', () => void db.close());
  db.on('status', ({ error }) => heard.push(error?.code));
  tellStatus(db);
  expect(heard.at(-1)).toBe('document-closed');
});

test('who listens to errors is not told of one that has passed meanwhile', async () => {
  const db = answeredBy({ type: 'done' }, { error: new EngineError('lost') });
  const heard: unknown[] = [];
  db.on('error', (error) => heard.push(error));
  told.news({
    type: 'status',
    status: { ...db.status, error: null },
    memo: { word: 0, copy: undefined, head: undefined },
  });
  await Promise.resolve();
  expect(heard).toEqual([]);
});

test('who listens is told once of an error that is there, or comes in that turn', async () => {
  const memo = { word: 0, copy: undefined, head: undefined };
  const [one, other] = [new EngineError('one'), new EngineError('other')];
  const cases: [EngineError | null, EngineError | null, unknown[]][] = [
    [one, one, [one]],
    [one, new EngineError('one'), [one]],
    [one, other, [other]],
    [null, one, [one]],
    [one, null, []],
  ];
  for (const [before, then, expected] of cases) {
    const db = answeredBy({ type: 'done' }, { error: before });
    const heard: unknown[] = [];
    db.on('error', (error) => heard.push(error));
    told.news({ type: 'status', status: { ...db.status, error: then }, memo });
    await turn();
    expect(heard).toEqual(expected);
  }
  const db = answeredBy({ type: 'done' });
  const heard: unknown[] = [];
  db.on('error', (error) => heard.push(error));
  await db.close();
  expect(heard).toEqual([]);
});

test('a document that is closed tells its live queries, and those that begin then', async () => {
  const db = answeredBy({ type: 'done' });
  const [runs, idle, closed] = [db.live('select 1'), db.live('select 2'), db.live('select 3')];
  const heard: unknown[] = [];
  runs.subscribe((_, error) => heard.push(error));
  closed.subscribe((_, error) => heard.push(error));
  closed.close();
  await db.close();
  expect(heard).toEqual([expect.any(DocumentClosedError)]);
  for (const query of [runs, idle]) {
    expect(() => query.subscribe(() => {})).toThrow('the document was closed');
  }
});

test('who is told that a document is closed may close it, and listen anew', async () => {
  asked = [];
  const db = answeredBy({ type: 'done' });
  const live = db.live('select 1');
  let told = 0;
  const listen = (): void => {
    told++;
    void db.close();
    callSafely(() => live.subscribe(listen));
    callSafely(() => db.live('select 2').subscribe(listen));
  };
  live.subscribe((_, error) => error && listen());
  await db.close();
  await turn();
  expect(told).toBe(1);
  // The live query, and one closing.
  expect(asked).toHaveLength(2);
});

test('a live query without a statement tells so, and asks for nothing', async () => {
  asked = [];
  const heard = vi.fn();
  answeredBy({ type: 'done' })
    .live('select ?', [{}] as never)
    .subscribe((_, error) => heard(error));
  await turn();
  expect(heard.mock.calls).toEqual([[expect.any(QueryError)]]);
  expect(asked).toEqual([]);
});

test.each(['query', 'sync', 'export'] as const)('%s can be given up', async (kind) => {
  const db = answeredBy({ type: 'done' });
  const ask = (signal: AbortSignal): Promise<unknown> =>
    kind === 'query' ? db.query('select 1', [], { signal }) : db[kind]({ signal });
  [asked, leftAlone] = [[], []];
  const why = new Error('enough');
  await expect(ask(AbortSignal.abort(why))).rejects.toBe(why);
  expect(asked).toEqual([]);
  const controller = new AbortController();
  const asks = ask(controller.signal);
  controller.abort(why);
  await expect(asks).rejects.toBe(why);
  expect(leftAlone).toEqual([1]);
  const late = new AbortController();
  await ask(late.signal);
  late.abort();
  expect(leftAlone).toEqual([1]);
});

test('listeners and live queries can be given up', async () => {
  const db = answeredBy({ type: 'done' });
  const heard = vi.fn();
  const controller = new AbortController();
  const { signal } = controller;
  const live = db.live('select 1', [], { signal });
  live.subscribe(heard);
  db.on('status', heard, { signal });
  controller.abort();
  expect(() => live.subscribe(heard)).toThrow(DocumentClosedError);
  expect(() => db.live('select 1', [], { signal }).subscribe(heard)).toThrow(DocumentClosedError);
  db.on('status', heard, { signal });
  told.news({
    type: 'status',
    status: {} as Status,
    memo: { word: 0, copy: undefined, head: undefined },
  });
  await turn();
  expect(heard).not.toHaveBeenCalled();
});

test('a query that has its parameters is asked as one that is given them', async () => {
  const asks = async (ask: (db: ReturnType<typeof answeredBy>) => unknown): Promise<unknown> => {
    asked = [];
    await ask(answeredBy({ type: 'rows', rows: { columns: [], count: 0, cells: NONE } }));
    return asked[0];
  };
  const text = 'select ?, ?';
  const whole = sql`select ${1}, ${'a'}`;
  const given = await asks((db) => db.query(text, [1, 'a']));
  expect(given).toMatchObject({ sql: text, params: [1, 'a'] });
  expect(await asks((db) => db.query(whole))).toEqual(given);
  expect(await asks((db) => db.values(whole))).toEqual(given);
  const live = await asks((db) => db.live(whole).subscribe(() => {}));
  expect(live).toEqual(given);
  const signal = AbortSignal.abort(new Error('enough'));
  expect(await asks((db) => db.query(whole, { signal }).catch(() => {}))).toBeUndefined();
  const without = { sql: text, parameters: [undefined, new Date()] };
  await expect(answeredBy({ type: 'done' }).query(without)).rejects.toThrow('parameter 1 of');
});

test('a document is closed at the end of its block', async () => {
  const db = answeredBy({ type: 'done' });
  await db[Symbol.asyncDispose]();
  await expect(db.query('select 1')).rejects.toThrow(DocumentClosedError);
});

test('a rejection that nobody would hear of is written to the console', async () => {
  const written = vi.spyOn(console, 'error').mockImplementation(() => {});
  const entry = { journal: new Uint8Array(16), life: new Uint8Array(16), lsn: 1 };
  const error = new RejectedError('add was rejected: no');
  const rejecting = () => answeredBy({ type: 'rejected', entry, error } as Answer);
  const args = { b: new Uint8Array([7]) };
  await rejecting()
    .mutate.add(args)
    .confirmed.catch(() => {});
  // Durable and rejected may come at once.
  const receipt = rejecting().mutate.add(args);
  await receipt.catch(() => {});
  await receipt.confirmed.catch(() => {});
  const listening = rejecting();
  listening.on('rejected', () => {});
  await listening.mutate.add(args).catch(() => {});
  await turn();
  expect(written).not.toHaveBeenCalled();
  await rejecting()
    .mutate.add(args)
    .catch(() => {});
  await turn();
  expect(written.mock.calls).toEqual([[expect.stringContaining('add was undone'), args, error]]);
});

test('W19: nothing but the file is in the buffer of an export', async () => {
  const file = new Uint8Array(26).subarray(24);
  const { buffer } = await answeredBy({ type: 'exported', file }).export();
  expect(buffer.byteLength).toBe(2);
});

test('a value that no statement could hold is refused before it is copied', async () => {
  const db = answeredBy({ type: 'done' });
  const large = new ArrayBuffer(2 ** 24 + 1);
  const copied = vi.spyOn(ArrayBuffer.prototype, 'slice');
  expect(() => db.mutate.add({ b: large })).toThrow(/add: its arguments are over 16777216 bytes/);
  await expect(db.query('select ?', [large])).rejects.toThrow(BudgetExceededError);
  expect(copied).not.toHaveBeenCalled();
});

test.each<[string, string, Params]>([
  ['many parameters', 'select ?', new Array(20).fill('x'.repeat(1 << 20))],
  ['parameters by name', 'select :a', { a: 'x'.repeat(1 << 23), b: new Uint8Array(1 << 23) }],
  ['long SQL', `select '${'x'.repeat(1 << 24)}'`, []],
])('a query with %s is bounded in sum before it travels', async (_, sql, params) => {
  asked = [];
  const db = answeredBy({ type: 'done' });
  await expect(db.query(sql, params)).rejects.toThrow(BudgetExceededError);
  expect(asked).toEqual([]);
});

test.each<[string, string, Params]>([
  ['SQL', "select '\ud800'", []],
  ['a parameter', 'select ?', ['a\udc00']],
  ['the name of a parameter', 'select 1', { '\ud800': 1 }],
])('half a surrogate pair in %s is refused, and not made into another character', async (...of) => {
  const [, sql, params] = of;
  await expect(answeredBy({ type: 'done' }).query(sql, params)).rejects.toThrow(QueryError);
});

test('bytes that were given away are refused like any other wrong argument', async () => {
  const db = answeredBy({ type: 'done' });
  for (const bytes of [new Uint8Array(8), new ArrayBuffer(8)]) {
    structuredClone(bytes, { transfer: [bytes instanceof ArrayBuffer ? bytes : bytes.buffer] });
    expect(() => db.mutate.add({ b: bytes })).toThrow(
      'add: argument b has to be a Uint8Array or an ArrayBuffer, and is bytes that were given away',
    );
    await expect(db.query('select ?', [bytes])).rejects.toThrow(QueryError);
  }
});

test('a parameter that SQL has no value for is named, with what to give', async () => {
  const db = answeredBy({ type: 'done' });
  const told = async (params: unknown): Promise<string> => {
    const error = await db.query('select ?', params as Params).catch((it) => it);
    expect(error).toBeInstanceOf(QueryError);
    return error.message;
  };
  expect(await told([1, undefined])).toContain('parameter 2 of select ? is undefined: give null');
  expect(await told({ at: new Date() })).toContain(
    'parameter :at of select ? is a Date: give date.getTime()',
  );
  expect(await told([[1]])).toContain('is an array');
  expect(await told([2n ** 63n])).toContain('is the bigint 9223372036854775808');
  expect(await told('x')).toContain('an array, or an object by their names');
  // @ts-expect-error
  void db.query('select ?', [undefined]).catch(() => {});
  // @ts-expect-error
  void db.query('select ?', [new Date()]).catch(() => {});
});

test('who listens to releases is told of a newer one, now and later', async () => {
  const db = answeredBy({ type: 'done' }, { release: 'current' });
  const heard: string[] = [];
  db.on('release', (release) => heard.push(release));
  await turn();
  expect(heard).toEqual([]);
  const memo = { word: 0, copy: undefined, head: undefined };
  const tell = (release: Status['release']): void =>
    told.news({ type: 'status', status: { ...db.status, release }, memo });
  tell('newer-elsewhere');
  tell('newer-elsewhere');
  expect(heard).toEqual(['newer-elsewhere']);
  db.on('release', (release) => heard.push(`late ${release}`));
  await turn();
  expect(heard).toEqual(['newer-elsewhere', 'late newer-elsewhere']);
});

test('a document that another tab deletes everywhere is closed, and says so', async () => {
  const db = answeredBy({ type: 'done' }, { connection: 'online' });
  const live = db.live('select 1');
  const errors: unknown[] = [];
  live.subscribe((_rows, error) => errors.push(error));
  const stood: unknown[] = [];
  db.on('status', ({ connection, error }) => stood.push(connection, error));
  const online = { connection: 'online', error: null } as Status;
  told.news({ type: 'closeWanted' });
  told.news({ type: 'closeWanted' });
  await expect(db.query('select 1')).rejects.toThrow(DocumentClosedError);
  expect(errors).toEqual([expect.any(DocumentClosedError)]);
  // It has left the server, whatever its core says of the others that have it open.
  told.news({
    type: 'status',
    status: online,
    memo: { word: 0, copy: undefined, head: undefined },
  });
  const closed = ['offline', expect.any(DocumentClosedError)];
  expect(stood).toEqual([...closed, ...closed]);
  expect(db.status.connection).toBe('offline');
  await db.close();
});

test('who listens to rejections in one turn has them told once', async () => {
  const db = answeredBy({ type: 'done' });
  said = [];
  const stops = ['a', 'b', 'c'].map(() => db.on('rejected', () => {}));
  stops[2]!();
  await turn();
  expect(said).toEqual(['listenRejections']);
  db.on('rejected', () => {});
  await turn();
  expect(said).toHaveLength(2);
  db.on('rejected', () => {})();
  await turn();
  expect(said).toHaveLength(2);
});

test('a rejection that comes behind close() is left to the next open', async () => {
  const db = answeredBy({ type: 'done' });
  said = [];
  const rejected = vi.fn();
  db.on('rejected', (it) => {
    rejected(it);
    void db.close();
  });
  await turn();
  const id = new Uint8Array(16);
  const news = { type: 'rejection', id, mutation: 'add', args: {}, reason: 'no', lsn: 1 } as const;
  told.news(news);
  // The core knows this handle no more once it is told that this one was handled.
  told.news(news);
  expect(rejected).toHaveBeenCalledTimes(1);
  expect(said).toEqual(['listenRejections', 'rejectionHandled']);
  await db.close();
});

test('the names of mutations count up through each handle, and are those of no other', () => {
  asked = [];
  const handles = [answeredBy({ type: 'done' }), answeredBy({ type: 'done' })];
  for (const db of [...handles, ...handles]) void db.mutate.add({ b: new Uint8Array() });
  const [kin, counts] = [asked, asked].map((mutations, half) =>
    mutations.map(({ id }) => id.slice(8 * half, 8 * half + 8).join()),
  ) as [string[], string[]];
  expect([kin[2], kin[3]]).toEqual([kin[0], kin[1]]);
  expect(kin[0]).not.toBe(kin[1]);
  expect(counts).toEqual([1, 1, 2, 2].map((count) => `0,0,0,0,0,0,0,${count}`));
});

test('a verdict that comes first says where its mutation is on the disk', async () => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
  const entry: EntryId = { journal: new Uint8Array(16), life: new Uint8Array(16), lsn: 7 };
  const { mutate } = answeredBy({ type: 'confirmed', entry, lsn: 15 });
  const receipt = mutate.add({ b: new Uint8Array() });
  expect([await receipt, await receipt.confirmed]).toEqual([{ lsn: 7 }, { lsn: 15 }]);

  const error = new RejectedError('no');
  const rejecting = answeredBy({ type: 'rejected', entry, error });
  const refused = rejecting.mutate.add({ b: new Uint8Array() });
  expect(await refused).toEqual({ lsn: 7 });
  await expect(refused.confirmed).rejects.toThrow(error);
});

test('a document without an engine is not online', () => {
  const error = new EngineError('no engine');
  for (const [before, after] of [
    ['online', 'offline'],
    ['connecting', 'offline'],
    ['local', 'local'],
  ] as const) {
    const db = answeredBy({ type: 'done' }, { connection: before, pending: 3 });
    told.lost(error);
    expect(db.status).toMatchObject({ connection: after, pending: 3, error });
  }
});

test('what is wrong, and nobody listens for, is written to the console', async () => {
  const written = vi.spyOn(console, 'error').mockImplementation(() => {});
  const refused = new DoctypeMismatchError('it is of another doctype');
  const away = new ServerUnreachableError('it does not answer');
  const db = answeredBy({ type: 'done' });
  told.lost(away);
  expect(written).not.toHaveBeenCalled();
  told.lost(refused);
  told.lost(refused);
  expect(written.mock.calls).toEqual([['a document:', refused]]);
  const heard: unknown[] = [];
  db.on('error', (error) => heard.push(error));
  told.lost(new DoctypeMismatchError('again'));
  expect(written).toHaveBeenCalledTimes(1);
  expect(heard).toHaveLength(1);
  const later = () => new Promise((resolve) => setTimeout(resolve));
  answeredBy({ type: 'done' }, { error: refused }).on('error', (error) => heard.push(error));
  await later();
  expect(written).toHaveBeenCalledTimes(1);
  expect(heard).toHaveLength(2);
  answeredBy({ type: 'done' }, { error: refused });
  await later();
  expect(written).toHaveBeenCalledTimes(2);
});

test('an entry of another timeline is none of those that the status counts', async () => {
  const entry = (id: number, lsn: number): EntryId => {
    const journal = new Uint8Array(16).fill(id);
    return { journal, life: new Uint8Array(16), lsn };
  };
  const timeline = { start: 3, acked: 3, durable: 3, head: 3 };
  const status: Partial<Status> = { connection: 'online', pending: 0, timeline };
  const counted = { pending: 3, timeline: { ...timeline, durable: 6, head: 6 } };
  for (const [head, isCounted] of [
    [entry(1, 3), true],
    [entry(2, 3), false],
    [undefined, true],
  ] as const) {
    const answer: Answer = { type: 'durable', entry: entry(1, 5) };
    const db = answeredBy(answer, status, head);
    expect(await db.mutate.add({ b: new Uint8Array() })).toEqual({ lsn: 5 });
    expect(db.status).toMatchObject(isCounted ? counted : status);
    const memo = { word: 0, copy: undefined, head: entry(isCounted ? 2 : 1, 3) };
    told.news({ type: 'status', status: { ...db.status, ...status } as Status, memo });
    await db.mutate.add({ b: new Uint8Array() });
    expect(db.status).toMatchObject(isCounted ? status : counted);
  }
});
