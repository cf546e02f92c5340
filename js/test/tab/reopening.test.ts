import { expect, test } from 'vitest';
import {
  DoctypeMismatchError,
  QueryError,
  StorageError,
  type TidelogError,
} from '../../src/errors.js';
import type { Answer } from '../../src/messages.js';
import { endOf, opened, openedToDelete, opens } from './stage.js';

test('W3: a live query outlives an engine that cannot start, and starts it again', () => {
  const { stage, handle } = opened();
  const watch = stage.call('watch', { handle, sql: '' });
  stage.die();
  stage.step({ type: 'refused', core: stage.core, reason: '404', joining: undefined });
  expect(stage.errors(watch)).toEqual([{ code: 'engine', outcome: 'none', last: false }]);
  const before = stage.core;
  stage.pass(500);
  expect(stage.core).toBe(before + 1);
  stage.work().reopen();
  expect(stage.posted('watch').filter(({ call }) => call === watch)).toHaveLength(2);
});

test('W3: a live query that failed for want of storage is asked again', () => {
  const { stage, handle } = opened();
  const watch = stage.call('watch', { handle, sql: '' });
  stage.answer(watch, { type: 'failed', error: new StorageError('a page is missing') });
  stage.pass(500);
  expect(stage.posted('watch')).toHaveLength(2);
});

/** Goal: its pause is kept, however often a document is said to be handed over. */
test('W3: nor is it asked at each word of a document that is handed over', () => {
  const { stage, handle } = opened();
  const other = stage.open();
  const watch = stage.call('watch', { handle: other, sql: '' });
  stage.survive();
  stage.reopens(other);
  const open = stage
    .posted('open')
    .filter((it) => it.handle === handle)
    .at(-1);
  stage.answer(watch, { type: 'failed', error: new StorageError('a page is missing') });
  const before = stage.posted('watch').length;
  for (let parts = 0; parts < 10; parts++) {
    stage.answer(open!.call as number, { type: 'handingOver' });
  }
  expect(stage.posted('watch')).toHaveLength(before);
  stage.pass(500);
  expect(stage.posted('watch')).toHaveLength(before + 1);
});

test('a live query that fails at each core is not taken for what each of them died of', () => {
  const { stage, handle } = opened();
  const watch = stage.call('watch', { handle, sql: '' });
  for (let cores = 1; cores <= 4; cores++) {
    expect(stage.posted('watch')).toHaveLength(cores);
    stage.answer(watch, { type: 'failed', error: new QueryError('no such table') });
    stage.pass(10_000);
    stage.survive().reopen();
  }
  expect(stage.errors(watch).filter(({ last }) => last)).toEqual([]);
});

test('a live query is told why its document cannot be opened again, and goes on once it is', () => {
  const { stage, handle } = opened();
  const watch = stage.call('watch', { handle, sql: '' });
  stage.survive();
  const { call } = stage.posted('open').at(-1)!;
  stage.answer(call as number, { type: 'failed', error: new StorageError('damaged') });
  expect(stage.errors(watch)).toEqual([{ code: 'storage', outcome: 'none', last: false }]);
  stage.pass(500);
  stage.reopen();
  expect(stage.posted('watch')).toHaveLength(2);
});

test('a sync is told why its document cannot be opened again, where that is for good', () => {
  const { stage, handle } = opened();
  const sync = stage.call('sync', { handle }, false);
  stage.survive();
  const fails = (error: TidelogError): void => {
    const { call } = stage.posted('open').at(-1)!;
    stage.answer(call as number, { type: 'failed', error });
  };
  fails(new StorageError('not now'));
  expect(stage.errors(sync)).toEqual([]);
  stage.pass(500);
  fails(new DoctypeMismatchError('another one'));
  expect(stage.errors(sync)).toMatchObject([{ code: 'doctype-mismatch', last: true }]);
});

test('who handles is asked for again after longer and longer pauses, though it begins well', () => {
  const { stage, handle } = opened();
  const rows: Answer = { type: 'rows', rows: { columns: [], count: 0, cells: new Uint8Array() } };
  const handling = stage.call('handle', { handle }, false);
  for (const pauseMs of [500, 1000, 2000]) {
    stage.answer(handling, rows);
    stage.answer(handling, { type: 'failed', error: new StorageError('a page is missing') });
    const count = stage.posted('handle').length;
    stage.pass(pauseMs - 1);
    expect(stage.posted('handle')).toHaveLength(count);
    stage.pass(1);
    expect(stage.posted('handle')).toHaveLength(count + 1);
  }
});

