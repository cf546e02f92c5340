import { describe, expect, test } from 'vitest';
import { UNSERVED_KINDS } from '../../worker/src/shared.js';
import { Reader, type Value, Writer } from '../src/codec.js';
import {
  completeRequest,
  type Decision,
  handleRequest,
  outcomeRequest,
  type Recorded,
  recordsRequest,
} from '../src/command-requests.js';
import { doctype, mutation } from '../src/doctype.js';
import { ERROR_CLASSES, RejectedError } from '../src/errors.js';
import { eventsRequest } from '../src/event-rows.js';
import { command, stream, workflow } from '../src/events.js';
import { type Answer, type News, readFromCore, type ToCore, writeToCore } from '../src/messages.js';
import { decodeRows } from '../src/rows.js';
import { CONNECTIONS, ROLES, STORAGES } from '../src/status.js';
import golden from './golden.json' with { type: 'json' };

const bytesOf = (hex: string): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.from(hex, 'hex'));
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

const values: Value[] = [null, -2, -(2n ** 63n), 1.5, 'grün 🌊', new Uint8Array([0, 255])];

const kinds = doctype({
  name: 'kinds',
  migrations: ['create table a (b)'],
  mutations: {
    none: mutation({}, 'delete from a'),
    all: mutation(
      { t: 'text', i: 'integer', r: 'real?', b: 'blob', o: 'boolean', j: 'json', u: 'uuid' },
      ['select :t', 'select :i'],
    ),
  },
  streams: {
    order: stream({
      events: { sent: {}, placed: { items: 'json', note: 'text?' } },
      upcast: { placed: [':data'] },
      project: { placed: 'select :items' },
      commands: {
        place: command(
          { items: 'json', gift: 'boolean?' },
          { received: 'select :items', failed: ['select :reason'], retries: 3, timeout: '1.5m' },
        ),
      },
    }),
  },
  workflows: { fulfil: workflow({ order: 'text' }, { version: 2 }) },
});

const entry = {
  journal: new Uint8Array(16).fill(5),
  life: new Uint8Array(16).fill(6),
  lsn: 14,
};

const copy = new Uint8Array(16).fill(4);

