// An authority that gives runs of workflows to whoever handles them, and keeps what they remember:
// what crate `document` does, in as few words as a test needs. Whoever handles them can be killed.

import { Reader } from '../src/codec.js';
import type { Caller } from '../src/connection.js';
import type { Ending } from '../src/database.js';
import { doctype, EVENTS } from '../src/doctype.js';
import {
  command,
  type GivenRun,
  type HandleOptions,
  type Handling,
  stream,
  type WorkflowContext,
  workflow,
} from '../src/events.js';
import type { Row } from '../src/rows.js';
import type { OpenStreams } from '../src/streams.js';
import { rowBytes } from './shop.js';

export const DEPOT = doctype({
  name: 'depot',
  migrations: [],
  mutations: {},
  streams: {
    order: stream({
      events: { paid: {}, shipped: { by: 'text?' } },
      commands: { pay: command({ sum: 'integer?' }) },
    }),
  },
  workflows: {
    fulfil: workflow({ order: 'text' }, { version: 2 }),
    label: workflow({ weight: 'integer?' }),
  },
});

export type Context = WorkflowContext<
  NonNullable<typeof DEPOT.streams>,
  NonNullable<typeof DEPOT.workflows>
>;

/** What the code of a run is, in tests. */
export type RunCode = (ctx: Context, args: { readonly order: string }) => unknown;

/** One record. */
export interface Kept {
  record: number;
  readonly name: string;
  readonly count: number;
  kind: string;
  state: string;
  result: string | null;
  time: number | null;
  aggregate: string | null;
  stream: string | null;
  event: string | null;
  due: number;
}

/** One run. */
export interface Standing {
  number: number;
  readonly id: string;
  version: string;
  args: string;
  state: string;
  attempt: number;
  isCancelled: boolean;
  isWoken: boolean;
  records: Kept[];
  outcome: string | null;
}

const answered = { answer: 'done', reason: null };

/** Decides, keeps, and gives runs away; nothing happens by itself but that time can pass. */
export class Authority {
  now = 1_000;
  /** When runs were started, by the clock of whoever did. */
  startedAt = 500;
  readonly runs = new Map<string, Standing>();
  readonly events: Row[] = [];
  /** What was sent and started: names and texts. */
  readonly sent: string[][] = [];
  /** What was written down, in order: what each message said of each name. */
  readonly log: string[] = [];
  /** Up to which of its records the code of a run was told that went on as new. */
  continuedAt = 0;
  #numbers = 0;
  #records = 0;
  handler: Process | undefined;

  /** Somebody starts a run. */
  start(id: string, of: Partial<Standing> = {}): Standing {
    this.#numbers += 1;
    const run: Standing = {
      number: this.#numbers,
      id,
      version: '2',
      args: JSON.stringify({ order: `order-${id}` }),
      state: 'ready',
      attempt: 0,
      isCancelled: false,
      isWoken: false,
      records: [],
      outcome: null,
      ...of,
    };
    this.runs.set(id, run);
    this.give();
    return run;
  }

  /** Gives what is ready to who handles it. */
  give(): void {
    if (!this.handler) return;
    for (const run of this.runs.values()) {
      if (run.state !== 'ready') continue;
      Object.assign(run, { state: 'started', attempt: run.attempt + 1, isWoken: false });
      for (const record of run.records) {
        if (record.time !== null || record.state === 'waiting') continue;
        this.#hear(record);
      }
    }
    this.handler.give([...this.runs.values()].filter(({ state }) => state === 'started'));
  }

  /** Whoever handles runs is gone: what it was at is given to the next one. */
  kill(): void {
    if (this.handler) this.handler.isDead = true;
    this.handler = undefined;
    for (const run of this.runs.values()) if (run.state === 'started') run.state = 'ready';
  }

  /** A device cancels a run. */
  cancel(id: string): void {
    const run = this.runs.get(id)!;
    run.isCancelled = true;
    this.#wake(run);
  }

  /** So much time passes. */
  pass(ms: number): void {
    this.now += ms;
    for (const run of this.runs.values()) {
      for (const record of run.records) {
        if (record.state !== 'waiting' || record.due === 0 || record.due > this.now) continue;
        this.resolve(run, record, 'done', null);
      }
    }
  }

