import { expect, expectTypeOf, test } from 'vitest';
import { Reader } from '../src/codec.js';
import { Database } from '../src/database.js';
import { doctype, EVENTS, flawOf, type Mutations } from '../src/doctype.js';
import {
  InvalidOptionError,
  KeyReusedError,
  MutationArgumentError,
  RejectedError,
  UnknownMutationError,
  WorkflowCancelledError,
  WorkflowFailedError,
} from '../src/errors.js';
import {
  type AsJson,
  type Cancel,
  command,
  type RecordedEvent,
  type RunHandler,
  type SentOutcome,
  type Start,
  stream,
  type WorkflowContext,
  type WorkflowReceipt,
  workflow,
} from '../src/events.js';
import type { OpenStreams } from '../src/streams.js';
import { type Context, DEPOT } from './runs.js';
import { Core, settled } from './shop.js';

type Flows = NonNullable<typeof DEPOT.workflows>;
type Nothing = Record<never, never>;

const code = () => DEPOT.workflows!.fulfil[EVENTS]!;
const documentOf = (core: Core): OpenStreams => ({ ...core.document, doctype: DEPOT });
const startOf = (core: Core): Start<Flows> => code().start(documentOf(core)) as Start<Flows>;
const cancelOf = (core: Core): Cancel<Flows> => code().cancel(documentOf(core)) as Cancel<Flows>;

test('a workflow has a version, and arguments that JSON has', () => {
  expect(workflow({ order: 'text' })).toMatchObject({ version: 1, fields: { order: 'text' } });
  expect(workflow({}, { version: 7 }).version).toBe(7);
  for (const version of [0, -1, 1.5, '1', 2 ** 32, null, Number.NaN]) {
    expect(() => workflow({}, { version } as never), `${version}`).toThrow(/a whole number from 1/);
  }
  expect(() => workflow({ at: 'date' } as never)).toThrow(/types by name/);
  expect(() => workflow(undefined as never)).toThrow(/types by name/);
  expect(() => workflow({ scan: 'blob?' })).toThrow(/scan of a workflow cannot be a blob/);
});

test('a doctype says its workflows as the server reads them', () => {
  const { workflows } = JSON.parse(JSON.stringify(DEPOT));
  expect(workflows.fulfil).toEqual({ version: 2, fields: { order: 'text' } });
  expect(flawOf(DEPOT)).toBe(undefined);
  const of = (fulfil: unknown): unknown =>
    doctype({ name: 'a', migrations: [], mutations: {}, workflows: { fulfil } as never });
  const bare = { version: 1, fields: {} };
  const flaws = [bare, undefined, { ...workflow({}), version: 0 }, { ...workflow({}), fields: 7 }];
  expect(flaws.map((it) => flawOf(of(it)))).toEqual([
    'workflow fulfil of doctype a has to be what workflow() returned',
    'workflow fulfil of doctype a has to be what workflow() returned',
    expect.stringMatching(/^workflow fulfil of doctype a has a version, which is a whole/),
    expect.stringMatching(/^workflow fulfil of doctype a has arguments, which are types/),
  ]);
});

test('a run is started by a mutation with its id and its arguments as JSON', () => {
  const core = new Core();
  const start = startOf(core);
  const receipt = start.fulfil({ order: 'o-7' }, { id: 'f-7' });
  start.label();
  expect([receipt.id, receipt.args]).toEqual(['f-7', { order: 'o-7' }]);
  expect(core.issued.map(({ name, args }) => [name, args])).toEqual([
    ['start:fulfil', { id: 'f-7', args: '{"order":"o-7"}' }],
    ['start:label', { id: '00000000-0000-4000-8000-000000000001', args: '{}' }],
  ]);
});