/** The messages of `crates/browser/tests/golden.rs`, in the same order. */
function messages(): readonly { [Kind in keyof ToCore]: [Kind, ToCore[Kind]] }[keyof ToCore][] {
  const [call, handle] = [7, 3];
  const sent = { aggregate: 'order', stream: 'o', name: 'place', key: 'k' };
  const ended = { instance: 2 ** 41, number: 2 ** 40, attempt: 2 };
  const sends = { ...sent, stream: 'p', args: '{}' };
  const run = { workflow: 'fulfil', id: 'f', args: '{}' };
  const decided = {
    events: [['placed', '{}']],
    sends: [sends],
    starts: [run],
    snapshot: { name: 'v2', state: '{}' },
  } as const;
  const decidedNothing = { events: [], sends: [], starts: [] };
  const failed = { reason: 'why', isFinal: true };
  const remembered: readonly Recorded[] = [
    { what: 'done', kind: 'step', result: '[1]' },
    { what: 'failed', kind: 'step', reason: 'why' },
    { what: 'begun' },
    { what: 'sleep', ms: 2 ** 40 },
    { what: 'waitFor', aggregate: 'order', stream: 'o', event: 'placed', timeout: 2 ** 40 },
    { what: 'send', ...sends },
    { what: 'start', ...run },
    { what: 'cancel' },
  ];
  const records = remembered.map((recorded, count) => ({ name: 'label', count, recorded }));
  const ofRuns: readonly Decision[] = [
    { records, suspends: true },
    { result: 'null' },
    { args: '{}' },
    { stopped: 'why' },
    { isCancelled: true },
  ];
  const complete = (decision: Decision): ['complete', ToCore['complete']] => [
    'complete',
    { call, handle, request: completeRequest(6, ended, 3, decision) },
  ];
  return [
    [
      'open',
      {
        call,
        handle,
        document: 'groceries',
        user: 'ada',
        server: 'ws://localhost:1',
        doctype: kinds,
        hasToken: true,
        word: 3,
      },
    ],
    [
      'mutate',
      {
        call,
        handle,
        id: new Uint8Array(16).fill(9),
        name: 'add',
        args: values.map((value) => ['a', value] as const),
        now: 1_700_000_000_123,
        again: undefined,
      },
    ],
    [
      'mutate',
      {
        call,
        handle,
        id: new Uint8Array(16).fill(8),
        name: 'none',
        args: [],
        now: 0,
        again: { durable: undefined, copy: undefined, since: [undefined, undefined] },
      },
    ],
    [
      'mutate',
      {
        call,
        handle,
        id: new Uint8Array(16).fill(8),
        name: 'none',
        args: [],
        now: 0,
        again: { durable: entry, copy, since: [entry, undefined] },
      },
    ],
    ['query', { call, handle, sql: 'select ?', params: values }],
    ['watch', { call, handle, sql: 'select :a', params: { named: [['a', 1]] } }],
    [
      'events',
      {
        call,
        handle,
        request: eventsRequest({
          aggregate: 'order',
          stream: 'o',
          types: ['sent'],
          after: 7,
          waits: true,
          consumer: { name: 'mail', begins: true },
        }),
      },
    ],
    [
      'events',
      {
        call,
        handle,
        request: eventsRequest({
          aggregate: undefined,
          stream: undefined,
          types: [],
          after: 0,
          waits: false,
          consumer: undefined,
        }),
      },
    ],
    ['giveUp', { call }],
    ['sync', { call, handle }],
    ['export', { call, handle }],
    ['close', { call, handle }],
    ['outcome', { call, handle, request: outcomeRequest(sent) }],
    ['handle', { call, handle, request: handleRequest('order', ['place'], 16) }],
    ...[decided, decidedNothing, failed, ...ofRuns].map(complete),
    ['records', { call, handle, request: recordsRequest(2 ** 40, 2, 2 ** 41) }],
    ['destroy', { call, document: 'd', user: '', force: true, everywhere: false }],
    ['destroy', { call, document: undefined, user: 'ada', force: false, everywhere: true }],
    ['setConnected', { handle, word: 3 }],
    ['listenRejections', { handle }],
    ['rejectionHandled', { handle, id: new Uint8Array(16).fill(9) }],
    ['token', { question: 2 ** 40, token: null }],
    ['token', { question: 5, token: 't' }],
    ['device', { persisted: true, usage: 2 ** 33, quota: 2 ** 34 }],
    ['nudge', {}],
    ['heard', { lists: 16 }],
    ['presence', { handle, state: null }],
    ['presence', { handle, state: '{}' }],
  ];
}

test('what a tab asks is written as Rust reads it', () => {
  const writer = new Writer();
  writer.list(messages(), ([kind, message]) => writeToCore(writer, kind, message as never));
  expect(hexOf(writer.take())).toBe(golden.toCore);
});

