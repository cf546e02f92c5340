import { expect, test } from 'vitest';
import { InvalidOptionError, RejectedError, StorageError } from '../../src/errors.js';
import type { EntryId, ToCore } from '../../src/messages.js';
import { COPY, endOf, entry, opened, openedToDelete, type Stage, saidOf, stands } from './stage.js';

test('W6: `unknown` where a dead core was handed the mutation, `none` where none was', () => {
  const { stage, handle } = opened();
  const handed = stage.call('mutate', { handle, name: 'm' });
  stage.die();
  const kept = stage.call('mutate', { handle, name: 'm' });
  const query = stage.call('query', { handle });
  stage.step({ type: 'refused', core: stage.core, reason: '404', joining: undefined });
  expect(stage.errors(handed)).toEqual([{ code: 'engine', outcome: 'unknown', last: true }]);
  expect(stage.errors(kept)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
  expect(stage.errors(query)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
});

test('W6: what kills three cores is given up, with nothing known of a mutation', () => {
  const { stage, handle } = opened();
  const call = stage.call('mutate', { handle, name: 'm' });
  for (let death = 0; death < 3; death++) {
    stage.step({ type: 'gone', core: stage.core });
    stage.pass(8_100);
    stage.work().reopen();
  }
  expect(stage.errors(call).at(-1)).toEqual({ code: 'engine', outcome: 'unknown', last: true });
});

test('W6: a second core that cannot look says nothing of what the first one did', () => {
  const { stage, handle } = opened();
  const [one, two] = [0, 1].map(() => stage.call('mutate', { handle, name: 'm' }));
  stage.survive().reopen();
  stage.answer(one!, { type: 'failed', error: new StorageError('cannot look') });
  stage.answer(two!, { type: 'failed', error: new RejectedError('no') });
  expect(stage.errors(one!)).toEqual([{ code: 'storage', outcome: 'unknown', last: true }]);
  expect(stage.errors(two!)).toEqual([{ code: 'rejected', outcome: 'none', last: true }]);
});

test('D10: what a core says of a durable mutation that it lacks is the last word', () => {
  const { stage, handle } = opened();
  const call = stage.call('mutate', { handle, name: 'm' });
  stage.answer(call, { type: 'durable', entry });
  stage.survive().reopen();
  expect(stage.posted('mutate').at(-1)).toMatchObject({ again: { durable: entry } });
  stage.answer(call, { type: 'failed', error: new StorageError('gone', { outcome: 'unknown' }) });
  expect(stage.errors(call)).toEqual([{ code: 'storage', outcome: 'unknown', last: true }]);
});

test('a deletion that another core refuses may have been carried out by the one before', () => {
  const { stage } = opened();
  const call = stage.call('destroy', { document: 'd', user: '', force: true });
  stage.survive();
  const error = new InvalidOptionError('the document is open', { outcome: 'none' });
  stage.answer(call, { type: 'failed', error });
  expect(stage.errors(call)).toEqual([{ code: 'invalid-option', outcome: 'unknown', last: true }]);
});

test('what is closed and deleted is closed by the next core before it is deleted', () => {
  const { stage, handle } = openedToDelete();
  const close = stage.call('close', { handle });
  const other = stage.call('destroy', { document: 'e', user: '', force: true });
  const destroy = stage.call('destroy', { document: 'd', user: '', force: true });
  stage.log = [];
  stage.survive();
  expect(stage.posted('destroy').map(({ call }) => call)).toEqual([other]);
  stage.reopen();
  const asked = stage.of('post').filter(({ kind }) => kind === 'close' || kind === 'destroy');
  const calls = asked.map(({ message }) => (message as { call: number }).call);
  expect(calls).toEqual([other, close, destroy]);
});

test('a document that cannot be opened again can be deleted', () => {
  const { stage, handle } = openedToDelete();
  stage.call('close', { handle });
  const destroy = stage.call('destroy', { document: 'd', user: '', force: true });
  stage.log = [];
  stage.survive();
  const [again] = stage.posted('open');
  const error = new StorageError('full', { outcome: 'none' });
  stage.answer(again!.call as number, { type: 'failed', error });
  expect(stage.posted('destroy').map(({ call }) => call)).toEqual([destroy]);
});

test('what waits for a document to be open again goes on once that has failed', () => {
  const { stage } = openedToDelete();
  const destroy = stage.call('destroy', { document: 'd', user: '', force: true });
  stage.log = [];
  stage.survive();
  expect(stage.posted('destroy')).toEqual([]);
  const [again] = stage.posted('open');
  stage.answer(again!.call as number, { type: 'failed', error: new StorageError('full') });
  expect(stage.posted('destroy').map(({ call }) => call)).toEqual([destroy]);
});

test('what was deleted is not opened again to be closed', () => {
  const { stage, handle } = openedToDelete();
  const close = stage.call('close', { handle });
  const destroy = stage.call('destroy', { document: 'd', user: '', force: true });
  stage.survive();
  const [again] = stage.posted('open').slice(-1);
  const error = new StorageError('damaged', { outcome: 'none' });
  stage.answer(again!.call as number, { type: 'failed', error });
  stage.answer(destroy, { type: 'done' });
  const settled = stage.of('settle').slice(-2);
  expect(settled.map(({ call, answer }) => [call, answer.type])).toEqual([
    [close, 'done'],
    [destroy, 'done'],
  ]);
  stage.log = [];
  stage.pass(20_000);
  expect(stage.posted('open')).toEqual([]);
});

test('what could not be opened again is closed at once, unless it is wanted for more', () => {
  for (const isWanted of [false, true]) {
    const { stage, handle } = opened();
    if (isWanted) stage.call('query', { handle });
    stage.call('watch', { handle });
    const decided = stage.call('mutate', { handle, name: 'm' });
    stage.answer(decided, { type: 'durable', entry });
    stage.survive();
    const [again] = stage.posted('open').slice(-1);
    const error = new StorageError('damaged', { outcome: 'none' });
    stage.answer(again!.call as number, { type: 'failed', error });
    const close = stage.call('close', { handle });
    const closed = stage.of('settle').filter(({ call }) => call === close);
    expect(closed.map(({ answer }) => answer.type)).toEqual(isWanted ? [] : ['done']);
    stage.log = [];
    stage.pass(8_000);
    expect(stage.posted('open').length > 0).toBe(isWanted);
  }
});

test('a deletion waits no longer once its document is given up', () => {
  const { stage, handle } = openedToDelete();
  stage.call('close', { handle });
  stage.survive().pass(5_000);
  const destroy = stage.call('destroy', { document: 'd', user: '', force: true });
  expect(stage.posted('destroy')).toEqual([]);
  stage.log = [];
  stage.pass(5_000);
  const asked = stage.of('post').filter(({ kind }) => kind === 'close' || kind === 'destroy');
  expect(asked.map(({ kind }) => kind)).toEqual(['close', 'destroy']);
  expect(stage.posted('destroy')[0]).toMatchObject({ call: destroy });
});

test('a page that comes back after long does not delete what was written meanwhile', () => {
  const { stage } = opened();
  const call = stage.call('destroy', { document: 'd', user: '', force: true });
  stage.log = [];
  stage.step({ type: 'hide' });
  stage.now += 3_600_000;
  stage.step({ type: 'show' });
  stage.work();
  expect(stage.posted('destroy')).toEqual([]);
  expect(stage.errors(call)).toEqual([{ code: 'engine', outcome: 'unknown', last: true }]);
});

test('what a caller was told may not be deleted is not deleted any more', () => {
  const { stage } = opened();
  const call = stage.call('destroy', { document: 'd', user: '', force: true, everywhere: true });
  stage.die();
  stage.pass(3_000);
  stage.work();
  expect(stage.posted('destroy').at(-1)).toMatchObject({ call });
  expect(stage.posted('giveUp')).toEqual([]);
  stage.pass(7_000);
  expect(stage.errors(call)).toEqual([{ code: 'engine', outcome: 'unknown', last: true }]);
  expect(stage.posted('giveUp')).toEqual([{ call }]);
});

test('a tab that is frozen as it finds the next core deletes nothing written since', () => {
  for (const wasAsked of [true, false]) {
    const { stage } = opened();
    if (!wasAsked) stage.die();
    const call = stage.call('destroy', { document: 'd', user: '', force: true });
    if (wasAsked) stage.die();
    stage.log = [];
    stage.now += 3_600_000;
    stage.work();
    expect(stage.posted('destroy')).toEqual([]);
    const outcome = wasAsked ? 'unknown' : 'none';
    expect(stage.errors(call)).toEqual([{ code: 'engine', outcome, last: true }]);
  }
});

test('D10: a mutation is asked again of the copy that it was handed over to', () => {
  const { stage, handle } = opened();
  const call = stage.call('mutate', { handle, name: 'm' });
  for (const fill of [3, 4]) {
    stage.comeBack().reopen({ copy: new Uint8Array(16).fill(fill) });
    expect(stage.posted('mutate').at(-1)).toMatchObject({ call, again: { copy: COPY } });
  }
  const younger = stage.call('mutate', { handle, name: 'm' });
  stage.comeBack().reopen();
  const copy = new Uint8Array(16).fill(4);
  expect(stage.posted('mutate').at(-1)).toMatchObject({ call: younger, again: { copy } });
});

test('a mutation that is asked again says from where on it can have been recorded', () => {
  const { stage, handle } = opened();
  stage.news({ handle, news: stands({ head: { ...entry, lsn: 4 } }) });
  const calls = [0, 1, 2].map(() => stage.call('mutate', { handle, name: 'm' }));
  stage.answer(calls[1]!, { type: 'durable', entry });
  stage.answer(calls[1]!, { type: 'confirmed', entry, lsn: 1 });
  stage.comeBack().reopen({ head: { ...entry, lsn: 9 } });
  const since = stage.posted('mutate').slice(-2) as { again: { since: (EntryId | undefined)[] } }[];
  expect(since.map(({ again }) => again.since.map((it) => it?.lsn))).toEqual([
    [4, undefined],
    [4, 7],
  ]);
});

/** From where on the call that was asked last can have been recorded, as the core is told. */
const since = (stage: Stage): (number | undefined)[] => {
  const { again } = stage.posted('mutate').at(-1) as unknown as ToCore['mutate'];
  return again!.since.map((it) => it?.lsn);
};

test('late news of a core that died say nothing of the next one', () => {
  const { stage, handle } = opened();
  const dead = stage.core;
  stage.survive().reopen({ head: { ...entry, lsn: 4 } });
  const copy = new Uint8Array(16).fill(9);
  const news = stands({ copy, head: { ...entry, lsn: 9 }, word: 7 });
  expect(stage.news({ core: dead, handle, news })).toEqual([]);
  stage.call('mutate', { handle, name: 'm' });
  stage.survive().reopen({ head: { ...entry, lsn: 9 } });
  expect(since(stage)).toEqual([4, undefined]);
  expect(stage.posted('mutate').at(-1)).toMatchObject({ again: { copy: COPY } });
  expect(saidOf(stage)).toBe(0);
});

test('a durable mutation waits for its verdict, whatever becomes of the engine', () => {
  const { stage, handle } = opened();
  const call = stage.call('mutate', { handle, name: 'm' });
  stage.answer(call, { type: 'durable', entry });
  stage.die();
  stage.step({ type: 'refused', core: stage.core, reason: '404', joining: undefined });
  stage.pass(500);
  stage.work().reopen();
  expect(stage.errors(call)).toEqual([]);
  expect(stage.posted('mutate').at(-1)).toMatchObject({ call, again: { durable: entry } });
});

test('what is deleted while it is shut is not made anew for what was asked before', () => {
  const { stage, handle } = openedToDelete();
  stage.survive();
  const [again] = stage.posted('open').slice(-1);
  const error = new StorageError('for now');
  stage.answer(again!.call as number, { type: 'failed', error });
  const mutate = stage.call('mutate', { handle, name: 'm' });
  const close = stage.call('close', { handle });
  const destroy = stage.call('destroy', { document: 'd', user: '', force: true });
  expect(endOf(stage, close)).toBe('done');
  expect(stage.errors(mutate)).toEqual([
    { code: 'document-closed', outcome: 'unknown', last: true },
  ]);
  expect(stage.posted('destroy').map(({ call }) => call)).toEqual([destroy]);
  stage.answer(destroy, { type: 'done' });
  stage.log = [];
  stage.pass(20_000);
  expect([...stage.posted('open'), ...stage.posted('mutate')]).toEqual([]);
});
