import { expect, test } from 'vitest';
import { opened, Stage, serve, types } from './stage.js';

test('W2: a script that does not load gives up the turn, and pauses grow', () => {
  const { stage } = opened();
  for (const pauseMs of [500, 1000, 2000, 4000, 8000, 8000]) {
    stage.step({ type: 'turn' });
    const failed = stage.step({ type: 'unloaded', worker: stage.worker, reason: '404' });
    expect(types(failed)).toEqual(expect.arrayContaining(['cannotLend', 'end', 'endTurn']));
    expect(types(stage.pass(pauseMs - 1))).not.toContain('queue');
    expect(types(stage.pass(1))).toContain('queue');
  }
});

test('a tab gets in line to lend as soon as it looks for a core', () => {
  const stage = new Stage();
  stage.call('open', { handle: stage.tab.newHandle() });
  expect(types(stage.log), 'before any core was found').toEqual(
    expect.arrayContaining(['connect', 'queue']),
  );
});

test('a tab that serves lends once more where its core asks, and no core before that one', () => {
  const { stage } = opened();
  serve(stage);
  expect(types(stage.step({ type: 'lendAgain', core: stage.core - 1 }))).not.toContain('lend');
  expect(types(stage.step({ type: 'lendAgain', core: stage.core }))).toContain('lend');
});

test('W2: a script that never comes gives up the turn too, and has more time the next time', () => {
  const { stage } = opened();
  for (const limitMs of [10_000, 20_000, 40_000, 60_000, 60_000]) {
    stage.step({ type: 'turn' });
    expect(types(stage.pass(limitMs - 1))).not.toContain('end');
    expect(types(stage.pass(10_000))).toEqual(expect.arrayContaining(['end', 'endTurn', 'queue']));
  }
});

test('M4: the turn ends when the store is had, so that the next one can wait loaded', () => {
  const { stage } = opened();
  expect(types(stage.step({ type: 'turn' }))).toContain('spawn');
  expect(types(stage.step({ type: 'loaded', worker: stage.worker }))).toEqual([]);
  const had = stage.step({ type: 'serves', worker: stage.worker });
  expect(types(had)).toEqual(['endTurn']);
});

test('a tab has nothing left to do for its core as its worker comes to the store', () => {
  const { stage } = opened();
  stage.step({ type: 'turn' });
  expect(stage.of('lend')).toEqual([{ type: 'lend', worker: stage.worker }]);
  stage.die();
  stage.step({ type: 'loaded', worker: stage.worker });
  const lent = stage.connect().filter(({ type }) => type === 'lend');
  expect(lent).toEqual([{ type: 'lend', worker: stage.worker }]);
  expect(types(stage.step({ type: 'serves', worker: stage.worker }))).not.toContain('lend');
});

test('a page server outlives the core, and is lent to the next one', () => {
  const { stage } = opened();
  serve(stage);
  stage.die();
  const lent = stage.connect().filter(({ type }) => type === 'lend');
  expect(lent).toEqual([{ type: 'lend', worker: stage.worker }]);
});

test('one that breaks is replaced, and what it says afterwards is not believed', () => {
  const { stage } = opened();
  serve(stage);
  const { worker } = stage;
  expect(types(stage.step({ type: 'broke', worker }))).toContain('end');
  expect(stage.step({ type: 'serves', worker })).toEqual([]);
  expect(types(stage.pass(500))).toContain('queue');
});

test('one that has served for long is replaced soon, whatever it ends of', () => {
  for (const end of [{ type: 'broke' }, { type: 'unloaded', reason: 'an error' }] as const) {
    const { stage } = opened();
    for (let failures = 0; failures < 5; failures++) {
      stage.step({ type: 'turn' });
      stage.step({ type: 'unloaded', worker: stage.worker, reason: '404' });
      stage.pass(8000);
    }
    serve(stage);
    stage.pass(60_001);
    stage.step({ ...end, worker: stage.worker });
    expect(types(stage.pass(500))).toContain('queue');
  }
});
