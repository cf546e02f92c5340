import { expect, test } from 'vitest';
import { DoctypeMismatchError, RejectedError } from '../../src/errors.js';
import type { Status } from '../../src/status.js';
import { endOf, entry, opened, Stage, standing } from './stage.js';

test('a document is closed once all that was issued is on the disk', () => {
  const { stage, handle } = opened();
  const other = stage.open();
  const [decided, ...issued] = [0, 1, 2].map(() => stage.call('mutate', { handle, name: 'm' }));
  stage.call('mutate', { handle: other, name: 'm' });
  stage.answer(decided!, { type: 'durable', entry });
  const close = stage.call('close', { handle });
  stage.answer(close, { type: 'done' });
  for (const call of issued) {
    expect(endOf(stage, close)).toBeUndefined();
    stage.answer(call, { type: 'durable', entry });
  }
  expect(endOf(stage, close)).toBe('done');
  const closed = { code: 'document-closed', outcome: 'unknown', last: true };
  for (const call of [decided!, ...issued]) expect(stage.errors(call)).toEqual([closed]);
  stage.survive();
  expect(stage.posted('open').slice(2)).toMatchObject([{ handle: other }]);
});

test('a mutation that is refused is not waited for by a close', () => {
  const { stage, handle } = opened();
  const call = stage.call('mutate', { handle, name: 'm' });
  const close = stage.call('close', { handle });
  stage.answer(close, { type: 'done' });
  stage.answer(call, { type: 'failed', error: new RejectedError('no') });
  expect(endOf(stage, close)).toBe('done');
  expect(stage.errors(call)).toEqual([{ code: 'rejected', outcome: 'none', last: true }]);
});

test('what was issued to a local document before it was closed is confirmed too', () => {
  for (const isNews of [false, true]) {
    const stage = new Stage().work();
    const [handle, status] = [stage.tab.newHandle(), { connection: 'local' } as Status];
    const open = stage.call('open', { handle });
    stage.answer(open, { ...standing({}), ...(isNews ? {} : { status }), type: 'opened' });
    if (isNews) stage.news({ handle, news: { ...standing({}), status, type: 'status' } });
    const call = stage.call('mutate', { handle, name: 'm' });
    const close = stage.call('close', { handle });
    stage.answer(close, { type: 'done' });
    stage.answer(call, { type: 'durable', entry });
    stage.answer(call, { type: 'confirmed', entry, lsn: 1 });
    expect([endOf(stage, call), endOf(stage, close)]).toEqual(['confirmed', 'done']);
  }
});

test('a core that dies between a close and the disk leaves both to the next one', () => {
  const { stage, handle } = opened();
  const call = stage.call('mutate', { handle, name: 'm' });
  const close = stage.call('close', { handle });
  stage.answer(close, { type: 'done' });
  stage.log = [];
  stage.survive().reopen();
  const asked = stage.of('post').filter(({ kind }) => kind === 'mutate' || kind === 'close');
  const calls = asked.map(({ message }) => (message as { call: number }).call);
  expect(calls).toEqual([call, close]);
  // The next one has not closed it yet.
  stage.answer(call, { type: 'durable', entry });
  expect(endOf(stage, close)).toBeUndefined();
  stage.answer(close, { type: 'done' });
  expect(endOf(stage, close)).toBe('done');
});

test('a close ends in time where the disk says nothing', () => {
  for (const connection of ['online', 'local'] as const) {
    const { stage, handle } = opened();
    const status = { connection } as Status;
    stage.news({ handle, news: { ...standing({}), status, type: 'status' } });
    const call = stage.call('mutate', { handle, name: 'm' });
    stage.pass(2_000);
    const close = stage.call('close', { handle });
    stage.answer(close, { type: 'done' });
    stage.pass(8_000);
    const [late] = stage.errors(call);
    expect(late).toEqual({ code: 'not-durable-yet', outcome: 'unknown', last: false });
    expect(endOf(stage, close)).toBe('done');
  }
});

test('what cannot be opened again is closed in time, however long more is wanted of it', () => {
  const { stage, handle } = opened();
  const call = stage.call('mutate', { handle, name: 'm' });
  stage.survive();
  const close = stage.call('close', { handle });
  const [again] = stage.posted('open').slice(-1);
  const error = new DoctypeMismatchError('of another release', { outcome: 'none' });
  stage.answer(again!.call as number, { type: 'failed', error });
  stage.log = [];
  stage.pass(10_000);
  expect(stage.errors(call)).toMatchObject([{ last: false }, { outcome: 'unknown', last: true }]);
  expect(endOf(stage, close)).toBe('done');
  // It is being opened once more just then.
  expect(stage.posted('open').length).toBeGreaterThan(0);
  expect(stage.posted('close')).toMatchObject([{ handle }]);
});

test('a close does not wait for a verdict that a document, just handed over, still needs', () => {
  const { stage, handle } = opened();
  const call = stage.call('mutate', { handle, name: 'm' });
  const close = stage.call('close', { handle });
  const status = { connection: 'local' } as Status;
  stage.news({ handle, news: { ...standing({}), status, type: 'status' } });
  stage.answer(close, { type: 'done' });
  stage.answer(call, { type: 'durable', entry });
  stage.pass(10_000);
  expect(endOf(stage, close)).toBe('done');
});

test('a document that is closed ends what was asked of it', () => {
  const { stage, handle } = opened();
  const watch = stage.call('watch', { handle });
  const close = stage.call('close', { handle });
  stage.answer(close, { type: 'done' });
  expect(stage.errors(watch)).toEqual([
    { code: 'document-closed', outcome: 'unknown', last: true },
  ]);
  stage.survive();
  expect(stage.posted('open')).toHaveLength(1);
});
