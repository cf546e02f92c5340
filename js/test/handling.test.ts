import { expect, test } from 'vitest';
import { ref } from 'vue';
import { Reader } from '../src/codec.js';
import { EVENTS } from '../src/doctype.js';
import {
  AccessError,
  ArchivedError,
  DocumentClosedError,
  EngineError,
  UnknownEventError,
} from '../src/errors.js';
import type { CommandContext, HandleOptions, Handling } from '../src/events.js';
import { type Asked, Core, SHOP, settled } from './shop.js';

type Handler = (ctx: CommandContext, args: Record<string, unknown>) => unknown;

interface Given {
  initial?: unknown;
  evolve?: Record<string, unknown>;
  erased?: unknown;
  snapshot?: unknown;
  commands?: Record<string, unknown>;
}

function handle(core: Core, handlers: Given, options?: HandleOptions): Handling {
  const given = ['order', { initial: 0, ...handlers }, options];
  return SHOP.streams!.order[EVENTS]!.handle!(core.document, given) as Handling;
}

/** A handler of one command alone. */
const handlePlace = (core: Core, place: Handler, options?: HandleOptions): Handling =>
  handle(core, { evolve: COUNT, commands: { place } }, options);

/** The state is how many events there were. */
const counted = (state: unknown): unknown => (state as number) + 1;
const addOne = (state: unknown): unknown => {
  (state as [number])[0] += 1;
  return state;
};
const COUNT = { placed: counted, paid: counted, noted: counted };

/** A row of what is given. */
const row = (of: object = {}): object => ({
  number: 1,
  aggregate: 'order',
  stream: 'o-7',
  name: 'place',
  args: '{"items":[1],"gift":true}',
  key: 'k',
  time: 9,
  user: 'ada',
  client: 'c',
  attempt: 1,
  position: 0,
  instance: 7,
  ...of,
});

const event = (position: number, of: object = {}): object => ({
  sequence: 10 * position,
  aggregate: 'order',
  stream: 'o-7',
  position,
  type: 'noted',
  version: 1,
  data: `{"text":"${position}"}`,
  time: position,
  user: '',
  client: 'c',
  cause: 'mutation:note',
  erased: 0,
  ...of,
});

/** What a completion says. */
function said({ message }: Asked): object {
  const r = new Reader(message.request);
  const [handling, instance, number] = [r.u32(), r.u64(), r.u64()];
  const which = { handling, instance, number, attempt: r.u64(), position: r.u64() };
  const outcome = r.u32();
  if (outcome === 1) return { ...which, reason: r.text(), isFinal: r.flag() };
  if (outcome === 5) return { ...which, stopped: r.text() };
  const texts = (count: number) => () => Array.from({ length: count }, () => r.text());
  const [events, sends] = [r.list(texts(2)), r.list(texts(5))];
  r.list(texts(3));
  const snapshot = r.option(() => [r.text(), r.text()]);
  return { ...which, events, sends, ...(snapshot && { snapshot }) };
}

const DONE = { answer: 'done' };

test('what is handled is said, and an attempt that is given completes once', async () => {
  const core = new Core();
  const seen: unknown[] = [];
  handlePlace(core, ({ state, stream, command, now }, args) => {
    seen.push(state, stream, command, now, args);
    return [{ type: 'placed', data: { items: args.items } }, { type: 'paid' }];
  });
  const [{ kind, message }] = core.calls as [(typeof core.calls)[0]];
  expect([kind, (message as { handle: number }).handle]).toEqual(['handle', 3]);
  const { request } = message as { request: Uint8Array };
  expect(request.at(-4)).toBe(16);
  core.give(row());
  core.give(row());
  const completion = await core.next('complete');
  expect(said(completion)).toEqual({
    handling: 1,
    instance: 7,
    number: 1,
    attempt: 1,
    position: 0,
    events: [
      ['placed', '{"items":[1]}'],
      ['paid', '{}'],
    ],
    sends: [],
  });
  const { args, position, instance, ...command } = row() as Record<string, unknown>;
  expect(seen).toEqual([0, 'o-7', command, 5, { items: [1], gift: true }]);
  completion.answer(DONE);
  await settled();
  core.give(row());
  core.give();
  core.give(row());
  await settled();
  expect(core.asked).toEqual([]);
  core.give(row({ number: 2 }));
  expect(said(await core.next('complete'))).toMatchObject({ number: 2, attempt: 1 });
});

