import { expect, test } from 'vitest';
import { Reader } from '../src/codec.js';
import { doctype, EVENTS, flawOf } from '../src/doctype.js';
import {
  CommandFailedError,
  InvalidOptionError,
  KeyReusedError,
  MutationArgumentError,
  RejectedError,
  UnknownMutationError,
} from '../src/errors.js';
import {
  type CommandOptions,
  type CommandOutcome,
  command,
  type Send,
  stream,
} from '../src/events.js';
import { Core, SHOP, settled } from './shop.js';

type Sending = Send<typeof SHOP.streams & object>;

const code = () => SHOP.streams!.order[EVENTS]!;
const sendOf = (core: Core): Sending => code().send!(core.document) as Sending;

test('a command has its defaults, and a timeout in milliseconds', () => {
  expect(command({ items: 'json' })).toMatchObject({
    fields: { items: 'json' },
    received: [],
    failed: [],
    retries: 5,
    timeout: 30_000,
  });
  const timeouts = [0, 1, '0s', '30s', '5m', '2h', '1.5s'] as const;
  expect(timeouts.map((timeout) => command({}, { timeout }).timeout)).toEqual([
    0, 1, 0, 30_000, 300_000, 7_200_000, 1_500,
  ]);
  expect(command({}, { received: 'a', failed: ['b', 'c'], retries: 0 })).toMatchObject({
    received: ['a'],
    failed: ['b', 'c'],
    retries: 0,
  });
});

test('a time is as many milliseconds as its decimals say, whatever these are in binary', () => {
  for (let tenths = 1; tenths < 1_000; tenths += 1) {
    for (const [unit, tenth] of [
      ['s', 100],
      ['m', 6_000],
    ] as const) {
      const timeout = `${tenths / 10}${unit}` as const;
      expect(command({}, { timeout }).timeout, timeout).toBe(tenths * tenth);
    }
  }
});

test('what is no command is refused as it is defined', () => {
  const timeouts = [
    'soon',
    '3d',
    '-1s',
    '0.0001s',
    '0.0000009s',
    -1,
    0.5,
    2 ** 32,
    Number.NaN,
    '1193h1m',
    null,
  ];
  for (const timeout of timeouts) {
    expect(() => command({}, { timeout } as CommandOptions), `${timeout}`).toThrow(/^timeout of/);
  }
  for (const retries of [-1, 0.5, '5', 2 ** 32]) {
    expect(() => command({}, { retries } as CommandOptions)).toThrow(/^retries of/);
  }
  expect(() => command({ at: 'date' } as never)).toThrow(/types by name/);
  expect(() => command(undefined as never)).toThrow(/types by name/);
  expect(() => command({ scan: 'blob?' })).toThrow(/scan of a command cannot be a blob/);
  expect(() => command({}, { received: 7 } as never)).toThrow(/^received of/);
  expect(() => command({}, { failed: ['a', 7] } as never)).toThrow(/^failed of/);
  const odd = { place: { fields: {} } } as never;
  expect(() => stream({ events: {}, commands: odd })).toThrow(/command place that has to be what/);
});

test('a doctype says commands as the server reads them, and none where there are none', () => {
  const { streams } = JSON.parse(JSON.stringify(SHOP));
  expect(streams.order.commands.pay).toEqual({
    fields: {},
    received: [],
    failed: [],
    retries: 1,
    timeout: 30_000,
  });
  expect(streams.quiet).toEqual({ events: {} });
  expect(flawOf(SHOP)).toBe(undefined);
  const commands = { place: { ...command({}), retries: 'many' } };
  const order = { ...stream({ events: {} }), commands } as never;
  const kind = doctype({ name: 'a', migrations: [], mutations: {}, streams: { order } });
  expect(flawOf(kind)).toMatch(/^stream order of doctype a has a command place that/);
});