test('what cannot be started or cancelled is said at once, and nothing is issued', () => {
  const core = new Core();
  const fulfil = startOf(core).fulfil as (...of: unknown[]) => unknown;
  expect(() => fulfil({})).toThrow(MutationArgumentError);
  expect(() => fulfil({ order: 'o', at: 1 })).toThrow(/fulfil: there is no parameter at/);
  for (const id of ['', 7, 'ü'.repeat(129), '\ud800', null]) {
    const options = { id };
    const start = () => fulfil({ order: 'o' }, options);
    if (id !== null) expect(start).toThrow(InvalidOptionError);
    const cancel = cancelOf(core).fulfil as (id: unknown) => unknown;
    expect(() => cancel(id)).toThrow(/which run of fulfil has to be a string of 1 to 256 bytes/);
  }
  const any = startOf(core) as never as Record<string, () => void>;
  expect(() => any.fulfill).toThrow(UnknownMutationError);
  expect(() => any.fulfill).toThrow(/depot has no workflow fulfill: it has fulfil,label/);
  expect(any.then).toBe(undefined);
  expect(core.issued).toEqual([]);
});

test('an id that stands for a run with other arguments has an error of its own', async () => {
  const core = new Core();
  const receipt = startOf(core).fulfil({ order: 'o' }, { id: 'f' });
  const reason = 'key reused: fulfil of f was sent by it before, with other arguments';
  const details = { mutation: 'start:fulfil', reason };
  core.issued[0]!.issued.failed(new RejectedError(reason, details), true);
  await expect(receipt).rejects.toBeInstanceOf(KeyReusedError);
  await expect(receipt.completed).rejects.toBeInstanceOf(KeyReusedError);
});

test('a run is cancelled by a mutation with its id', () => {
  const core = new Core();
  const receipt = cancelOf(core).fulfil('f-7');
  expect(receipt.args).toEqual({ id: 'f-7' });
  expect(core.issued.map(({ name, args }) => [name, args])).toEqual([
    ['cancel:fulfil', { id: 'f-7' }],
  ]);
});

/** A run that was started, and what is asked of it. */
async function asked(core: Core) {
  const { completed, confirmed } = startOf(core).fulfil({ order: 'o' }, { id: 'f' });
  const { issued } = core.issued[0]!;
  issued.durable({ lsn: 1 });
  issued.confirmed({ lsn: 2 });
  await confirmed;
  const outcome = await core.next('outcome');
  return { completed, outcome };
}

test('a run has completed with what its code has returned, once it was started', async () => {
  const core = new Core();
  const receipt = startOf(core).fulfil({ order: 'o' }, { id: 'f' });
  const { completed } = receipt;
  expect(receipt.completed).toBe(completed);
  await settled();
  expect(core.asked).toEqual([]);
  const { issued } = core.issued[0]!;
  issued.durable({ lsn: 1 });
  issued.confirmed({ lsn: 2 });
  const outcome = await core.next('outcome');
  const r = new Reader(outcome.message.request);
  expect(Array.from({ length: 4 }, () => r.text())).toEqual(['fulfil', 'f', '', 'f']);
  const none = { first: null, last: null };
  outcome.answer({ number: 1, state: 'completed', reason: null, ...none, result: '{"a":[1]}' });
  expect(await completed).toEqual({ a: [1] });
});

test('why a run has failed is said, that it was cancelled, and where nobody knows', async () => {
  const none = { number: 1, first: null, last: null, result: null };
  const failed = await asked(new Core());
  failed.outcome.answer({ ...none, state: 'failed', reason: 'sold out' });
  const error = await failed.completed.catch((it: unknown) => it);
  expect(error).toBeInstanceOf(WorkflowFailedError);
  expect(error).not.toBeInstanceOf(WorkflowCancelledError);
  expect(error).toMatchObject({
    code: 'workflow-failed',
    name: 'WorkflowFailedError',
    outcome: 'none',
    workflow: 'fulfil',
    id: 'f',
    reason: 'sold out',
    message: 'run f of workflow fulfil has failed: sold out',
  });
  const cancelled = await asked(new Core());
  cancelled.outcome.answer({ ...none, state: 'cancelled', reason: 'cancelled' });
  const other = await cancelled.completed.catch((it: unknown) => it);
  expect(other).toBeInstanceOf(WorkflowCancelledError);
  expect(other).toBeInstanceOf(WorkflowFailedError);
  expect(other).toMatchObject({ code: 'workflow-cancelled', workflow: 'fulfil', id: 'f' });
  const forgotten = await asked(new Core());
  forgotten.outcome.answer();
  const last = await forgotten.completed.catch((it: unknown) => it);
  expect(last).toMatchObject({ code: 'workflow-failed', outcome: 'unknown' });
});