test('Vue leaves what handles as it is', async () => {
  const handling = handlePlace(new Core(), () => []);
  expect(ref(handling).value).toBe(handling);
});

test('a command whose events the archive does not give waits, and has not failed', async () => {
  const core = new Core();
  const told: unknown[] = [];
  const states: unknown[] = [];
  const place: Handler = ({ state }) => void states.push(state);
  handlePlace(core, place, { onError: (error) => void told.push(error) });
  core.give(row({ position: 2 }));
  const failure = new ArchivedError('the server is not reached');
  for (let times = 0; times < 3; times += 1) {
    (await core.next('events')).fail(failure);
    await settled();
    const [[waits, wake]] = core.later.splice(0) as [(typeof core.later)[0]];
    expect([waits, core.asked]).toEqual([1_000, []]);
    wake();
  }
  (await core.next('events')).answer(event(1), event(2));
  expect(said(await core.next('complete'))).toMatchObject({ number: 1, position: 2, events: [] });
  expect([told, states]).toEqual([[failure], [2]]);
  // What counts no longer waits for nothing.
  core.give(row({ number: 2, stream: 'o-8', position: 2 }));
  (await core.next('events')).fail(failure);
  await settled();
  core.give();
  await settled();
  expect(core.asked).toEqual([]);
});

test('what was folded before the archive failed is not folded again', async () => {
  const core = new Core();
  const states: unknown[] = [];
  const place: Handler = ({ state }) => void states.push(state);
  const handling = handlePlace(core, place, { onError() {} });
  core.give(row({ position: 3 }));
  (await core.next('events')).answer(event(1), event(2));
  (await core.next('events')).fail(new ArchivedError('the server is not reached'));
  await settled();
  // The attempt has taken too long: the next one goes on behind the second event.
  core.give();
  await settled();
  core.give(row({ attempt: 2, position: 3 }));
  (await core.next('events')).answer(event(2), event(3));
  await core.next('complete');
  expect(states).toEqual([3]);

  // Who closes waits for no archive.
  core.give(row({ number: 2, stream: 'o-8', position: 1 }));
  (await core.next('events')).fail(new ArchivedError('the server is not reached'));
  const closed = handling.close();
  await settled();
  for (const [, wake] of core.later.splice(0)) wake();
  await closed;
  expect(core.asked).toEqual([]);
});

test('an attempt that nobody can be told of is tried again, later each time', async () => {
  const core = new Core();
  const told: unknown[] = [];
  const onError = (error: unknown): void => void told.push(error);
  handlePlace(core, () => [{ type: 'paid' }], { onError });
  core.give(row());
  const failure = new EngineError('it cannot be told');
  for (const ms of [1_000, 2_000, 4_000]) {
    (await core.next('complete')).fail(failure);
    await settled();
    const [[waits, wake]] = core.later.splice(0) as [(typeof core.later)[0]];
    expect(waits).toBe(ms);
    wake();
  }
  expect(told).toEqual([failure, failure, failure]);
  (await core.next('complete')).answer(DONE);
  await settled();
  expect(core.later).toEqual([]);
});

test('an attempt of the same number is another one where a server was restored', async () => {
  const core = new Core();
  handlePlace(core, () => []);
  core.give(row({ instance: 7 }));
  const first = await core.next('complete');
  expect(said(first)).toMatchObject({ number: 1, attempt: 1, instance: 7 });
  first.answer(DONE);
  await settled();
  core.give(row({ instance: 7 }));
  await settled();
  expect(core.asked).toEqual([]);
  core.give();
  core.give(row({ instance: 9 }));
  const second = said(await core.next('complete'));
  expect(second).toMatchObject({ number: 1, attempt: 1, instance: 9 });
});