  /** Something happens to a stream. */
  record(stream: string, type: string, data: object = {}): void {
    const sequence = this.events.length + 1;
    const of = { aggregate: 'order', stream, position: 1, type, version: 1 };
    const by = { time: this.now, user: '', client: '', cause: 'mutation:it' };
    this.events.push({ sequence, ...of, data: JSON.stringify(data), ...by });
    for (const run of this.runs.values()) {
      for (const it of run.records) {
        if (it.state === 'waiting' && it.event === type && it.stream === stream) {
          this.resolve(run, it, 'done', `${sequence}`);
        }
      }
    }
  }

  /** What a run waits for has happened. */
  resolve(run: Standing, record: Kept, state: string, result: string | null): void {
    Object.assign(record, { state, result, due: 0, time: null });
    this.#wake(run);
  }

  /** The same of the record of that name. */
  end(id: string, name: string, state: string, result: string | null): void {
    const run = this.runs.get(id)!;
    const record = run.records.find((it) => it.name === name && it.state === 'waiting')!;
    this.resolve(run, record, state, result);
  }

  #wake(run: Standing): void {
    run.isWoken = true;
    if (['suspended', 'stopped'].includes(run.state)) run.state = 'ready';
    this.give();
  }

  /** From now on it stands behind all that its run has heard. */
  #hear(record: Kept): void {
    this.#records += 1;
    record.record = this.#records;
    record.time = this.now;
  }

  /** Somebody says what an attempt has come to. */
  complete(r: Reader): Row {
    r.u32();
    const [, number, attempt] = [r.u64(), r.u64(), r.u64()];
    const told = r.u64();
    const run = [...this.runs.values()].find((it) => it.number === number);
    if (run?.state !== 'started' || run.attempt !== attempt) {
      return { ...answered, answer: 'late', time: this.now };
    }
    const kind = r.u32();
    const over = (state: string, outcome: string): void => {
      Object.assign(run, { state, outcome });
      this.log.push(`${run.id} ${state} ${outcome}`);
    };
    if (kind === 1) over('failed', r.text());
    else if (kind === 2) this.#progress(run, r);
    else if (kind === 3) over('completed', r.text());
    else if (kind === 5) over('stopped', r.text());
    else if (kind === 6) over('cancelled', '');
    else if (kind === 4) {
      const args = r.text();
      this.log.push(`${run.id} continued ${args}`);
      this.continuedAt = told;
      const { id, isCancelled } = run;
      this.start(id, { args, isCancelled });
    }
    return { ...answered, time: this.now };
  }

  #progress(run: Standing, r: Reader): void {
    r.list(() => this.#remember(run, r.text(), r.u32(), r));
    if (!r.flag()) return;
    run.state = run.isWoken ? 'ready' : 'suspended';
    this.log.push(`${run.id} ${run.state}`);
  }

  #remember(run: Standing, name: string, count: number, r: Reader): void {
    const what = r.u32();
    const before = run.records.find((it) => it.name === name && it.count === count);
    const none = { event: null, stream: null, aggregate: null, due: 0, result: null };
    const note = (of: Partial<Kept>): void => {
      const record = before ?? ({ name, count, ...none } as Kept);
      if (!before) run.records.push(record);
      Object.assign(record, of);
      this.#hear(record);
      if (record.state === 'waiting') record.time = null;
      this.log.push(`${run.id} ${name}#${count} ${record.kind} ${record.state}`);
    };
    const texts = (many: number): string[] => Array.from({ length: many }, () => r.text());
    if (what === 0) note({ kind: r.text(), result: r.text(), state: 'done' });
    else if (what === 1) note({ kind: r.text(), result: r.text(), state: 'failed' });
    else if (what === 2) note({ kind: 'request', state: 'started' });
    else if (what === 3) note({ kind: 'sleep', state: 'waiting', due: this.now + r.u64() });
    else if (what === 4) {
      const [aggregate, stream, event] = texts(3) as [string, string, string];
      const ms = r.u64();
      const due = ms === 0 ? 0 : this.now + ms;
      note({ kind: 'event', state: 'waiting', aggregate, stream, event, due });
    } else if (what === 7) note({ kind: 'cancel', state: 'failed', result: null });
    else {
      this.sent.push(texts(what === 5 ? 5 : 3));
      note({ kind: what === 5 ? 'command' : 'workflow', state: 'waiting' });
    }
  }
}

