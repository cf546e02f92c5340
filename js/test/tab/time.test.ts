import { expect, test } from 'vitest';
import { entry, opened, opens, Stage, stands } from './stage.js';

test('W14: a slow first download fails nobody after ten seconds', () => {
  const stage = new Stage();
  const call = stage.call('open', { handle: stage.tab.newHandle() });
  stage.connect();
  stage.pass(30_000);
  expect(stage.errors(call)).toEqual([]);
  stage.work();
  stage.pass(9_000);
  expect(stage.errors(call)).toEqual([]);
  stage.pass(1_000);
  expect(stage.errors(call)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
});

test('W14: a download that never ends fails the call at last', () => {
  const stage = new Stage();
  const call = stage.call('open', { handle: stage.tab.newHandle() });
  stage.connect();
  stage.pass(60_000);
  expect(stage.errors(call)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
});

test('W14: a tab to which nothing comes, since another one is to serve it, waits no longer', () => {
  const stage = new Stage();
  const call = stage.call('open', { handle: stage.tab.newHandle() });
  stage.connect();
  stage.step({ type: 'welcome', core: stage.core, lock: 'lock' });
  stage.pass(18_000);
  expect(stage.errors(call)).toEqual([]);
  stage.pass(3_000);
  expect(stage.errors(call)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
});

test('a local document takes the time that its server needs, while that takes something in', () => {
  const stage = new Stage();
  stage.work();
  const call = stage.call('open', { handle: stage.tab.newHandle() });
  for (let part = 0; part < 10; part++) {
    stage.pass(9_000);
    stage.answer(call, { type: 'handingOver' });
    stage.pass(50_000);
  }
  expect(stage.of('settle')).toEqual([]);
  stage.answer(call, opens());
  expect(stage.of('settle')).toMatchObject([{ call, answer: { type: 'opened' }, last: true }]);
});

test('a hand-over of which the core says nothing more is given up', () => {
  const stage = new Stage();
  stage.work();
  const call = stage.call('open', { handle: stage.tab.newHandle() });
  stage.answer(call, { type: 'handingOver' });
  // The core gives it up by itself after a minute.
  stage.pass(62_000);
  expect(stage.errors(call)).toEqual([]);
  stage.pass(10_000);
  expect(stage.errors(call)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
});

test('W6: a call is not the cause of deaths that come long after it was asked', () => {
  const { stage, handle } = opened();
  const sync = stage.call('sync', { handle }, false);
  for (let nth = 0; nth < 4; nth++) {
    stage.pass(3_600_000);
    stage.survive().reopen();
  }
  expect(stage.errors(sync)).toEqual([]);
});

test('a core that is found to be gone twice has died once', () => {
  const { stage, handle } = opened();
  const sync = stage.call('sync', { handle }, false);
  for (let nth = 0; nth < 3; nth++) stage.step({ type: 'gone', core: stage.core });
  stage.pass(8_100);
  stage.work().reopen();
  expect(stage.errors(sync)).toEqual([]);
});

test('W6: a hand-over that kills three cores is given up, however far they got', () => {
  const stage = new Stage();
  const call = stage.call('open', { handle: stage.tab.newHandle() });
  stage.work();
  for (let death = 0; death < 3; death++) {
    expect(stage.errors(call)).toEqual([]);
    stage.answer(call, { type: 'handingOver' });
    stage.step({ type: 'gone', core: stage.core });
    stage.pass(8_100);
    stage.work();
  }
  expect(stage.errors(call)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
});

test('W14: an open that was given up leaves no handle behind in the core', () => {
  const stage = new Stage();
  const handle = stage.tab.newHandle();
  stage.call('open', { handle });
  stage.work();
  stage.pass(10_000);
  expect(stage.posted('close')).toMatchObject([{ handle }]);
});

test('a close that was given up leaves no handle behind in a core that opens anew', () => {
  const { stage, handle } = opened();
  stage.survive();
  const close = stage.call('close', { handle });
  expect(stage.posted('close')).toEqual([]);
  stage.pass(10_000);
  expect(stage.errors(close)).toMatchObject([{ code: 'engine', last: true }]);
  expect(stage.posted('close')).toMatchObject([{ handle }]);
});

test('W17: what is due is found at any input, however late the timers of a hidden tab come', () => {
  const { stage, handle } = opened();
  const call = stage.call('query', { handle });
  stage.pass(9_000);
  stage.now += 600;
  stage.news({ handle, news: stands() });
  expect(stage.errors(call)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
});

test('W17: who was suspended hears what came meanwhile before anything is given up', () => {
  const { stage, handle } = opened();
  const [told, silent] = [0, 1].map(() => stage.call('query', { handle }));
  stage.now += 60_000;
  stage.step({ type: 'wake' });
  stage.answer(told!, { type: 'done' });
  expect(stage.errors(told!)).toEqual([]);
  // Only once, however long its timers take.
  stage.now += 60_000;
  stage.step({ type: 'wake' });
  expect(stage.errors(silent!)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
});

test('W22: what was asked before a page was put aside has its time once it is back', () => {
  for (const isTimerFirst of [true, false]) {
    const { stage, handle } = opened();
    const call = stage.call('query', { handle });
    stage.step({ type: 'hide' });
    const later = stage.call('query', { handle });
    stage.now += 60_000;
    if (isTimerFirst) stage.step({ type: 'wake' });
    stage.step({ type: 'show' });
    stage.pass(7_000);
    expect([stage.errors(call), stage.errors(later)]).toEqual([[], []]);
    stage.work().reopen();
    stage.pass(3_000);
    for (const late of [call, later]) {
      expect(stage.errors(late)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
    }
  }
});

test('a mutation that is not durable in time may still become so', () => {
  const { stage, handle } = opened();
  const call = stage.call('mutate', { handle, name: 'm' });
  stage.pass(10_000);
  expect(stage.errors(call)).toEqual([
    { code: 'not-durable-yet', outcome: 'unknown', last: false },
  ]);
  stage.answer(call, { type: 'confirmed', entry, lsn: 3 });
  expect(stage.of('settle').at(-1)).toMatchObject({ answer: { type: 'confirmed' }, last: true });
});

test('a timer that comes a little too early is set anew', () => {
  const { stage, handle } = opened();
  stage.call('query', { handle });
  const at = stage.alarm;
  stage.now = at - 0.1;
  expect(stage.step({ type: 'wake' })).toEqual([{ type: 'wake', at }]);
});

test('a tab in which nothing happens sets no timer for ever', () => {
  const { stage } = opened();
  stage.pass(600_000);
  expect(stage.alarm).toBe(Number.POSITIVE_INFINITY);
});