test('who closes waits for no attempt that nobody can be told of', async () => {
  const core = new Core();
  const handling = handlePlace(core, () => [], { onError: () => {} });
  core.give(row());
  const completion = await core.next('complete');
  const closed = handling.close();
  completion.fail(new EngineError('it cannot be told'));
  await closed;
  expect(core.later).toEqual([]);
});

test('who closes waits for no attempt that was taken away, if its code never ends', async () => {
  const core = new Core();
  const handling = handlePlace(core, () => new Promise(() => {}));
  core.give(row());
  await settled();
  const closed = handling.close();
  core.give();
  await closed;
  expect(core.givenUp).toEqual([1]);
});

test('an attempt that was taken away as it waited to be tried again is over', async () => {
  const core = new Core();
  let runs = 0;
  const place = (): void => {
    runs += 1;
  };
  handlePlace(core, place, { onError: () => {} });
  core.give(row());
  (await core.next('complete')).fail(new EngineError('it cannot be told'));
  await settled();
  core.give();
  await settled();
  expect([runs, core.asked]).toEqual([1, []]);
});

test('what the device lacks is no failure of a command', async () => {
  const core = new Core();
  const errors: unknown[] = [];
  const onError = (error: unknown): unknown => errors.push(error);
  const commands = { place: () => [] };
  handle(core, { initial: 0, snapshot: 'v1', commands }, { onError });
  core.give(row({ position: 3 }));
  const short = new EngineError('not enough memory');
  (await core.next('query')).fail(short);
  await settled();
  expect([errors, core.asked.length, core.later.length]).toEqual([[short], 0, 1]);
  core.later[0]![1]();
  await core.next('query');
});

test('the state is folded from events, from where it was last', async () => {
  const core = new Core();
  const states: unknown[] = [];
  const evolve = { noted: (state: string, { data }: { data: object }) => state + text(data) };
  const text = (data: object): string => (data as { text: string }).text;
  const place = ({ state }: CommandContext): void => void states.push(state);
  handle(core, { initial: '', evolve, commands: { place } });
  core.give(row({ position: 3 }));
  const first = await core.next('events');
  expect(first.message).toMatchObject({ stream: 'o-7', after: 0, waits: true, types: [] });
  first.answer(event(1), event(2));
  const second = await core.next('events');
  expect(second.message).toMatchObject({ after: 20, waits: true });
  second.answer(event(3), event(4, { type: 'paid' }));
  const completion = await core.next('complete');
  expect(said(completion)).toMatchObject({ position: 4, events: [] });
  completion.answer(DONE);
  await settled();

  core.give(row({ number: 2, position: 4 }));
  const last = await core.next('events');
  expect(last.message).toMatchObject({ after: 39, waits: false });
  last.answer(event(4, { type: 'paid' }), event(5));
  const again = await core.next('complete');
  expect(said(again)).toMatchObject({ number: 2, position: 5 });
  again.answer(DONE);
  expect(states).toEqual(['123', '1235']);
});

test('what evolves by data is not asked for events whose data were erased', async () => {
  const noted = (state: string, { data }: { data: { text: string } }): string =>
    state + data.text.slice(0, 1);
  const erased = (state: string, event: { type: string; data: object; erased: boolean }): string =>
    `${state}(${event.type} ${JSON.stringify(event.data)} ${event.erased})`;
  for (const [handlers, expected] of [
    [{}, '13'],
    [{ erased }, '1(noted {} true)3'],
  ] as const) {
    const core = new Core();
    const states: unknown[] = [];
    const place = ({ state }: CommandContext): void => void states.push(state);
    handle(core, { initial: '', evolve: { noted }, commands: { place }, ...handlers });
    core.give(row({ position: 3 }));
    const rest = event(2, { data: '{}', erased: 1, user: '', client: '' });
    (await core.next('events')).answer(event(1), rest, event(3));
    (await core.next('complete')).answer(DONE);
    await settled();
    expect(states).toEqual([expected]);
  }
});