test('a command is a mutation with its stream, its arguments as JSON, and its key', () => {
  const core = new Core();
  const send = sendOf(core);
  const items = [{ name: 'tea "x"', count: 1 }];
  const receipt = send.order.place('o-7', { items, gift: true }, { key: 'k' });
  send.order.place('o-8', { items: null, gift: null });
  send.order.number('o-9', { count: 2n ** 60n, weight: 0.5 });
  send.order.pay('');
  expect(core.issued.map(({ name, args }) => [name, args])).toEqual([
    [
      'send:order.place',
      { stream: 'o-7', args: `{"items":[{"name":"tea \\"x\\"","count":1}],"gift":true}`, key: 'k' },
    ],
    [
      'send:order.place',
      { stream: 'o-8', args: '{"items":null}', key: '00000000-0000-4000-8000-000000000001' },
    ],
    [
      'send:order.number',
      {
        stream: 'o-9',
        args: `{"id":"00000000-0000-4000-8000-000000000002","count":${2n ** 60n},"weight":0.5}`,
        key: '00000000-0000-4000-8000-000000000003',
      },
    ],
    ['send:order.pay', { stream: '', args: '{}', key: '00000000-0000-4000-8000-000000000004' }],
  ]);
  expect([receipt.key, receipt.args]).toEqual(['k', { items, gift: true }]);
});

test('what cannot be sent is said at once, and nothing is issued', () => {
  const core = new Core();
  const { order, ...rest } = sendOf(core);
  expect(Object.keys(rest)).toEqual(['mail', 'quiet']);
  const wrong = (send: () => unknown, Class: new (text: string) => Error, text: RegExp): void => {
    expect(send).toThrow(Class);
    expect(send).toThrow(text);
  };
  const place = order.place as (...of: unknown[]) => unknown;
  wrong(() => place('o'), MutationArgumentError, /order.place: argument items is missing/);
  wrong(() => place('o', { items: 1, price: 2 }), MutationArgumentError, /no parameter price/);
  wrong(() => place('o', { items: 1, gift: 1 }), MutationArgumentError, /gift has to be true or/);
  wrong(() => place({ items: 1 }), MutationArgumentError, /which order comes first/);
  wrong(() => place('\ud800', { items: 1 }), MutationArgumentError, /which order comes first/);
  for (const key of ['', 7, 'ü'.repeat(129), '\ud800']) {
    wrong(() => place('o', { items: 1 }, { key }), InvalidOptionError, /1 to 256 bytes/);
  }
  place('o', { items: 1 }, { key: 'ü'.repeat(128) });
  expect(core.issued.splice(0)).toHaveLength(1);
  const any = sendOf(core) as never as Record<string, Record<string, () => void>>;
  wrong(() => any.order!.plaice!(), UnknownMutationError, /order of shop has no command plaice/);
  wrong(() => any.odrer, UnknownMutationError, /shop has no stream odrer: it has order,mail/);
  expect(any.then).toBe(undefined);
  expect(core.issued).toEqual([]);
});

test('a key that stands for another command has an error of its own', async () => {
  const core = new Core();
  const receipt = sendOf(core).order.pay('o-7', {}, { key: 'k' });
  const [{ issued }] = core.issued as [(typeof core.issued)[0]];
  const reason = 'key reused: pay of o-7 was sent by it before, with other arguments';
  const details = { mutation: 'send:order.pay', reason };
  issued.failed(new RejectedError(`it was rejected: ${reason}`, details), true);
  const error = await receipt.catch((it: unknown) => it);
  expect(error).toBeInstanceOf(KeyReusedError);
  expect(error).toBeInstanceOf(RejectedError);
  expect(error).toMatchObject({ code: 'key-reused', name: 'KeyReusedError', ...details });
  await expect(receipt.confirmed).rejects.toBe(error);
  await expect(receipt.completed).rejects.toBe(error);
  const other = sendOf(core).order.pay('o-7');
  const rejected = new RejectedError('no', { reason: 'the key was reused' });
  core.issued[1]!.issued.failed(rejected, true);
  await expect(other).rejects.toBe(rejected);
});

/** Its receipt is confirmed. */
function sent(core: Core) {
  const receipt = sendOf(core).order.place('o-7', { items: [] }, { key: 'k' });
  const { issued } = core.issued.at(-1)!;
  issued.durable({ lsn: 1 });
  return { receipt, issued };
}

const event = (sequence: number, data = '{}'): object => ({ sequence, type: 'paid', data });

