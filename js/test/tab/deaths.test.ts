import { expect, test } from 'vitest';
import { askedToOpen, endOf, entry, opened, openedToDelete, opens, Stage } from './stage.js';

/** A document that kills the core whenever it is opened again, and one that awaits a verdict. */
const deadly = () => {
  const { stage, handle } = opened();
  const other = stage.open();
  const confirming = stage.call('mutate', { handle: other, name: 'm' });
  stage.answer(confirming, { type: 'durable', entry });
  const sync = stage.call('sync', { handle: other }, false);
  stage.dieOfIt();
  for (let deaths = 0; deaths < 3; deaths++) {
    expect(askedToOpen(stage)).toContain(handle);
    stage.reopens(other);
    for (const call of [confirming, sync]) expect(stage.errors(call)).toEqual([]);
    stage.dieOfIt();
  }
  return { stage, handle, other, innocent: [confirming, sync] };
};

test('W6: a document that kills three cores as it is opened again is left shut for a while', () => {
  const { stage, handle, other, innocent } = deadly();
  const others = [other, stage.tab.newHandle()];
  stage.call('open', { handle: others[1], document: 'another' });
  expect(askedToOpen(stage)).toEqual(others);
  expect(stage.of('lost')).toMatchObject([{ handle, error: { code: 'engine' } }]);
  stage.reopens(other);
  const asked = stage.of('post').map(({ message }) => (message as { call: number }).call);
  expect(asked).toEqual(expect.arrayContaining(innocent));
  const query = stage.call('query', { handle });
  stage.pass(60_000);
  expect(stage.errors(query)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
  expect(askedToOpen(stage)).toEqual(others);
  // Nor is the next core told, whatever this one dies of.
  stage.dieOfIt();
  expect(askedToOpen(stage)).toEqual([other]);
  stage.reopens(other);
  for (const call of innocent) expect(stage.errors(call)).toEqual([]);
  stage.pass(60_000);
  expect(askedToOpen(stage)).toEqual([other, handle]);
});

test('W6: one that is left shut is closed in time, however long more is wanted of it', () => {
  const { stage, handle, other } = deadly();
  stage.reopens(other);
  const call = stage.call('mutate', { handle, name: 'm' });
  stage.pass(1_000);
  const close = stage.call('close', { handle });
  stage.pass(9_500);
  expect(endOf(stage, close)).toBe('done');
  expect(stage.errors(call)).toMatchObject([{ last: false }, { outcome: 'unknown', last: true }]);
});

test('W6: one that is left shut is tried again by who looks at its tab, and then by itself', () => {
  const { stage, handle, other, innocent } = deadly();
  stage.reopens(other);
  for (let times = 0; times < 3; times++) {
    stage.step({ type: 'visible' });
    expect(askedToOpen(stage)).toEqual([other, handle]);
    stage.dieOfIt();
    expect(askedToOpen(stage)).toEqual([other]);
    stage.reopens(other);
  }
  for (const call of innocent) expect(stage.errors(call)).toEqual([]);
  stage.pass(60_000);
  stage.step({ type: 'visible' });
  const query = stage.call('query', { handle: other });
  expect(stage.posted('query')).toEqual([]);
  stage.pass(2_000);
  expect(stage.posted('query')).toMatchObject([{ call: query }]);
  stage.reopens(handle);
  stage.dieOfIt();
  expect(askedToOpen(stage)).toEqual([handle, other]);
});

test('W6: one that is left shut stays so where a network comes, which says nothing of it', () => {
  const { stage, handle, other } = deadly();
  stage.reopens(other);
  for (let times = 0; times < 3; times++) stage.step({ type: 'online' });
  expect(askedToOpen(stage)).toEqual([other]);
  // Nor does the next core open it.
  stage.step({ type: 'gone', core: stage.core });
  stage.log = [];
  stage.step({ type: 'online' });
  stage.pass(8_100);
  stage.work();
  expect(askedToOpen(stage)).toEqual([other]);
  stage.step({ type: 'visible' });
  expect(askedToOpen(stage)).toEqual([other, handle]);
});

test('W6: a tab without a core for a while tries again what killed the ones before', () => {
  const { stage, handle } = deadly();
  stage.step({ type: 'gone', core: stage.core });
  stage.pass(8_100);
  stage.step({ type: 'refused', core: stage.core, reason: '404', joining: undefined });
  stage.log = [];
  stage.pass(200_000);
  stage.work();
  stage.pass(2_000);
  expect(askedToOpen(stage)).toContain(handle);
});

/** Goal: calls of a tab keep their order. Method: all wait for a document that is opened alone. */
test('W6: what waits for a document that is opened alone is asked once that is handed over', () => {
  const { stage, handle } = opened();
  stage.open();
  const mutate = stage.call('mutate', { handle, name: 'm' });
  stage.dieOfIt();
  stage.dieOfIt();
  stage.reopens(handle);
  expect(stage.posted('mutate')).toEqual([]);
  const [open] = stage.posted('open').slice(-1);
  stage.answer(open!.call as number, { type: 'handingOver' });
  const sync = stage.call('sync', { handle }, false);
  const asked = stage.of('post').map(({ message }) => (message as { call: number }).call);
  expect(asked.slice(-2)).toEqual([mutate, sync]);
});

/** The same where its time is over, and the timer that tells of that comes late. */
test('W6: what waits for a document that is opened alone is asked before what comes later', () => {
  const { stage, handle } = opened();
  stage.open();
  const mutate = stage.call('mutate', { handle, name: 'm' });
  stage.dieOfIt();
  stage.dieOfIt();
  stage.reopens(handle);
  expect(stage.posted('mutate')).toEqual([]);
  stage.now += 2_100;
  const sync = stage.call('sync', { handle }, false);
  const asked = stage.of('post').map(({ message }) => (message as { call: number }).call);
  expect(asked.slice(-2)).toEqual([mutate, sync]);
});

test('W6: once a core died as it opened documents, the next one opens them one by one', () => {
  const { stage, handle } = opened();
  const others = [stage.open(), stage.open()];
  stage.dieOfIt();
  expect(askedToOpen(stage)).toEqual([handle, ...others]);
  const queries = others.map((other) => stage.call('query', { handle: other }));
  stage.reopens(others[0]!);
  stage.dieOfIt();
  for (const next of [handle, others[0], others[1]]) {
    expect(askedToOpen(stage).at(-1)).toBe(next);
    expect(stage.posted('query')).toEqual([]);
    stage.reopens(next!);
  }
  expect(stage.posted('query').map(({ call }) => call)).toEqual(queries);
});

test('W6: a document that takes its time holds the others up only for a while', () => {
  const { stage, handle } = opened();
  const other = stage.open();
  stage.dieOfIt();
  stage.reopens(other);
  stage.dieOfIt();
  const query = stage.call('query', { handle: other });
  expect(askedToOpen(stage)).toEqual([handle]);
  stage.pass(2_000);
  expect(askedToOpen(stage)).toEqual([handle, other]);
  stage.reopens(other);
  expect(stage.posted('query')).toMatchObject([{ call: query }]);
});

test('W6: a document is not the cause of deaths that come long after it was to be opened', () => {
  const { stage, handle } = opened();
  for (let deaths = 0; deaths < 5; deaths++) {
    stage.dieOfIt();
    expect(askedToOpen(stage)).toEqual([handle]);
    stage.pass(60_000);
  }
});

test('W6: a call that kills each core is found beside a document that is slow to open', () => {
  const { stage } = opened();
  const handle = stage.open();
  const call = stage.call('watch', { handle });
  let deaths = 0;
  while (endOf(stage, call) === undefined && deaths < 12) {
    stage.dieOfIt();
    deaths++;
    stage.pass(2_000);
    stage.reopens(handle);
  }
  expect(deaths).toBe(6);
  expect(stage.errors(call)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
});

/** The core dies, and says with its last words of which document. */
const dieOf = (stage: Stage, document: string): void => {
  stage.log = [];
  stage.step({ type: 'gone', core: stage.core });
  const culprit = { document, user: '' };
  stage.step({ type: 'died', core: stage.core, reason: 'BUG', culprit });
  stage.pass(8_100);
  stage.work();
};

test('W6: what another tab has open, and cores die of, is blamed on nothing in this one', () => {
  const { stage, handle } = openedToDelete();
  const confirming = stage.call('mutate', { handle, name: 'm' });
  stage.answer(confirming, { type: 'durable', entry });
  const calls = [
    confirming,
    stage.call('sync', { handle }, false),
    stage.call('open', { handle: stage.tab.newHandle(), document: 'e', user: '' }, false),
    stage.call('destroy', { document: 'f', user: '', force: true }, false),
  ];
  for (let deaths = 0; deaths < 9; deaths++) {
    dieOf(stage, 'of another tab');
    expect(askedToOpen(stage)).toContain(handle);
    for (const call of calls) expect(stage.errors(call)).toEqual([]);
    // However far it gets before the next one dies.
    if (deaths % 2 === 0) stage.reopens(handle);
  }
});

test.each(['open', 'destroy'] as const)(
  'W6: to %s the document that each core dies of is given up',
  (kind) => {
    const stage = new Stage();
    const message = { handle: stage.tab.newHandle(), document: 'd', user: '', force: true };
    const call = stage.call(kind, message, false);
    stage.work();
    for (let deaths = 0; deaths < 3; deaths++) {
      expect(stage.errors(call)).toEqual([]);
      dieOf(stage, 'd');
    }
    expect(stage.errors(call)).toMatchObject([{ code: 'engine', last: true }]);
  },
);

test('W6: what one core died of by its own word is not what the next ones die of', () => {
  const stage = new Stage();
  const message = { handle: stage.tab.newHandle(), document: 'd', user: '' };
  const call = stage.call('open', message, false);
  stage.work();
  dieOf(stage, 'of another tab');
  for (let deaths = 0; deaths < 3; deaths++) {
    expect(stage.errors(call)).toEqual([]);
    stage.dieOfIt();
    stage.pass(8_100);
    stage.work();
  }
  expect(stage.errors(call)).toMatchObject([{ code: 'engine', last: true }]);
});

test('W6: of documents that are opened at once the one that cores died of is known', () => {
  const { stage, handle } = openedToDelete();
  const other = stage.open();
  for (let deaths = 0; deaths < 3; deaths++) dieOf(stage, 'd');
  expect(stage.of('lost').at(-1)).toMatchObject({ handle, error: { code: 'engine' } });
  expect(askedToOpen(stage)).toEqual([other]);
});

/** A document that opens well and that each core dies of then, and another one. */
const deadlyOnceOpen = () => {
  const { stage, handle } = openedToDelete();
  const other = stage.open();
  for (let deaths = 0; deaths < 4; deaths++) {
    stage.pass(5_000);
    expect(stage.of('lost').filter((it) => it.handle === handle)).toHaveLength(deaths ? 1 : 0);
    dieOf(stage, 'd');
    stage.reopens(handle);
    stage.reopens(other);
  }
  return { stage, handle, other };
};

test('W6: a document that opens well and then kills four cores is given up for a while', () => {
  const { stage, handle, other } = deadlyOnceOpen();
  const error = { code: 'engine', message: expect.stringContaining('died each time') };
  expect(stage.of('lost').at(-1)).toMatchObject({ handle, error });
  expect(askedToOpen(stage)).toEqual([other]);
  const asked = stage.call('query', { handle: other });
  expect(stage.posted('query')).toMatchObject([{ call: asked }]);
  // What is asked of it waits: a mutation is told that it is late, and lost is none.
  const mutation = stage.call('mutate', { handle, name: 'm' });
  const query = stage.call('query', { handle });
  stage.pass(10_000);
  expect(stage.errors(query)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
  expect(stage.errors(mutation)).toMatchObject([{ code: 'not-durable-yet', last: false }]);
  stage.pass(110_000);
  expect(askedToOpen(stage)).toEqual([other, handle]);
  stage.reopens(handle);
  expect(stage.posted('mutate')).toMatchObject([{ call: mutation }]);
});

test.each<[string, (stage: Stage) => void]>([
  ['is looked at while there is no core', (stage) => stage.step({ type: 'visible' })],
  [
    'is put aside and comes back',
    (stage) => {
      stage.step({ type: 'hide' });
      stage.step({ type: 'show' });
    },
  ],
])('W6: what is left shut is tried again by a tab that %s', (_, look) => {
  const { stage, handle, other } = deadlyOnceOpen();
  stage.pass(5_000);
  stage.step({ type: 'gone', core: stage.core });
  stage.log = [];
  look(stage);
  stage.pass(8_100);
  stage.work();
  stage.reopens(handle);
  stage.reopens(other);
  expect(askedToOpen(stage)).toEqual([handle, other]);
});

test('W6: such a document is shut again at once where the next core dies of it too', () => {
  const { stage, handle, other } = deadlyOnceOpen();
  stage.step({ type: 'visible' });
  stage.reopens(handle);
  // A page that is put aside, or a core that dies of something else, says nothing of it.
  stage.comeBack();
  stage.reopens(handle);
  stage.reopens(other);
  dieOf(stage, 'of another tab');
  stage.reopens(handle);
  stage.reopens(other);
  expect(askedToOpen(stage)).toEqual([handle, other]);
  dieOf(stage, 'd');
  expect(askedToOpen(stage)).toEqual([other]);
  expect(stage.of('lost').at(-1)).toMatchObject({ handle, error: { code: 'engine' } });
});

test('W6: a document is not given up for deaths between which cores lived well with it', () => {
  const { stage, handle } = openedToDelete();
  for (let deaths = 0; deaths < 5; deaths++) {
    stage.pass(60_000);
    dieOf(stage, 'd');
    expect(askedToOpen(stage)).toEqual([handle]);
    stage.reopens(handle);
  }
});

test('W6: deaths that are far apart do not add up, however short a page is looked at', () => {
  const { stage, handle } = openedToDelete();
  for (let deaths = 0; deaths < 9; deaths++) {
    stage.step({ type: 'hide' });
    stage.now += 3_600_000;
    stage.step({ type: 'show' });
    stage.work();
    stage.reopens(handle);
    stage.pass(5_000);
    dieOf(stage, 'd');
    expect(askedToOpen(stage)).toEqual([handle]);
    stage.reopens(handle);
  }
});

test('W6: deaths a few minutes apart do add up, in pages that are looked at now and then', () => {
  const { stage, handle } = openedToDelete();
  for (let deaths = 0; deaths < 4; deaths++) {
    expect(askedToOpen(stage)).toContain(handle);
    stage.step({ type: 'hide' });
    stage.now += 300_000;
    stage.step({ type: 'show' });
    stage.work();
    stage.reopens(handle);
    stage.pass(5_000);
    dieOf(stage, 'd');
    stage.reopens(handle);
  }
  expect(askedToOpen(stage)).toEqual([]);
});

test('W6: a call that kills each core is given up before its document, and once', () => {
  const { stage, handle } = openedToDelete();
  const call = stage.call('query', { handle }, false);
  const kill = (): void => {
    dieOf(stage, 'd');
    stage.reopens(handle);
  };
  for (let deaths = 0; deaths < 3; deaths++) {
    expect(stage.errors(call)).toEqual([]);
    kill();
  }
  expect(stage.errors(call)).toEqual([{ code: 'engine', outcome: 'none', last: true }]);
  expect(askedToOpen(stage)).toEqual([handle]);
  // It was not that call alone.
  kill();
  expect(askedToOpen(stage)).toEqual([]);
});

test('W6: a call that kills each core is given up before the document, in other tabs too', () => {
  const [asking, silent] = [openedToDelete(), openedToDelete()];
  const call = asking.stage.call('query', { handle: asking.handle }, false);
  for (let deaths = 0; deaths < 3; deaths++) {
    expect(asking.stage.errors(call)).toEqual([]);
    for (const { stage, handle } of [asking, silent]) {
      dieOf(stage, 'd');
      stage.reopens(handle);
    }
  }
  expect(asking.stage.errors(call)).toMatchObject([{ code: 'engine', last: true }]);
  for (const { stage, handle } of [asking, silent]) {
    expect(askedToOpen(stage)).toEqual([handle]);
    expect(stage.of('lost')).toMatchObject([{ error: { message: 'BUG' } }]);
  }
});

test('W6: nor is it given up first in a tab that is slow to open it again', () => {
  const { stage, handle } = openedToDelete();
  dieOf(stage, 'd');
  stage.reopens(handle);
  // The tab that asks has it open by then, and this one at the first of these deaths alone.
  for (let deaths = 1; deaths < 3; deaths++) dieOf(stage, 'd');
  expect(askedToOpen(stage)).toEqual([handle]);
  expect(stage.of('lost')).toMatchObject([{ error: { message: 'BUG' } }]);
  // It was not that call alone.
  dieOf(stage, 'd');
  expect(askedToOpen(stage)).toEqual([]);
  expect(stage.of('lost').at(-1)).toMatchObject({ handle, error: { code: 'engine' } });
});

test('W6: a document that kills each core as it is opened again has no such grace', () => {
  const { stage, handle } = openedToDelete();
  stage.dieOfIt();
  for (let deaths = 0; deaths < 3; deaths++) {
    expect(askedToOpen(stage)).toEqual([handle]);
    dieOf(stage, 'd');
  }
  expect(askedToOpen(stage)).toEqual([]);
});

test('W6: a live query that shows its rows does not keep its document from being given up', () => {
  const { stage, handle } = openedToDelete();
  const watch = stage.call('watch', { handle });
  for (let deaths = 0; deaths < 4; deaths++) {
    expect(stage.posted('watch').at(-1)).toMatchObject({ call: watch });
    stage.answer(watch, { type: 'rows', rows: {} as never });
    dieOf(stage, 'd');
    stage.reopens(handle);
  }
  expect(askedToOpen(stage)).toEqual([]);
  const told = stage.errors(watch);
  expect(told.at(-1)).toEqual({ code: 'engine', outcome: 'none', last: false });
});

test('W6: all handles of a document are given up, however far each of them is', () => {
  const { stage, handle } = openedToDelete();
  const second = stage.tab.newHandle();
  stage.answer(stage.call('open', { handle: second, document: 'd', user: '' }), opens());
  for (let deaths = 0; deaths < 4; deaths++) {
    expect(askedToOpen(stage)).toContain(handle);
    dieOf(stage, 'd');
    stage.reopens(handle);
  }
  expect(askedToOpen(stage)).toEqual([]);
});