test('a state of which the last event was erased is folded anew', async () => {
  const core = new Core();
  const states: unknown[] = [];
  handlePlace(core, ({ state }) => void states.push(state));
  core.give(row({ position: 1 }));
  (await core.next('events')).answer(event(1));
  (await core.next('complete')).answer(DONE);
  await settled();
  core.give(row({ number: 2, position: 1 }));
  const gone = event(1, { data: '{}', erased: 1, client: '' });
  (await core.next('events')).answer(gone);
  const anew = await core.next('events');
  expect(anew.message).toMatchObject({ after: 0, waits: true });
  anew.answer(gone);
  (await core.next('complete')).answer(DONE);
  await settled();
  expect(states).toEqual([1, 0]);
});

test('a state of events that others have taken the places of is folded anew', async () => {
  for (const other of [[event(2, { time: 99 })], [event(3)], []]) {
    const core = new Core();
    const states: unknown[] = [];
    handlePlace(core, ({ state }) => void states.push(state));
    core.give(row({ position: 2 }));
    (await core.next('events')).answer(event(1), event(2));
    (await core.next('complete')).answer(DONE);
    await settled();
    core.give(row({ number: 2, position: 1 }));
    (await core.next('events')).answer(...other);
    const anew = await core.next('events');
    expect(anew.message).toMatchObject({ after: 0, waits: true });
    anew.answer(event(1));
    expect(said(await core.next('complete'))).toMatchObject({ position: 1 });
    expect(states).toEqual([2, 1]);
  }
});

test('a stream has a state of its own, also where events change it in place', async () => {
  const core = new Core();
  const states: string[] = [];
  const noted = (state: number[], { position }: { position: number }): number[] => {
    state.push(position);
    return state;
  };
  const place = ({ state }: CommandContext): void => void states.push(`${state}`);
  handle(core, { initial: [], evolve: { noted }, commands: { place } });
  for (const [number, stream] of ['o-7', 'o-8'].entries()) {
    core.give(row({ number, stream, position: 2 }));
    (await core.next('events')).answer(event(1), event(2));
    (await core.next('complete')).answer(DONE);
    await settled();
  }
  expect(states).toEqual(['1,2', '1,2']);
  const made = new Core();
  class Order {
    count = 0;
  }
  const initial = (): Order => new Order();
  const seen: unknown[] = [];
  handle(made, {
    initial,
    commands: { place: (ctx: CommandContext) => void seen.push(ctx.state) },
  });
  made.give(row(), row({ number: 2, stream: 'o-8' }));
  await settled();
  expect(seen).toEqual([new Order(), new Order()]);
  expect(seen[0]).not.toBe(seen[1]);
  expect(() => handle(new Core(), { initial: { f() {} }, commands: { place() {} } })).toThrow(
    /^initial cannot be copied/,
  );
});

/** A stream's first events. */
const events = (count: number, from = 1): object[] =>
  Array.from({ length: count }, (_, at) => event(from + at));

test('a state is kept in the document every thousand events, once it was', async () => {
  const core = new Core();
  const commands = { place: () => [{ type: 'paid' }] };
  handle(core, { initial: () => [0], evolve: { noted: addOne }, snapshot: 'v3', commands });
  const complete = async (number: number, position: number, read: object[], answer: object) => {
    core.give(row({ number, position }));
    // None is there.
    if (number === 1) (await core.next('query')).answer();
    (await core.next('events')).answer(...read);
    const asked = await core.next('complete');
    asked.answer(answer);
    await settled();
    return (said(asked) as { snapshot?: [number, string] }).snapshot;
  };
  expect(await complete(1, 999, events(999), DONE)).toBeUndefined();
  expect(await complete(2, 1_000, events(2, 999), { answer: 'late' })).toEqual(['v3', '[1000]']);
  expect(await complete(3, 1_001, events(2, 1_000), DONE)).toEqual(['v3', '[1001]']);
  expect(await complete(4, 2_000, events(1_000, 1_001), DONE)).toBeUndefined();
  expect(await complete(5, 2_001, events(2, 2_000), DONE)).toEqual(['v3', '[2001]']);
});