test('what becomes of a run can be asked for by its id, and given up', async () => {
  const core = new Core();
  const outcomeOf = (...of: unknown[]): Promise<unknown> =>
    code().outcome(documentOf(core), of) as Promise<unknown>;
  const given = new AbortController();
  const outcome = outcomeOf('fulfil', 'f', { signal: given.signal });
  await core.next('outcome');
  given.abort(new Error('enough'));
  await expect(outcome).rejects.toThrow('enough');
  expect(() => outcomeOf('fulfill', 'f')).toThrow(UnknownMutationError);
  expect(() => outcomeOf('fulfil', '')).toThrow(InvalidOptionError);
});

/** A document of this doctype, and what it asks. */
function opened(kind: typeof DEPOT) {
  const calls: [string, Record<string, unknown>][] = [];
  const connection = {
    host: { draw: (it: Uint8Array) => it, now: () => 5, uuid: () => 'u', wakeIn: () => () => {} },
    attach() {},
    call: (name: string, message: Record<string, unknown>) => calls.push([name, message]),
  };
  const standing = { status: { error: null }, memo: {} };
  const of = [connection, { handle: 3, doctype: kind }, standing] as unknown;
  const db = new Database(...(of as ConstructorParameters<typeof Database>));
  return { db: db as Database<typeof kind.mutations, typeof kind.streams & object, Flows>, calls };
}

test('a document does by a name what has that name, be it a stream or a workflow', () => {
  const { db, calls } = opened(DEPOT);
  expect(db.start).toBe(db.start);
  db.start.fulfil({ order: 'o' }, { id: 'f' });
  db.cancel.fulfil('f');
  db.send.order.pay('o', {}, { key: 'k' });
  db.outcome('fulfil', 'f');
  db.outcome('order', 'o', 'pay', 'k');
  db.handle('fulfil', async () => {});
  db.handle('order', { initial: 0, commands: { pay: () => [{ type: 'paid' }] } });
  const texts = ({ request }: Record<string, unknown>, count: number): string[] => {
    const r = new Reader(request as Uint8Array<ArrayBuffer>);
    return Array.from({ length: count }, () => r.text());
  };
  const said = calls.map(([kind, message]) => {
    if (kind === 'outcome') return [kind, ...texts(message, 4)];
    return [kind, message.name ?? Buffer.from(message.request as Uint8Array).toString()];
  });
  expect(said).toEqual([
    ['mutate', 'start:fulfil'],
    ['mutate', 'cancel:fulfil'],
    ['mutate', 'send:order.pay'],
    ['outcome', 'fulfil', 'f', '', 'f'],
    ['outcome', 'order', 'o', 'pay', 'k'],
    ['handle', expect.stringMatching(/fulfil.*2/s)],
    ['handle', expect.stringMatching(/order.*pay/s)],
  ]);
  const { workflows } = DEPOT;
  const alone = doctype({ name: 'alone', migrations: [], mutations: {}, workflows: workflows! });
  const other = opened(alone as never);
  other.db.start.fulfil({ order: 'o' });
  expect(other.calls).toHaveLength(1);
  expect(() => other.db.send).toThrow(/alone has no streams or workflows for send/);
});

