import { expect, test } from 'vitest';
import { EngineError } from '../../src/errors.js';
import { opened, Stage, serve, types } from './stage.js';

const placesOf = (stage: Stage): number[] => stage.of('connect').map(({ place }) => place);

test('a core that says nothing is asked again at another place, and after longer waits', () => {
  const stage = new Stage();
  stage.call('open', { handle: stage.tab.newHandle() });
  for (const waitMs of [3_000, 6_000, 12_000, 12_000]) {
    stage.connect();
    expect(types(stage.pass(waitMs - 1))).not.toContain('leave');
    expect(types(stage.pass(1))).toEqual(expect.arrayContaining(['leave', 'connect']));
  }
  expect(placesOf(stage)).toEqual([0, 1, 2, 3, 4]);
});

test('a document whose core is gone says so where no other one answers', () => {
  const { stage, handle } = opened();
  stage.die();
  stage.connect();
  stage.pass(1_000);
  stage.connect();
  expect(stage.of('lost')).toEqual([]);
  stage.pass(2_000);
  expect(stage.of('lost')).toMatchObject([{ handle, error: { code: 'engine' } }]);
  stage.work();
  stage.reopen();
  expect(stage.of('lost')).toHaveLength(1);
});

test('a page that comes back is not told at once that its core is late', () => {
  const { stage } = opened();
  stage.survive();
  stage.step({ type: 'hide' });
  stage.log = [];
  stage.step({ type: 'show' });
  stage.connect();
  stage.pass(3_000);
  stage.connect();
  stage.pass(5_999);
  expect(stage.of('lost')).toEqual([]);
  stage.pass(1);
  expect(stage.of('lost')).toHaveLength(1);
});

test('where the browser gives no locks a document does not stay online', () => {
  const { stage } = opened();
  stage.die();
  stage.pass(10_000);
  expect(stage.of('lost')).toEqual([]);
  stage.pass(10_000);
  expect(stage.of('lost')).toMatchObject([{ error: { code: 'engine' } }]);
});

test('a page to be loaded anew asks for workers ever more seldom', () => {
  const { stage } = opened();
  stage.die();
  stage.log = [];
  for (let passed = 0; passed < 3_600; passed++) {
    const before = stage.of('connect').length;
    stage.pass(1_000);
    if (stage.of('connect').length === before) continue;
    stage.step({ type: 'refused', core: stage.core, reason: 'another build', joining: undefined });
  }
  expect(stage.of('connect').length).toBeLessThan(80);
  expect(types(stage.step({ type: 'visible' }))).toContain('connect');
});

test('no core is started where one has ended, whatever it ended of', () => {
  const { stage } = opened();
  stage.die();
  stage.connect();
  stage.step({ type: 'died', core: stage.core, reason: 'no memory' });
  stage.call('open', { handle: stage.tab.newHandle() });
  stage.connect();
  stage.step({ type: 'elsewhere', core: stage.core });
  stage.connect();
  stage.step({ type: 'refused', core: stage.core, reason: 'gone', joining: 'https://a/' });
  expect(placesOf(stage)).toEqual([0, 1, 2, 3, 4]);
});

test('all tabs of a core meet again behind the place that it had', () => {
  const stage = new Stage();
  stage.call('open', { handle: stage.tab.newHandle() });
  stage.step({ type: 'connected', core: stage.core, place: 6 });
  stage.step({ type: 'welcome', core: stage.core, lock: 'lock' });
  stage.die();
  expect(placesOf(stage)).toEqual([0, 7]);
});

test('what an earlier core says is not believed, but for its answers', () => {
  const { stage } = opened();
  const before = stage.core;
  stage.survive();
  expect(stage.step({ type: 'gone', core: before })).toEqual([]);
  expect(stage.step({ type: 'elsewhere', core: before })).toEqual([]);
});

test('one that cannot be joined is replaced by ours, unless it is at work', () => {
  const stage = new Stage();
  const call = stage.call('open', { handle: stage.tab.newHandle() });
  stage.step({ type: 'refused', core: stage.core, reason: '404', joining: 'a' });
  expect(stage.of('connect').at(-1)).toMatchObject({ unjoinable: 'a' });
  stage.connect();
  stage.step({ type: 'elsewhere', core: stage.core });
  expect(stage.errors(call)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
});

test('W7: a core that gives way ends our page server, and is sought again', () => {
  const { stage, handle } = opened();
  serve(stage);
  const replaced = stage.step({ type: 'replaced', core: stage.core });
  expect(types(replaced)).toEqual(expect.arrayContaining(['leave', 'end']));
  expect(stage.of('lost').at(-1)).toMatchObject({ handle, error: expect.any(EngineError) });
  expect(types(stage.pass(500))).toContain('connect');
});

test('no sync waits for a server where there is no engine, as in a page to be loaded anew', () => {
  const { stage, handle } = opened();
  const waiting = stage.call('sync', { handle }, false);
  stage.step({ type: 'replaced', core: stage.core });
  const failed = [{ code: 'engine', outcome: 'none', last: true }];
  expect(stage.errors(waiting)).toEqual(failed);
  const later = stage.call('sync', { handle }, false);
  stage.step({ type: 'refused', core: stage.core, reason: 'load anew', joining: undefined });
  expect(stage.errors(later)).toEqual(failed);
});

test('W22: in the back/forward cache nothing is held; then all is asked again', () => {
  const { stage, handle } = opened();
  serve(stage);
  const call = stage.call('mutate', { handle, name: 'm' });
  expect(types(stage.step({ type: 'hide' }))).toEqual(['leave', 'end', 'letGo']);
  stage.step({ type: 'show' });
  stage.work().reopen();
  expect(stage.posted('mutate').map((it) => it.call)).toEqual([call, call]);
});

test('W22: what comes late of a core that was left does not bring the tab back', () => {
  const stage = new Stage();
  stage.call('open', { handle: stage.tab.newHandle() });
  stage.step({ type: 'hide' });
  const { core } = stage;
  stage.step({ type: 'refused', core, reason: '404', joining: undefined });
  expect(types(stage.pass(20_000))).not.toContain('connect');
  expect(types(stage.step({ type: 'show' }))).toContain('connect');
});

test('M6: a tab that is looked at again tries at once what waits for a pause to end', () => {
  const { stage } = opened();
  stage.die();
  stage.step({ type: 'refused', core: stage.core, reason: '404', joining: undefined });
  expect(types(stage.step({ type: 'visible' }))).toContain('connect');
});

test('M6: so does one that is online again', () => {
  const { stage } = opened();
  stage.die();
  stage.step({ type: 'refused', core: stage.core, reason: '404', joining: undefined });
  expect(types(stage.step({ type: 'online' }))).toContain('connect');
});

test.each(['visible', 'online'] as const)('M6: the core of a tab is told: %s', (type) => {
  const { stage } = opened();
  // It looks after its servers.
  stage.step({ type });
  expect(stage.posted('nudge')).toHaveLength(1);
});

test('W16: the core is told of what was heard, now and then', () => {
  const { stage } = opened();
  const heard = (size: number) => stage.step({ type: 'heard', core: stage.core, size });
  for (let list = 0; list < 16; list++) heard(100);
  expect(stage.posted('heard')).toEqual([{ lists: 16 }]);
  heard(100);
  heard(70_000);
  expect(stage.posted('heard').slice(1)).toEqual([{ lists: 2 }]);
});