test('a stream is folded from the state that the document has kept', async () => {
  const core = new Core();
  const states: unknown[] = [];
  const commands = {
    place: ({ state }: CommandContext) => void states.push(structuredClone(state)),
  };
  handle(core, { initial: () => [0], evolve: { noted: addOne }, snapshot: 'v3', commands });
  core.give(row({ position: 1_002 }));
  const asked = await core.next('query');
  expect(asked.message).toMatchObject({ params: ['order', 'o-7', 'v3'] });
  asked.answer({ state: '[1000]', position: 1_000, sequence: 10_000 });
  const read = await core.next('events');
  expect(read.message).toMatchObject({ after: 10_000, waits: true });
  read.answer(...events(2, 1_001));
  (await core.next('complete')).answer(DONE);
  await settled();
  expect(states).toEqual([[1_002]]);
  // From there on by what is known here.
  core.give(row({ number: 2, position: 1_003 }));
  const more = await core.next('events');
  expect(more.message).toMatchObject({ after: 10_019, waits: false });
  more.answer(...events(2, 1_002));
  await core.next('complete');
  expect(states).toEqual([[1_002], [1_003]]);
});

test('a state that no document keeps fails no command, and is told of once', async () => {
  const errors: unknown[] = [];
  const onError = (error: unknown): void => void errors.push(`${error}`);
  const ofStates = async (state: unknown): Promise<void> => {
    const core = new Core();
    const given = { initial: () => state, snapshot: 'v1', commands: { place: () => {} } };
    handle(core, given, { onError });
    for (const number of [1, 2]) {
      core.give(row({ number, position: 999 + number }));
      if (number === 1) (await core.next('query')).answer();
      const read = await core.next('events');
      read.answer(...(number === 1 ? events(1_000) : events(2, 1_000)));
      const asked = await core.next('complete');
      expect(said(asked)).toMatchObject({ events: [] });
      expect(said(asked)).not.toHaveProperty('snapshot');
      asked.answer(DONE);
      await settled();
    }
  };
  await ofStates('x'.repeat(256 * 1024));
  await ofStates(undefined);
  await ofStates({ count: 1n });
  const of = 'TypeError: a state';
  expect(errors).toEqual([
    `${of} of 262146 bytes is not kept: 262144 are, at most`,
    `${of} is kept as JSON, and state would not come back`,
    `${of} is kept as JSON, and state.count would not come back`,
  ]);
});

test('a state that is another one as JSON is not kept, and is told of', async () => {
  const errors: unknown[] = [];
  const deep: unknown[] = [];
  deep.push(deep);
  const odd: [unknown, string][] = [
    [new Map([['a', 1]]), 'state'],
    [new (class Cart {})(), 'state'],
    [{ at: new Date(0) }, 'state.at'],
    [{ at: [0, Number.NaN] }, 'state.at[1]'],
    [[undefined], 'state[0]'],
    [-0, 'state'],
    [() => 1, 'state'],
    [deep, `state${'[0]'.repeat(500)}`],
  ];
  const keptOf = async (state: unknown): Promise<unknown> => {
    const core = new Core();
    const given = { initial: () => state, snapshot: 'v1', commands: { place: () => {} } };
    handle(core, given, { onError: (error) => void errors.push(`${error}`) });
    core.give(row({ position: 1_000 }));
    (await core.next('query')).answer();
    (await core.next('events')).answer(...events(1_000));
    return (said(await core.next('complete')) as { snapshot?: unknown }).snapshot;
  };
  for (const [state] of odd) expect(await keptOf(state)).toBeUndefined();
  expect(errors).toEqual(
    odd.map(([, place]) => `TypeError: a state is kept as JSON, and ${place} would not come back`),
  );
  const whole = { a: [1.5, null, 'ü', true, { b: [] }], c: undefined };
  expect(await keptOf(whole)).toEqual(['v1', '{"a":[1.5,null,"ü",true,{"b":[]}]}']);
});

