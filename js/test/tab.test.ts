import { expect, test } from 'vitest';
import { wordOnServer } from '../src/document.js';
import {
  EngineError,
  InvalidOptionError,
  QueryError,
  RejectedError,
  StorageError,
} from '../src/errors.js';
import type { Answer, EntryId, Memo, News, ToCore } from '../src/messages.js';
import type { Status } from '../src/status.js';
import type { CallKind, Effect, Input } from '../src/step.js';
import { Tab } from '../src/tab.js';

const STATUS = {} as Status;

const COPY = new Uint8Array(16).fill(2);

/** What a core says of a document with this memo. */
const standing = (memo: Partial<Memo>) => ({
  status: STATUS,
  memo: { word: 0, copy: COPY, head: undefined, ...memo },
});
const opens = (memo: Partial<Memo> = {}): Answer => ({ type: 'opened', ...standing(memo) });
const stands = (memo: Partial<Memo> = {}): News => ({ type: 'status', ...standing(memo) });

const entry: EntryId = { journal: new Uint8Array(16), life: new Uint8Array(16).fill(1), lsn: 7 };

/** A tab with a clock, and what it did. */
class Stage {
  readonly tab = new Tab();
  now = 1000;
  alarm = Number.POSITIVE_INFINITY;
  core = 0;
  worker = 0;
  log: Effect[] = [];

  step(input: Input): Effect[] {
    const effects = [...this.tab.step(this.now, input)];
    for (const effect of effects) {
      if (effect.type === 'wake') this.alarm = effect.at;
      if (effect.type === 'connect') this.core = effect.core;
      if (effect.type === 'spawn') this.worker = effect.worker;
    }
    this.log.push(...effects);
    return effects;
  }

  /** Lets time pass, with a timer that comes when it was asked for. */
  pass(ms: number): Effect[] {
    const from = this.log.length;
    const until = this.now + ms;
    while (this.alarm <= until) {
      this.now = Math.max(this.now, this.alarm);
      this.alarm = Number.POSITIVE_INFINITY;
      this.step({ type: 'wake' });
    }
    this.now = until;
    return this.log.slice(from);
  }

  call<Kind extends CallKind>(kind: Kind, message: object, limited = true): number {
    const call = this.tab.newCall();
    const whole = { ...message, call } as ToCore[CallKind];
    this.step({ type: 'call', kind, message: whole, limited });
    return call;
  }

  answer(call: number, answer: Answer): Effect[] {
    return this.step({ type: 'answer', call, answer });
  }

  /** The core tells news of a document; `core` if it is not the present one. */
  news(input: { handle: number; news: News; core?: number }): Effect[] {
    return this.step({ type: 'news', core: this.core, ...input });
  }

  connect(): Effect[] {
    const place = this.of('connect').at(-1)?.place ?? 0;
    return this.step({ type: 'connected', core: this.core, place });
  }

  /** A core greets, and a page server is at hand. */
  work(): this {
    this.connect();
    this.step({ type: 'welcome', core: this.core, lock: `lock ${this.core}` });
    this.step({ type: 'reach', core: this.core, server: 1 });
    return this;
  }

  /** The core dies, and another one is there. */
  survive(): this {
    this.die();
    return this.work();
  }

  /** The page is put aside, and there is another core when it comes back. */
  comeBack(): this {
    this.step({ type: 'hide' });
    this.step({ type: 'show' });
    return this.work();
  }

  /** The core opens again this document, if it was asked to since `log` began. */
  reopens(handle: number): void {
    const open = this.posted('open')
      .reverse()
      .find((it) => it.handle === handle);
    if (open) this.answer(open.call as number, opens());
  }

  /** The core dies, and there is another one, however long that takes. */
  dieOfIt(): void {
    this.log = [];
    this.step({ type: 'gone', core: this.core });
    this.pass(8_100);
    this.work();
  }

  die(): void {
    this.step({ type: 'gone', core: this.core });
    this.pass(600);
  }

  /** A document is open. */
  open(): number {
    const handle = this.tab.newHandle();
    const call = this.call('open', { handle });
    if (this.posted('open').length === 0) this.work();
    this.answer(call, opens());
    return handle;
  }

  /** The core opens again what it was asked to. */
  reopen(memo?: Partial<Memo>): void {
    const [open] = this.posted('open').slice(-1);
    this.answer(open!.call as number, opens(memo));
  }

  of<Type extends Effect['type']>(type: Type): Extract<Effect, { type: Type }>[] {
    return this.log.filter((it) => it.type === type) as Extract<Effect, { type: Type }>[];
  }

  posted(kind: keyof ToCore): Record<string, unknown>[] {
    const posts = this.of('post').filter((it) => it.kind === kind);
    return posts.map(({ message }) => message as Record<string, unknown>);
  }

  /** The errors that a call was told, and whether each was the last word. */
  errors(call: number): { code: string; outcome: string; last: boolean }[] {
    return this.of('settle').flatMap((it) => {
      if (it.call !== call || !('error' in it.answer)) return [];
      const { code, outcome } = it.answer.error;
      return [{ code, outcome, last: it.last }];
    });
  }
}

const opened = (): { stage: Stage; handle: number } => {
  const stage = new Stage();
  const handle = stage.open();
  return { stage, handle };
};

/** A document that has a name, so that it can be deleted by that. */
const openedToDelete = (): { stage: Stage; handle: number } => {
  const stage = new Stage();
  const handle = stage.tab.newHandle();
  const open = stage.call('open', { handle, document: 'd', user: '' });
  stage.work().answer(open, opens());
  return { stage, handle };
};