test('a command has completed with its own events, once it was received', async () => {
  const core = new Core();
  const { receipt, issued } = sent(core);
  const { completed } = receipt;
  expect(receipt.completed).toBe(completed);
  await settled();
  expect(core.asked).toEqual([]);
  issued.confirmed({ lsn: 2 });
  const outcome = await core.next('outcome');
  const r = new Reader(outcome.message.request);
  expect(Array.from({ length: 4 }, () => r.text())).toEqual(['order', 'o-7', 'place', 'k']);
  outcome.answer({ number: 1, state: 'completed', reason: null, first: 4, last: 6 });
  const first = await core.next('events');
  expect(first.message).toMatchObject({ aggregate: 'order', stream: 'o-7', after: 3 });
  expect(first.message.waits).toBe(false);
  first.answer(event(4, '{"a":1}'), event(5));
  const second = await core.next('events');
  expect(second.message.after).toBe(5);
  second.answer(event(6), event(7));
  const { events } = await completed;
  expect(events.map(({ sequence, data }) => [sequence, data])).toEqual([
    [4, { a: 1 }],
    [5, {}],
    [6, {}],
  ]);
  expect(core.asked).toEqual([]);
});

test('a command may complete without events', async () => {
  const core = new Core();
  const { receipt, issued } = sent(core);
  issued.confirmed({ lsn: 2 });
  const { completed } = receipt;
  const row = { number: 1, state: 'completed', reason: null, first: null, last: null };
  (await core.next('outcome')).answer(row);
  expect(await completed).toEqual({ events: [] });
});

test('why a command has failed is said, and where nobody knows any more', async () => {
  const core = new Core();
  const { receipt, issued } = sent(core);
  issued.confirmed({ lsn: 2 });
  const { completed } = receipt;
  const row = { number: 1, state: 'failed', reason: 'sold out', first: null, last: null };
  (await core.next('outcome')).answer(row);
  const command = { aggregate: 'order', stream: 'o-7', name: 'place', key: 'k' };
  const error = await completed.catch((it: unknown) => it);
  expect(error).toBeInstanceOf(CommandFailedError);
  expect(error).toMatchObject({
    code: 'command-failed',
    outcome: 'none',
    reason: 'sold out',
    command,
    message: 'command place of order o-7 has failed: sold out',
  });
  const asked = [{ ...command }, 'o-7', 'place', 'k'].map(String);
  asked[0] = 'order';
  const outcome = code().outcome!(core.document, asked) as Promise<CommandOutcome>;
  (await core.next('outcome')).answer();
  await expect(outcome).rejects.toMatchObject({ code: 'command-failed', outcome: 'unknown' });
});

test('what becomes of a command can be asked for by its key, and given up', async () => {
  const core = new Core();
  const outcomeOf = (...of: unknown[]): Promise<CommandOutcome> =>
    code().outcome!(core.document, of) as Promise<CommandOutcome>;
  const given = new AbortController();
  const outcome = outcomeOf('order', 'o-7', 'place', 'k', { signal: given.signal });
  await core.next('outcome');
  given.abort(new Error('enough'));
  await expect(outcome).rejects.toThrow('enough');
  expect(() => outcomeOf('order', 'o-7', 'plaice', 'k')).toThrow(UnknownMutationError);
  expect(() => outcomeOf('quiet', 'o-7', 'place', 'k')).toThrow(UnknownMutationError);
  expect(() => outcomeOf('order', 'o-7', 'place', '')).toThrow(InvalidOptionError);
  expect(() => outcomeOf('order', 7, 'place', 'k')).toThrow(InvalidOptionError);
});

test('nobody has to listen to what became of a command', async () => {
  const unhandled: unknown[] = [];
  const listen = (reason: unknown): unknown => unhandled.push(reason);
  const before = process.listeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection');
  process.on('unhandledRejection', listen);
  const core = new Core();
  const { receipt, issued } = sent(core);
  void receipt.completed;
  issued.failed(new RejectedError('no'), true);
  await settled();
  process.removeAllListeners('unhandledRejection');
  for (const it of before) process.on('unhandledRejection', it);
  expect(unhandled).toEqual([]);
});