/** A process that handles runs: it has timers of its own, and can be killed. */
export class Process {
  readonly #authority: Authority;
  #caller: Caller | undefined;
  readonly #timers = new Set<{ readonly at: number; readonly wake: () => void }>();
  isDead = false;
  /** How long what it asks is on its way, by the clock of the machine. */
  answersAfterMs = 0;
  now = 0;
  /** Called with what is asked, before it is. */
  onAsk: (kind: string) => void = () => {};
  readonly errors: [unknown, GivenRun | undefined][] = [];
  readonly handling: Handling;
  readonly ending = new Set<Ending>();
  records = 0;

  constructor(authority: Authority, code: unknown, options: HandleOptions<GivenRun> = {}) {
    this.#authority = authority;
    authority.kill();
    authority.handler = this;
    const onError = (error: unknown, run?: GivenRun): number => this.errors.push([error, run]);
    const given = ['fulfil', code, { onError, ...options }];
    const { fulfil } = DEPOT.workflows!;
    this.handling = fulfil[EVENTS]!.handle(this.document, given) as Handling;
    authority.give();
  }

  get document(): OpenStreams {
    const { ending } = this;
    const call = (_: string, __: object, caller: Caller): number => {
      this.#caller = caller;
      return 1;
    };
    const host = {
      uuid: () => '00000000-0000-4000-8000-000000000001',
      now: () => this.now,
      wakeIn: (ms: number, wake: () => void) => {
        const timer = { at: this.now + ms, wake };
        this.#timers.add(timer);
        return () => this.#timers.delete(timer);
      },
      laterTurn: (next: () => void) => setImmediate(() => this.isDead || next()),
    };
    const rows = (kind: string, message: object, signal?: AbortSignal): Promise<Row[]> =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) {
          reject(signal.reason);
          return;
        }
        const leave = (): void => reject(signal!.reason);
        signal?.addEventListener('abort', leave);
        this.onAsk(kind);
        if (this.isDead) return;
        const answer = this.#answer(kind, message);
        const tell = (): void => {
          signal?.removeEventListener('abort', leave);
          if (!this.isDead) resolve(answer);
        };
        this.#later(tell);
      });
    const connection = { host, call, giveUp() {} };
    const of = { connection, doctype: DEPOT, handle: 3, ending, rows, mustBeOpen() {} };
    return of as unknown as OpenStreams;
  }

  #later(tell: () => void): void {
    if (this.answersAfterMs > 0) setTimeout(tell, this.answersAfterMs);
    else setImmediate(tell);
  }

  #answer(kind: string, message: object): Row[] {
    if (kind === 'events') {
      const { after, aggregate, stream } = message as Record<string, number | string>;
      return this.#authority.events.filter(
        (it) => it.sequence! > after! && it.aggregate === aggregate && it.stream === stream,
      );
    }
    const r = new Reader((message as { request: Uint8Array<ArrayBuffer> }).request);
    if (kind === 'complete') {
      const row = this.#authority.complete(r);
      this.#later(() => this.#authority.give());
      return [row];
    }
    const [number, attempt, after] = [r.u64(), r.u64(), r.u64()];
    const run = [...this.#authority.runs.values()].find((it) => it.number === number)!;
    if (run.attempt !== attempt) throw new Error(`records as of ${attempt}, not ${run.attempt}`);
    this.records += 1;
    const kept = run.records.filter(({ record }) => record > after);
    return kept
      .sort((one, other) => one.record - other.record)
      .slice(0, 64)
      .map(({ event: _, due: __, ...it }) => it);
  }

  give(runs: readonly Standing[]): void {
    const rows = runs.map((run) => ({
      number: run.number,
      aggregate: 'fulfil',
      stream: run.id,
      name: run.version,
      args: run.args,
      key: run.id,
      time: this.#authority.startedAt,
      user: 'ada',
      client: 'c',
      attempt: run.attempt,
      position: 0,
      is_cancelled: Number(run.isCancelled),
      instance: 1,
    }));
    this.#caller!({ type: 'rows', rows: rowBytes(rows) }, false);
  }

  /** So much time passes here, on its own clock. */
  pass(ms: number): void {
    this.now += ms;
    for (const timer of [...this.#timers]) {
      if (timer.at > this.now) continue;
      this.#timers.delete(timer);
      timer.wake();
    }
  }

  get timersCount(): number {
    return this.#timers.size;
  }
}

/** Lets all go on that can, until nothing is left. */
export async function settled(turns = 60): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) await new Promise((next) => setImmediate(next));
}