test('an event whose time no number holds is folded as any other', async () => {
  const core = new Core();
  handlePlace(core, () => [{ type: 'paid' }]);
  core.give(row({ position: 1 }));
  // Nanoseconds, as another system counts them.
  (await core.next('events')).answer(event(1, { time: 1_764_359_727_000_000_001n }));
  expect(said(await core.next('complete'))).toMatchObject({ events: [['paid', '{}']] });
});

test('what is stale is decided anew, by the events that came meanwhile', async () => {
  const core = new Core();
  const states: unknown[] = [];
  handlePlace(core, ({ state, send }) => {
    states.push(state);
    (send as never as { order: { pay(stream: string): void } }).order.pay('o-9');
  });
  core.give(row());
  (await core.next('complete')).answer({ answer: 'stale' });
  const more = await core.next('events');
  expect(more.message).toMatchObject({ after: 0, waits: true });
  more.answer(event(1));
  const completion = await core.next('complete');
  const sends = [['order', 'o-9', 'pay', '{}', '1:0']];
  expect(said(completion)).toMatchObject({ number: 1, attempt: 1, position: 1, sends });
  completion.answer({ answer: 'late' });
  await settled();
  expect([states, core.asked]).toEqual([[0, 1], []]);
});

test('an attempt that counts no longer is aborted, and says nothing', async () => {
  const core = new Core();
  const signals: AbortSignal[] = [];
  const ends: (() => void)[] = [];
  handlePlace(
    core,
    async ({ signal }) => {
      signals.push(signal);
      await new Promise<void>((resolve) => ends.push(resolve));
      if (signal.aborted && signals.indexOf(signal) === 0) return;
      throw new Error('whatever');
    },
    { onError() {} },
  );
  core.give(row(), row({ number: 2, stream: 'o-8' }));
  await settled();
  core.give(row({ attempt: 2 }));
  await settled();
  expect(signals.map(({ aborted }) => aborted)).toEqual([true, true, false]);
  for (const end of ends) end();
  const completion = await core.next('complete');
  expect(said(completion)).toMatchObject({ number: 1, attempt: 2, reason: 'Error: whatever' });
  core.give();
  expect(completion.signal!.aborted).toBe(true);
  await settled();
  expect(core.asked).toEqual([]);
});

test('an attempt that was taken away and is given once more runs once more', async () => {
  const core = new Core();
  let runs = 0;
  handlePlace(core, () => {
    runs += 1;
    return new Promise(() => {});
  });
  for (const rows of [[row()], [], [row()]]) {
    core.give(...rows);
    await settled();
  }
  expect(runs).toBe(2);
});

test('a throw is an attempt that has failed, and fail() is the end', async () => {
  const core = new Core();
  const told: unknown[] = [];
  const boom = new TypeError('boom');
  const odd = Object.create(null);
  const ways: Handler[] = [
    () => {
      throw boom;
    },
    async ({ fail }) => fail('sold out'),
    () => Promise.reject(odd),
  ];
  handlePlace(core, (ctx, args) => ways[ctx.command.number]!(ctx, args), {
    onError: (error, command) => {
      told.push([error, command?.number]);
      throw new Error('of the app');
    },
  });
  const reported: unknown[] = [];
  globalThis.reportError = (error) => reported.push(error);
  const ends: object[] = [];
  for (const number of ways.keys()) {
    core.give(row({ number }));
    ends.push(said(await core.next('complete')));
  }
  expect(ends).toMatchObject([
    { reason: 'TypeError: boom', isFinal: false },
    { reason: 'sold out', isFinal: true },
    { reason: 'something without a text was thrown', isFinal: false },
  ]);
  expect(told).toEqual([
    [boom, 0],
    [odd, 2],
  ]);
  expect(reported).toHaveLength(2);
});

test('an event of no type that there is fails its command, and says which there are', async () => {
  const core = new Core();
  const told: unknown[] = [];
  const given: unknown[] = [[{ type: 'plcaed' }], [{ type: 'toString' }], [null]];
  const onError = (error: unknown): void => void told.push(error);
  handlePlace(core, ({ command }) => given[command.number], { onError });
  for (const [number, type] of ['plcaed', 'toString', 'undefined'].entries()) {
    core.give(row({ number }));
    const { reason, isFinal } = said(await core.next('complete')) as Record<string, unknown>;
    expect(isFinal).toBe(true);
    expect(reason).toMatch(`UnknownEventError: order has no event ${type}: it has placed, paid`);
    expect(told[number]).toBeInstanceOf(UnknownEventError);
  }
});