test('what the core tells is read as Rust wrote it', () => {
  const answers: Answer[] = [];
  const news: News[] = [];
  readFromCore(new Reader(bytesOf(golden.fromCore)), {
    answer(call, answer) {
      expect(call).toBe(7);
      answers.push(answer);
    },
    news(handle, one) {
      expect(handle).toBe(3);
      news.push(one);
    },
  });
  const status = {
    connection: 'offline',
    away: true,
    error: null,
    pending: 3,
    confirmedLsn: 2 ** 40,
    storage: 'waiting',
    settling: true,
    persisted: false,
    usage: 5,
    quota: 6,
    engine: 'shared-worker',
    timeline: { start: 1, acked: 2, durable: 3, head: 4 },
    journal: { durable: 7, visible: 8 },
    synced: true,
    release: 'newer-elsewhere',
    access: 'write',
  };
  const error = new RejectedError('no', { outcome: 'unknown', mutation: 'add', reason: 'no' });
  expect(answers.map((answer) => answer.type)).toEqual([
    'opened',
    'failed',
    'durable',
    'confirmed',
    'rejected',
    'rows',
    'exported',
    'done',
    'handingOver',
  ]);
  const memo = { word: 3, copy, head: entry };
  expect(answers[0]).toEqual({ type: 'opened', status, memo });
  expect(answers[1]).toEqual({ type: 'failed', error });
  expect(answers[1]).toMatchObject({
    error: { outcome: 'unknown', mutation: 'add', reason: 'no' },
  });
  expect(answers[2]).toEqual({ type: 'durable', entry });
  expect(answers[3]).toEqual({ type: 'confirmed', entry, lsn: 15 });
  expect(answers[4]).toEqual({ type: 'rejected', entry, error });
  expect(answers[6]).toEqual({ type: 'exported', file: new Uint8Array([83, 81]) });
  const rows = answers[5];
  expect(rows?.type === 'rows' && decodeRows(rows.rows)).toEqual([
    { a: null, ü: 2n ** 53n },
    { a: -0.5, ü: 'grün, and rather long' },
    { a: new Uint8Array([1, 2]), ü: -1 },
  ]);
  expect(news).toEqual([
    {
      type: 'status',
      status: { ...status, error },
      memo: { word: 0, copy: undefined, head: undefined },
    },
    {
      type: 'rejection',
      id: new Uint8Array(16).fill(9),
      mutation: 'add',
      args: { a: 'b' },
      reason: 'why',
      lsn: 16,
    },
    { type: 'tokenWanted', question: 2 ** 40 },
    { type: 'closeWanted' },
    { type: 'presence', count: 1, keys: null, others: [] },
    {
      type: 'presence',
      count: 4,
      keys: [5, 6, 7],
      others: [
        { key: 5, who: { user: 'ada', client: '03'.repeat(16) }, state: '{}' },
        { key: 6, who: { user: null, client: '03'.repeat(16) }, state: '{}' },
        { key: 7, who: null, state: '{}' },
      ],
    },
  ]);
});

test('what counts is in the same order in Rust', () => {
  const names = (kinds: readonly string[]) => kinds.map((kind) => kind.replaceAll('-', ''));
  const inRust = (kinds: string) => kinds.toLowerCase().split(' ');
  const classes = golden.errorCodes.split(' ').map((code) => `${code}Error`);
  expect(ERROR_CLASSES.map((Class) => Class.name)).toEqual(classes);
  expect(names(CONNECTIONS)).toEqual(inRust(golden.connections));
  expect(names(STORAGES)).toEqual(inRust(golden.storages));
  expect(names(ROLES)).toEqual(inRust(golden.roles));
  expect(names(UNSERVED_KINDS)).toEqual(inRust(golden.unservedKinds));
});

describe('values', () => {
  const back = (value: Value): Value => {
    const writer = new Writer();
    writer.value(value);
    return new Reader(writer.take()).value();
  };
  const same: Value[] = [
    ...values,
    0,
    -1,
    2 ** 31,
    -(2 ** 31) - 1,
    Number.MAX_SAFE_INTEGER,
    Number.MIN_SAFE_INTEGER,
    2n ** 53n,
    2n ** 63n - 1n,
    1e300,
    Number.POSITIVE_INFINITY,
    '',
    'x'.repeat(47),
    'x'.repeat(5000),
    `${'x'.repeat(40)}é`,
    '\u0000\u007f\u0080\uffff',
    '🌊'.repeat(600),
    // W9: a leading byte order mark is text like any other.
    '\ufeffa',
  ];
  test.each(same.map((value) => [value]))('come back as they went: %s', (value) => {
    expect(back(value)).toEqual(value);
  });

  test('a bigint that is a safe integer comes back as a number', () => {
    expect(back(-5n)).toBe(-5);
  });
});