test('who handles commands is known to the next core before what its attempts came to', () => {
  const { stage, handle } = opened();
  const rows: Answer = { type: 'rows', rows: { columns: [], count: 0, cells: new Uint8Array() } };
  const handling = stage.call('handle', { handle }, false);
  for (let times = 0; times < 2; times++) stage.answer(handling, rows);
  const completion = stage.call('complete', { handle }, false);
  stage.pass(60_000);
  stage.survive().reopen();
  const said = stage.of('post').slice(-2);
  expect(said.map(({ message }) => (message as { call: number }).call)).toEqual([
    handling,
    completion,
  ]);
  stage.answer(completion, rows);
  expect([endOf(stage, handling), endOf(stage, completion)]).toEqual([undefined, 'rows']);
});

test('what becomes of commands is waited for while the device fails, and no longer', () => {
  const { stage, handle } = opened();
  for (const kind of ['outcome', 'complete'] as const) {
    const call = stage.call(kind, { handle }, false);
    stage.answer(call, { type: 'failed', error: new StorageError('a page is missing') });
    expect(stage.errors(call)).toEqual([]);
    stage.pass(500);
    expect(stage.posted(kind)).toHaveLength(2);
    stage.answer(call, { type: 'failed', error: new QueryError('no') });
    expect(stage.errors(call)).toMatchObject([{ code: 'query', last: true }]);
  }
});

test('W4: an open that fails after a restart is repeated until it succeeds', () => {
  const { stage, handle } = opened();
  const query = stage.call('query', { handle, sql: '' });
  stage.survive();
  const failed: Answer = { type: 'failed', error: new StorageError('not now') };
  for (const pauseMs of [500, 1000, 2000]) {
    const [open] = stage.posted('open').slice(-1);
    stage.answer(open!.call as number, failed);
    expect(stage.of('lost').at(-1)).toMatchObject({ handle, error: { code: 'storage' } });
    const count = stage.posted('open').length;
    stage.pass(pauseMs);
    expect(stage.posted('open')).toHaveLength(count + 1);
  }
  expect(stage.posted('query')).toHaveLength(1);
  stage.reopen();
  expect(stage.posted('query').map(({ call }) => call)).toEqual([query, query]);
});

test('who is present is so at every core, as it said last, once the document is open', () => {
  const { stage, handle } = opened();
  const say = (state: string | null) =>
    stage.step({ type: 'tell', kind: 'presence', message: { handle, state } });
  say('{"at":1}');
  expect(stage.posted('presence')).toHaveLength(1);
  stage.die();
  say('{"at":2}');
  stage.survive();
  expect(stage.posted('presence')).toHaveLength(1);
  stage.reopens(handle);
  expect(stage.posted('presence').at(-1)).toEqual({ handle, state: '{"at":2}' });
});

test('W5: who listens for rejections does so at every core, once the document is open', () => {
  const { stage, handle } = opened();
  stage.step({ type: 'tell', kind: 'listenRejections', message: { handle } });
  expect(stage.posted('listenRejections')).toHaveLength(1);
  for (const times of [2, 3]) {
    stage.survive();
    expect(stage.posted('listenRejections')).toHaveLength(times - 1);
    stage.reopen();
    expect(stage.posted('listenRejections')).toHaveLength(times);
  }
});

test('calls wait for their document to be open again, and keep their order', () => {
  const { stage, handle } = opened();
  const first = stage.call('mutate', { handle, name: 'm' });
  stage.survive();
  const second = stage.call('query', { handle });
  expect(stage.posted('mutate')).toHaveLength(1);
  stage.reopen();
  const sent = stage.of('post').slice(-2);
  expect(sent.map(({ message }) => (message as { call: number }).call)).toEqual([first, second]);
  expect(sent[0]!.message).toMatchObject({ again: { durable: undefined } });
  expect(stage.posted('mutate')[0]!.again).toBeUndefined();
});

test('a document is handed over with what was asked of it before, also by the next core', () => {
  const { stage, handle } = openedToDelete();
  stage.die();
  const mutate = stage.call('mutate', { handle, name: 'm' });
  const server = 'wss://sync.example';
  const open = stage.call('open', { handle: handle + 1, document: 'd', user: '', server });
  stage.log = [];
  stage.work().reopen();
  const asked = stage.of('post').map(({ message }) => (message as { call?: number }).call);
  expect(asked.filter((call) => call === mutate || call === open)).toEqual([mutate, open]);
});