/** Turns of a page server's worker up to the one in which it serves. */
const serve = (stage: Stage): void => {
  stage.step({ type: 'turn' });
  stage.step({ type: 'loaded', worker: stage.worker });
  stage.step({ type: 'serves', worker: stage.worker });
};

const types = (effects: readonly Effect[]): string[] => effects.map(({ type }) => type);

// --- page server ---------------------------------------------------------------------------------

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
  expect(types(had)).toEqual(['endTurn', 'lend']);
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

// --- live queries and documents -----------------------------------------------------------------

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

/** What the last `open` says of the server. */
const saidOf = (stage: Stage): number => stage.posted('open').at(-1)!.word as number;

const setConnected = (stage: Stage, handle: number, connected: boolean, now = 0): void => {
  const word = wordOnServer(connected, now);
  stage.step({ type: 'tell', kind: 'setConnected', message: { handle, word } });
};

test('who stays away from the server says so with the open', () => {
  const { stage, handle } = opened();
  setConnected(stage, handle, false);
  stage.survive();
  expect(saidOf(stage)).toBe(1);
});

test('what is said of the server counts on from what any tab has said', () => {
  const { stage, handle } = opened();
  stage.news({ handle, news: stands({ word: 7 }) });
  stage.comeBack().reopen({ word: 7 });
  expect(saidOf(stage)).toBe(7);
  for (const [connected, word] of [
    [false, 9],
    [true, 10],
    [true, 12],
    [false, 13],
  ] as const) {
    setConnected(stage, handle, connected);
    stage.comeBack().reopen({ word });
    expect(saidOf(stage)).toBe(word);
  }
});

test('a tab that has heard of no other says something later than what others said before', () => {
  const [here, elsewhere] = [opened(), opened()];
  for (let at = 1; at < 4; at += 1) setConnected(elsewhere.stage, elsewhere.handle, at === 2, at);
  elsewhere.stage.survive();
  setConnected(here.stage, here.handle, true, 4);
  here.stage.survive();
  expect(saidOf(here.stage)).toBeGreaterThan(saidOf(elsewhere.stage));
  // The clock may be set back after that.
  setConnected(here.stage, here.handle, false, 1);
  here.stage.survive();
  expect(saidOf(here.stage)).toBe(9);
});

test('a core that is there is told the word that the next one would be', () => {
  const { stage, handle } = opened();
  stage.news({ handle, news: stands({ word: 8 }) });
  setConnected(stage, handle, false, 3);
  expect(stage.posted('setConnected').at(-1)).toEqual({ handle, word: 9 });
  setConnected(stage, handle, true, 6);
  expect(stage.posted('setConnected').at(-1)).toEqual({ handle, word: 12 });
});

test('a status that was under way when the app spoke does not take its word back', () => {
  const { stage, handle } = opened();
  setConnected(stage, handle, false);
  stage.news({ handle, news: stands({ word: 0 }) });
  stage.survive();
  expect(saidOf(stage)).toBe(1);
});

test('a document that is being closed keeps nobody away from the server any more', () => {
  const { stage, handle } = opened();
  setConnected(stage, handle, false);
  stage.call('close', { handle });
  stage.survive();
  expect(saidOf(stage)).toBe(0);
});

test('a token is given before its document is open, as where a local one is handed over', () => {
  const stage = new Stage();
  const handle = stage.tab.newHandle();
  stage.call('open', { handle });
  stage.work();
  const news = { type: 'tokenWanted' } as const;
  expect(types(stage.news({ handle, news }))).toEqual(['news']);
  stage.step({ type: 'tell', kind: 'token', message: { handle, token: 'secret' } });
  expect(stage.posted('token')).toEqual([{ handle, token: 'secret' }]);
});

test('a token is given to a core that has the document still to open anew', () => {
  const { stage, handle } = opened();
  stage.survive();
  stage.step({ type: 'tell', kind: 'token', message: { handle, token: 'secret' } });
  expect(stage.posted('token')).toHaveLength(1);
});

test('nothing else is said of a document that is not open', () => {
  const stage = new Stage();
  const handle = stage.tab.newHandle();
  stage.call('open', { handle });
  stage.work();
  expect(stage.news({ handle, news: stands() })).toEqual([]);
  stage.step({ type: 'tell', kind: 'listenRejections', message: { handle } });
  expect(stage.posted('listenRejections')).toEqual([]);
});

// --- outcomes -----------------------------------------------------------------------------------

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

test('what a core did not get to the disk is lost: the next one may record before it', () => {
  const { stage, handle } = opened();
  stage.news({ handle, news: stands({ head: { ...entry, lsn: 9 } }) });
  stage.call('mutate', { handle, name: 'm' });
  stage.survive().reopen({ head: { ...entry, lsn: 4 } });
  stage.survive().reopen({ head: { ...entry, lsn: 5 } });
  expect(since(stage)).toEqual([4, undefined]);
});

test('a head of another journal says nothing of where a call can have been recorded', () => {
  const { stage, handle } = opened();
  stage.news({ handle, news: stands({ head: { ...entry, lsn: 9 } }) });
  stage.call('mutate', { handle, name: 'm' });
  stage.survive().reopen({ head: { ...entry, journal: COPY, lsn: 4 } });
  expect(since(stage)).toEqual([9, undefined]);
});

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

// --- time ---------------------------------------------------------------------------------------

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

// --- the core -----------------------------------------------------------------------------------

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

/** How a call ended, if it did. */
const endOf = (stage: Stage, call: number): string | undefined =>
  stage.of('settle').find((it) => it.call === call && it.last)?.answer.type;

/** The documents that the core was asked to open. */
const askedToOpen = (stage: Stage): unknown[] => stage.posted('open').map(({ handle }) => handle);

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
  stage.call('open', { handle: others[1] });
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
