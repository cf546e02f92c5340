import { expect, test } from 'vitest';
import {
  Lending,
  type LendingEffect,
  type LendingInput,
  type LendingNews,
} from '../src/lending.js';

const SEEDS = 100;
const ACTIONS = 120;

/** By when somebody serves, once scripts load: a pause, a load that hangs, and another one. */
const SERVED_MS = 80_000;

/** How long a message of a worker, or a lock, may take to reach its tab. */
const HOP_MS = 50;

/** What becomes of a worker: it loads, says that it cannot, or says nothing. */
type Fate = 'loads' | 'fails' | 'hangs';

interface Worker {
  readonly number: number;
  state: 'loading' | 'waiting' | 'serving';
  /** The core that has a way to it. */
  lentTo?: object | undefined;
}

/** A tab whose page server, if it has one, is in a worker; with its end of the two locks. */
class Tab {
  readonly lending = new Lending();
  worker: Worker | undefined;
  /** Its place in the queue, which is also the turn once it is the first. */
  turn: { isHeld: boolean } | undefined;
}

/** The tabs of a site, one core that comes and goes, and the two locks, from one seed. */
class Site {
  readonly #seed: number;
  #state: number;
  #now = 0;
  #core: object | undefined = {};
  /** In the order in which they wait. */
  #queue: Tab[] = [];
  #tabs: Tab[] = [];
  #timers: { readonly at: number; run(): void }[] = [];
  #fates: readonly Fate[] = ['loads', 'fails', 'hangs'];

  constructor(seed: number) {
    this.#seed = seed;
    this.#state = seed;
  }

  below(bound: number): number {
    // The generator of Lehmer.
    this.#state = (this.#state * 48271 + 11) % 2147483647;
    return this.#state % bound;
  }