test('handlers of commands may start runs, with their completion', async () => {
  const core = new Core();
  const { order } = DEPOT.streams!;
  const pay = ({ start }: { start: never }): void => {
    (start as Record<string, CallableFunction>).fulfil!({ order: 'o' });
    (start as Record<string, CallableFunction>).label!({ weight: 2 }, { id: 'mine' });
  };
  const handlers = { initial: 0, commands: { pay } };
  order[EVENTS]!.handle!(documentOf(core), ['order', handlers]);
  const of = { number: 9, aggregate: 'order', stream: 'o', name: 'pay', args: '{}', key: 'k' };
  core.give({ ...of, time: 9, user: '', client: 'c', attempt: 1, position: 0, instance: 7 });
  const { message } = await core.next('complete');
  const r = new Reader(message.request);
  const numbers = [r.u32(), r.u64(), r.u64(), r.u64(), r.u64(), r.u32()];
  expect(numbers).toEqual([1, 7, 9, 1, 0, 0]);
  const texts = (count: number) => () => Array.from({ length: count }, () => r.text());
  expect([r.list(texts(2)), r.list(texts(5)), r.list(texts(3))]).toEqual([
    [],
    [],
    [
      ['fulfil', '9:0', '{"order":"o"}'],
      ['label', 'mine', '{"weight":2}'],
    ],
  ]);
});

test('what is started, handled and waited for has types', () => {
  expectTypeOf<ReturnType<Start<Flows>['fulfil']>>().toExtend<WorkflowReceipt<{ order: string }>>();
  expectTypeOf<[]>().toExtend<Parameters<Start<Flows>['label']>>();
  expectTypeOf<Parameters<Start<Flows>['fulfil']>[0]>().toExtend<{ order: string }>();
  expectTypeOf<{ order: number }>().not.toExtend<Parameters<Start<Flows>['fulfil']>[0]>();
  expectTypeOf<keyof Cancel<Flows>>().toEqualTypeOf<'fulfil' | 'label'>();
  type Handler = RunHandler<NonNullable<typeof DEPOT.streams>, Flows, 'fulfil'>;
  expectTypeOf<Parameters<Handler>[1]>().toExtend<{ readonly order: string }>();
  const compiled = (ctx: Context, db: Database<Mutations, Nothing, Flows>) => {
    const shipped = ctx.waitFor('order', 'o', 'shipped');
    expectTypeOf<Awaited<typeof shipped>['data']>().toEqualTypeOf<
      { readonly [name in never]: never } & { readonly by?: string | null }
    >();
    expectTypeOf<Awaited<typeof shipped>>().toExtend<RecordedEvent<'order', 'shipped'>>();
    const late = ctx.waitFor('order', 'o', 'paid', { timeout: '7d' });
    expectTypeOf<null>().toExtend<Awaited<typeof late>>();
    // @ts-expect-error There is no such event.
    ctx.waitFor('order', 'o', 'lost');
    expectTypeOf(ctx.send.order.pay('o')).toEqualTypeOf<Promise<SentOutcome | null>>();
    // @ts-expect-error It is a number.
    ctx.send.order.pay('o', { sum: '1' });
    expectTypeOf(ctx.start.label()).toEqualTypeOf<Promise<unknown>>();
    expectTypeOf(ctx.step('a', async () => new Date())).toEqualTypeOf<Promise<string>>();
    expectTypeOf(ctx.step('a', () => {})).toEqualTypeOf<Promise<null>>();
    const kept = ctx.request('a', ({ key, signal }) => fetch(key, { signal }), {
      keep: (response) => response.status,
    });
    expectTypeOf(kept).toEqualTypeOf<Promise<number>>();
    // @ts-expect-error There are no such times.
    ctx.sleep('3w');
    // @ts-expect-error It has no such workflow.
    db.handle('fulfill', () => {});
    db.handle('fulfil', (ctx, args) => {
      expectTypeOf(args.order).toEqualTypeOf<string>();
      expectTypeOf(ctx).toEqualTypeOf<WorkflowContext<Nothing, Flows>>();
    });
    db.handle('fulfil', { 1: () => {}, 2: (_, { order }) => order.length });
  };
  expect(compiled).toBeTypeOf('function');
  expectTypeOf<AsJson<{ at: Date; of?: undefined; list: readonly [1, 'a'] }>>().toExtend<{
    at: string;
    list: readonly [1, 'a'];
  }>();
  const any = stream({ events: {}, commands: { go: command({}) } });
  expect(any).toBeTypeOf('object');
});