test('an event that the stream does not take is no decision', async () => {
  const core = new Core();
  const given: unknown[] = [
    [{ type: 'placed', data: {} }],
    [{ type: 'placed', data: { items: 1, gift: 'yes' } }],
    [{ type: 'placed', data: { items: 1, price: 2 } }],
    { type: 'paid' },
    Array.from({ length: 1_025 }, () => ({ type: 'paid' })),
  ];
  handlePlace(core, ({ command }) => given[command.number], { onError() {} });
  for (const number of given.keys()) {
    core.give(row({ number }));
    expect(said(await core.next('complete'))).toMatchObject({ isFinal: false, position: 0 });
  }
  core.give(row({ number: 99 }));
  expect(said(await core.next('complete'))).toMatchObject({ events: [] });
});

test('what a handler sends goes with its completion, by keys that each attempt has', async () => {
  const core = new Core();
  let late: (() => void) | undefined;
  handlePlace(
    core,
    ({ send, command }) => {
      const { order, mail } = send as never as Record<string, Record<string, CallableFunction>>;
      order!.pay!('o-7');
      mail!.send!('ada', { text: 'hi' }, { key: 'mine' });
      mail!.send!('bob', { text: '' });
      late = () => order!.pay!('o-7');
      if (command.number === 2) for (let at = 0; at < 1_022; at += 1) order!.pay!('o-7');
    },
    { onError() {} },
  );
  const sends = [
    ['order', 'o-7', 'pay', '{}', '1:0'],
    ['mail', 'ada', 'send', '{"text":"hi"}', 'mine'],
    ['mail', 'bob', 'send', '{"text":""}', '1:2'],
  ];
  for (const attempt of [1, 2]) {
    core.give(row({ attempt }));
    expect(said(await core.next('complete'))).toMatchObject({ attempt, sends });
  }
  expect(late).toThrow('before its handler ends');
  expect(core.issued).toEqual([]);
  core.give(row({ number: 2 }));
  expect(said(await core.next('complete'))).toMatchObject({ isFinal: false });
});

test('a command is left to others where a newer release has recorded events', async () => {
  for (const newer of [event(1, { type: 'paid', version: 3 }), event(1, { type: 'returned' })]) {
    const core = new Core();
    const errors: unknown[] = [];
    handlePlace(core, () => {}, { onError: (error) => errors.push(`${error}`) });
    core.give(row({ position: 1 }));
    (await core.next('events')).answer(newer);
    const completion = said(await core.next('complete'));
    expect(completion).toMatchObject({ stopped: errors[0] });
    expect(errors[0]).toMatch(/this release knows no event (paid of version 3|returned)/);
  }
});

test('who closes waits for what is at work, begins no more, and gives up', async () => {
  const core = new Core();
  let end: (() => void) | undefined;
  let runs = 0;
  const handling = handlePlace(core, () => {
    runs += 1;
    return new Promise<void>((resolve) => {
      end = resolve;
    });
  });
  core.give(row());
  await settled();
  let isClosed = false;
  const closed = handling.close().then(() => {
    isClosed = true;
  });
  core.give(row(), row({ number: 2, stream: 'o-8' }));
  await settled();
  expect([isClosed, runs, core.givenUp]).toEqual([false, 1, []]);
  end!();
  (await core.next('complete')).answer(DONE);
  await closed;
  expect([core.givenUp, core.ending.size]).toEqual([[1], 0]);
  core.give(row({ number: 3 }));
  await handling[Symbol.asyncDispose]();
  expect([runs, core.givenUp]).toEqual([1, [1]]);
});