test('one that is opened beside a handing over does not wait for that to end', () => {
  const { stage, handle } = openedToDelete();
  stage.die();
  const mutate = stage.call('mutate', { handle, name: 'm' });
  const open = stage.call('open', { handle: handle + 1, document: 'd', user: '' });
  stage.log = [];
  stage.work();
  const [reopened] = stage.posted('open');
  for (let parts = 0; parts < 3; parts++) {
    stage.answer(reopened!.call as number, { type: 'handingOver' });
  }
  expect(stage.posted('open').filter(({ call }) => call === open)).toHaveLength(1);
  expect(stage.posted('mutate').filter(({ call }) => call === mutate)).toHaveLength(0);
});

test('nor is it opened before the deletion that was asked for before', () => {
  const { stage } = openedToDelete();
  stage.die();
  const destroy = stage.call('destroy', { document: 'd', user: '', force: true });
  const open = stage.call('open', { handle: 9, document: 'd', user: '' });
  stage.log = [];
  stage.work();
  const [reopened] = stage.posted('open');
  stage.answer(reopened!.call as number, { type: 'handingOver' });
  stage.answer(reopened!.call as number, opens());
  const asked = (): unknown[] => {
    const calls = stage.of('post').map(({ message }) => (message as { call?: number }).call);
    return calls.filter((call) => call === destroy || call === open);
  };
  expect(asked()).toEqual([destroy]);
  stage.answer(destroy, { type: 'done' });
  expect(asked()).toEqual([destroy, open]);
});

test.each<Answer>([{ type: 'done' }, { type: 'failed', error: new StorageError('not done') }])(
  'what is closed, deleted and opened in one turn is opened once the deletion has ended: %o',
  (answer) => {
    const { stage, handle } = openedToDelete();
    const close = stage.call('close', { handle });
    const destroy = stage.call('destroy', { document: 'd', user: '', force: true });
    const open = stage.call('open', { handle: handle + 1, document: 'd', user: '' });
    const other = stage.call('open', { handle: handle + 2, document: 'e', user: '' });
    const opened = (): unknown[] => stage.posted('open').map(({ call }) => call);
    stage.answer(close, { type: 'done' });
    expect(stage.posted('destroy').map(({ call }) => call)).toEqual([destroy]);
    expect(opened()).toContain(other);
    expect(opened()).not.toContain(open);
    stage.answer(destroy, answer);
    expect(opened()).toContain(open);
  },
);

test('what is opened of a user waits until all of that user is deleted, nobody else does', () => {
  const { stage, handle } = openedToDelete();
  const destroy = stage.call('destroy', { document: undefined, user: 'ada', force: true });
  const of = (user: string): number =>
    stage.call('open', { handle: handle + 1 + user.length, document: 'e', user });
  const [adas, bens, own] = [of('ada'), of('ben'), of('')];
  const opened = (): unknown[] => stage.posted('open').map(({ call }) => call);
  expect(stage.posted('destroy').map(({ call }) => call)).toEqual([destroy]);
  expect(opened()).toEqual(expect.arrayContaining([bens, own]));
  expect(opened()).not.toContain(adas);
  stage.answer(destroy, { type: 'done' });
  expect(opened()).toContain(adas);
});

test('all of a user are deleted only when those are open again that were', () => {
  const { stage } = openedToDelete();
  stage.die();
  const others = stage.call('destroy', { document: undefined, user: 'ada', force: true });
  const own = stage.call('destroy', { document: undefined, user: '', force: true });
  const asked = (): unknown[] => stage.posted('destroy').map(({ call }) => call);
  stage.work();
  expect(asked()).toEqual([others]);
  stage.answer(stage.posted('open').at(-1)!.call as number, opens());
  expect(asked()).toEqual([others, own]);
});

test('nothing is opened just to be late behind a deletion that is', () => {
  const { stage, handle } = openedToDelete();
  stage.call('close', { handle });
  stage.call('destroy', { document: 'd', user: '', force: true });
  const open = stage.call('open', { handle: handle + 1, document: 'd', user: '' });
  stage.pass(10_000);
  expect(endOf(stage, open)).toBe('failed');
  expect(stage.posted('open').filter(({ call }) => call === open)).toEqual([]);
});

test('one whose deletion comes to nothing is opened all the same', () => {
  const { stage } = openedToDelete();
  stage.die();
  stage.call('destroy', { document: 'd', user: '', force: true });
  stage.pass(5_000);
  const open = stage.call('open', { handle: 9, document: 'd', user: '' });
  stage.work();
  const reopened = stage.posted('open').at(-1)!.call as number;
  stage.answer(reopened, { type: 'handingOver' });
  stage.pass(5_000);
  expect(stage.posted('open').filter(({ call }) => call === open)).toHaveLength(1);
});