  run(): void {
    for (let action = 0; action < ACTIONS; action++) this.#act();
    this.#fates = ['loads'];
    if (this.#tabs.length === 0) this.#open();
    if (!this.#core) this.#exchangeCore();
    this.#pass(SERVED_MS);
    const serving = this.#tabs.filter(({ worker }) => worker?.state === 'serving');
    expect(serving.length, this.#where('somebody serves')).toBe(1);
    const ready = this.#tabs.filter(({ worker }) => worker?.state === 'waiting');
    const readyCount = Math.min(1, this.#tabs.length - 1);
    expect(ready.length, this.#where('the next one is loaded')).toBe(readyCount);
    for (const { worker } of [...serving, ...ready]) {
      expect(worker!.lentTo, this.#where('the core has a way to it')).toBe(this.#core);
    }
  }

  #act(): void {
    const tab = this.#tabs[this.below(Math.max(1, this.#tabs.length))];
    switch (this.below(8)) {
      case 0:
      case 1:
        if (this.#tabs.length < 5) this.#open();
        break;
      case 2:
        if (tab) this.#close(tab);
        break;
      case 3:
        this.#exchangeCore();
        break;
      case 4:
        if (tab?.worker) this.#hear(tab, { type: 'broke', worker: tab.worker.number });
        break;
      case 5:
        // Into the back/forward cache and back.
        if (tab) {
          this.#step(tab, { type: 'unwanted' });
          this.#step(tab, { type: 'stop' });
          this.#judge();
          if (this.#core) this.#step(tab, { type: 'wanted' });
        }
        break;
      default:
        this.#pass(this.below(20_000));
    }
    this.#judge();
  }

  #open(): void {
    const tab = new Tab();
    this.#tabs.push(tab);
    this.#step(tab, { type: 'expected' });
    if (this.#core) this.#step(tab, { type: 'wanted' });
  }

  #close(tab: Tab): void {
    this.#tabs = this.#tabs.filter((other) => other !== tab);
    tab.worker = undefined;
    this.#letGo(tab);
    this.#grant();
  }

  #exchangeCore(): void {
    for (const tab of this.#tabs) this.#step(tab, { type: 'unwanted' });
    this.#core = this.#core && this.below(2) ? undefined : {};
    if (!this.#core) return;
    for (const tab of this.#tabs) this.#step(tab, { type: 'wanted' });
  }

  #pass(ms: number): void {
    const until = this.#now + ms;
    for (;;) {
      const due = this.#tabs.map((tab) => ({
        at: Math.max(this.#now, tab.lending.dueAt),
        run: () => this.#step(tab, { type: 'wake' }),
      }));
      const next = [...this.#timers, ...due].sort((a, b) => a.at - b.at)[0];
      if (!next || next.at > until) break;
      this.#now = next.at;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      next.run();
      this.#judge();
    }
    this.#now = until;
  }

  /**
   * What a worker says is heard a little later, whatever has become of it. Of a lock nothing is
   * heard any more by whoever has given it up.
   */
  #hear(tab: Tab, news: LendingNews): void {
    const { turn } = tab;
    const run = (): void => {
      const isOver = news.type === 'turn' && tab.turn !== turn;
      if (this.#tabs.includes(tab) && !isOver) this.#step(tab, news);
    };
    this.#timers.push({ at: this.#now + this.below(HOP_MS), run });
  }

  #step(tab: Tab, input: LendingInput): void {
    for (const effect of tab.lending.step(this.#now, input)) this.#perform(tab, effect);
    this.#grant();
  }

  #perform(tab: Tab, effect: LendingEffect): void {
    switch (effect.type) {
      case 'queue':
        expect(tab.turn, this.#where('queues once')).toBeUndefined();
        tab.turn = { isHeld: false };
        this.#queue.push(tab);
        break;
      case 'endTurn':
        this.#letGo(tab);
        break;
      case 'spawn': {
        const worker: Worker = { number: effect.worker, state: 'loading' };
        expect(tab.worker, this.#where('one worker')).toBeUndefined();
        tab.worker = worker;
        const fate = this.#fates[this.below(this.#fates.length)];
        const at = this.#now + this.below(4_000);
        if (fate !== 'hangs') this.#timers.push({ at, run: () => this.#load(tab, worker, fate!) });
        break;
      }
      case 'end':
        expect(tab.worker?.number, this.#where('ends its own')).toBe(effect.worker);
        tab.worker = undefined;
        break;
      case 'lend':
        expect(this.#core, this.#where('lends to a core')).toBeDefined();
        expect(tab.worker?.number, this.#where('lends its own')).toBe(effect.worker);
        tab.worker!.lentTo = this.#core;
        break;
      case 'lendEnded':
        expect(tab.worker, this.#where('has none of its own')).toBeUndefined();
        expect(this.#core, this.#where('says that it ended to a core')).toBeDefined();
        break;
      case 'cannotLend':
        expect(this.#core, this.#where('tells a core')).toBeDefined();
    }
  }

  #load(tab: Tab, worker: Worker, fate: Fate): void {
    if (tab.worker !== worker) return;
    const { number } = worker;
    if (fate === 'loads') worker.state = 'waiting';
    this.#hear(
      tab,
      fate === 'loads'
        ? { type: 'loaded', worker: number }
        : { type: 'unloaded', worker: number, reason: '404' },
    );
  }

  #letGo(tab: Tab): void {
    tab.turn = undefined;
    this.#queue = this.#queue.filter((other) => other !== tab);
  }

  /** Both locks go to who waits longest. */
  #grant(): void {
    const first = this.#queue[0];
    if (first?.turn && !first.turn.isHeld) {
      first.turn.isHeld = true;
      this.#hear(first, { type: 'turn' });
    }
    const workers = this.#tabs.filter(({ worker }) => worker);
    const next = workers.find(({ worker }) => worker!.state === 'waiting');
    if (!next || workers.some(({ worker }) => worker!.state === 'serving')) return;
    next.worker!.state = 'serving';
    this.#hear(next, { type: 'serves', worker: next.worker!.number });
  }

  #judge(): void {
    for (const { worker, turn } of this.#tabs) {
      const isComing = worker?.state === 'loading' || worker?.state === 'waiting';
      expect(isComing && !turn?.isHeld, this.#where('comes without its turn')).toBe(false);
    }
  }

  #where(what: string): string {
    return `seed ${this.#seed}, at ${this.#now} ms: ${what}`;
  }
}

test('whoever fails, hangs or leaves, one tab serves in the end and one more is ready', () => {
  for (let seed = 1; seed <= SEEDS; seed++) new Site(seed).run();
}, 60_000);

test('a core is told that what it was lent has ended, and lent what serves once more', () => {
  const lending = new Lending();
  const types = (input: LendingInput): string[] => lending.step(0, input).map(({ type }) => type);
  expect(types({ type: 'wanted' })).toEqual(['queue']);
  expect(types({ type: 'turn' })).toEqual(['spawn', 'lend']);
  expect(types({ type: 'loaded', worker: 1 })).toEqual([]);
  expect(types({ type: 'serves', worker: 1 })).toEqual(['endTurn']);
  expect(types({ type: 'wanted' })).toEqual(['lend']);
  expect(types({ type: 'broke', worker: 1 })).toEqual(['end', 'lendEnded']);
  expect(types({ type: 'wanted' })).toEqual([]);
});

test('a tab gets in line while it looks for a core, which is lent what has started by then', () => {
  const lending = new Lending();
  const step = (input: LendingInput) => lending.step(0, input);
  const types = (input: LendingInput): string[] => step(input).map(({ type }) => type);
  expect(types({ type: 'expected' })).toEqual(['queue']);
  expect(types({ type: 'expected' })).toEqual([]);
  expect(types({ type: 'turn' })).toEqual(['spawn']);
  expect(types({ type: 'wanted' })).toEqual(['lend']);
  const failing = new Lending();
  failing.step(0, { type: 'expected' });
  failing.step(0, { type: 'noTurn', reason: 'not now' });
  const told = failing.step(0, { type: 'wanted' });
  expect(told, 'a core is told why').toEqual([{ type: 'cannotLend', reason: 'not now' }]);
});

test('two turns bring one worker, and one that nobody waits for brings none', () => {
  const lending = new Lending();
  const types = (input: LendingInput): string[] => lending.step(0, input).map(({ type }) => type);
  expect(types({ type: 'wanted' })).toEqual(['queue']);
  expect(types({ type: 'stop' })).toEqual(['endTurn']);
  expect(types({ type: 'turn' })).toEqual([]);
  expect(types({ type: 'wanted' })).toEqual(['queue']);
  expect(types({ type: 'turn' })).toEqual(['spawn', 'lend']);
  expect(types({ type: 'turn' })).toEqual([]);
});

test('a worker is lent as it is started, once to each core, and its end is told of', () => {
  const lending = new Lending();
  const types = (input: LendingInput): string[] => lending.step(0, input).map(({ type }) => type);
  types({ type: 'wanted' });
  types({ type: 'unwanted' });
  expect(types({ type: 'turn' })).toEqual(['spawn']);
  expect(types({ type: 'wanted' })).toEqual(['lend']);
  types({ type: 'unwanted' });
  expect(types({ type: 'loaded', worker: 1 })).toEqual([]);
  expect(types({ type: 'wanted' })).toEqual(['lend']);
  const ended = ['end', 'endTurn', 'lendEnded', 'cannotLend'];
  expect(types({ type: 'unloaded', worker: 1, reason: '404' })).toEqual(ended);
});

test('a tab that waits for its turn lends without it where a core misses a page server', () => {
  const lending = new Lending();
  const types = (input: LendingInput): string[] => lending.step(0, input).map(({ type }) => type);
  expect(types({ type: 'missed' })).toEqual([]);
  expect(types({ type: 'wanted' })).toEqual(['queue']);
  expect(types({ type: 'missed' })).toEqual(['spawn', 'lend']);
  expect(types({ type: 'missed' })).toEqual([]);
  expect(types({ type: 'turn' })).toEqual([]);
  expect(types({ type: 'loaded', worker: 1 })).toEqual([]);
  expect(types({ type: 'serves', worker: 1 })).toEqual(['endTurn']);
});

test('a core is told with that why a page server failed', () => {
  const lending = new Lending();
  const step = (input: LendingInput) => lending.step(0, input);
  step({ type: 'wanted' });
  step({ type: 'turn' });
  step({ type: 'serves', worker: 1 });
  const why = { type: 'failed', kind: 'full', reason: 'no room' } as const;
  const [, ended] = step({ type: 'broke', worker: 1, why });
  expect(ended).toEqual({ type: 'lendEnded', why });
});