test('a signal, and the end of the document, leave all to others at once', async () => {
  const controller = new AbortController();
  const leave: ((core: Core) => void)[] = [
    () => controller.abort(),
    ({ ending }) => {
      for (const it of ending) it.endWith(new DocumentClosedError('closed'));
    },
  ];
  for (const [index, go] of leave.entries()) {
    const core = new Core();
    const signals: AbortSignal[] = [];
    const options = index === 0 ? { signal: controller.signal } : {};
    const handling = handlePlace(
      core,
      ({ signal }) => {
        signals.push(signal);
        return new Promise(() => {});
      },
      options,
    );
    core.give(row());
    await settled();
    go(core);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
    await handling.close();
    expect([core.ending.size, core.givenUp]).toEqual([0, index === 0 ? [1] : []]);
  }
  const core = new Core();
  handlePlace(core, () => {}, { signal: controller.signal });
  expect([core.ending.size, core.givenUp]).toEqual([0, [1]]);
});

test('a handler is told why it is given nothing any more, and not of what passes', async () => {
  const told: unknown[] = [];
  const options = { onError: (...of: unknown[]) => told.push(of) };
  const core = new Core();
  handlePlace(core, () => {}, options);
  const { caller } = core.calls[0]!;
  caller({ type: 'failed', error: new EngineError('died') }, false);
  expect([told, core.ending.size]).toEqual([[], 1]);
  const error = new AccessError('this copy handles no commands');
  caller({ type: 'failed', error }, false);
  expect(told).toEqual([[error, undefined]]);
  expect([core.ending.size, core.givenUp]).toEqual([0, [1]]);
  const other = new Core();
  handlePlace(other, () => {}, options);
  const closed = new DocumentClosedError('closed');
  other.calls[0]!.caller({ type: 'failed', error: closed }, true);
  expect(told).toHaveLength(1);
});

test('who handles what there is not is told so', () => {
  const core = new Core();
  const wrong: [Given, RegExp, HandleOptions?][] = [
    [{ commands: { plaice() {} } }, /order has no command plaice: it has place, pay, number/],
    [{ commands: { toString() {} } }, /order has no command toString/],
    [{ commands: { place() {} }, evolve: { lost() {} } }, /order has no event lost/],
    [{ commands: { place: 7 } }, /has to be a function/],
    [{ commands: { place() {} }, erased: 7 }, /erased has to be a function/],
    [{ commands: {} }, /1 to 1,024 commands/],
    [{ commands: undefined as never }, /1 to 1,024 commands/],
    [{ commands: { place() {} }, snapshot: '' }, /snapshot has to be a name of 1 to 64 bytes/],
    [{ commands: { place() {} }, snapshot: 1 }, /snapshot has to be/],
    [{ commands: { place() {} }, snapshot: 'ü'.repeat(33) }, /snapshot has to be/],
    [{ commands: { place() {} } }, /concurrency has to be/, { concurrency: 0 }],
    [{ commands: { place() {} } }, /concurrency has to be/, { concurrency: 1_025 }],
    [{ commands: { place() {} } }, /concurrency has to be/, { concurrency: 1.5 }],
  ];
  for (const [handlers, text, options] of wrong) {
    expect(() => handle(core, handlers, options)).toThrow(text);
  }
  const [, { handle: ofMail }] = Object.values(SHOP.streams!).map((it) => it[EVENTS]!);
  expect(() => ofMail!(core.document, ['odrer', {}])).toThrow(
    /shop has no stream or workflow odrer: it has order/,
  );
  core.isClosed = true;
  expect(() => handlePlace(core, () => {})).toThrow(DocumentClosedError);
  expect([core.calls, core.ending.size]).toEqual([[], 0]);
});

test('closing that waits for what is at work ends with the document', async () => {
  const core = new Core();
  const handling = handlePlace(core, () => new Promise(() => {}));
  core.give(row());
  core.asked.length = 0;
  await settled();
  let isClosed = false;
  const closing = handling.close().then(() => {
    isClosed = true;
  });
  await settled();
  expect(isClosed).toBe(false);
  for (const it of core.ending) it.endWith(new DocumentClosedError('closed'));
  await closing;
});
