/**
 * One attempt at a run: its code is run from the beginning, and is answered from the records as far
 * as these go.
 *
 * What the code waits for it is told one by one, in the order in which the run has heard of it:
 * that of the records, and behind these the order in which the authority has taken what is new. In
 * between the code comes to rest. So of two things that race for it the same wins each time,
 * and what it does next it does by the same name and count.
 */

import { type Attempt, reasonOf } from './attempts.js';
import {
  completeRequest,
  type Decision,
  type NewRecord,
  type Recorded,
} from './command-requests.js';
import { drawnFrom } from './drawing.js';
import { StepFailedError, WorkflowCancelledError, WorkflowMismatchError } from './errors.js';
import { isOver, type KnownRecord, keyOf, readRecords } from './records.js';
import { contextOf } from './run-context.js';
import { decisionOf } from './run-end.js';
import type { GivenRun, WorkflowContext } from './running.js';
import type { OpenStreams } from './streams.js';
import { shortened, sizeOf } from './trying.js';
import { rest } from './turns.js';

/** Limits of crate `types`. */
const COMPLETION_ITEMS_MAX = 1_024;
const WORKFLOW_RECORDS_MAX = 10_000;

/** Bytes of what travels at a time, with one record more than those. */
const PROGRESS_SIZE_MAX = 4 * 1024 * 1024;

/** The code of a workflow, as the app gives it. */
export type Code = (ctx: WorkflowContext, args: unknown) => unknown;

/** Something that the code has asked for, and is not answered yet. */
interface Asked {
  readonly name: string;
  readonly count: number;
  readonly kind: string;
  /** What the code is told of what was done. */
  answer(result: string | null): unknown;
  /** What it is told of what has failed. */
  failure(reason: string): unknown;
  resolve(value: unknown): void;
  reject(error: unknown): void;
  /** Whether nothing comes of it here: what it waits for happens elsewhere. */
  waits: boolean;
  /** Whether somebody else has begun it, so that it may have been carried out. */
  readonly isBegun: boolean;
  /**
   * When the code has last begun to wait for it: what it waits for at once, as for all of a race,
   * has the same number. 0 for what it leaves to itself.
   */
  awaited: number;
  /** Begins with it, or goes on, where a cancelled run may be told of that instead. */
  begin?: (() => void) | undefined;
}

/** What the code is given to wait for. It notes that it is waited for. */
class Asking extends Promise<unknown> {
  onAwaited: (() => void) | undefined;

  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  // biome-ignore lint/suspicious/noThenProperty: it is one of a promise, which `await` calls.
  override readonly then: Promise<unknown>['then'] = (done, failed) => {
    this.onAwaited?.();
    return super.then(done, failed);
  };
}

/** What became of something, which the code is to hear. */
interface Heard {
  readonly asked: Asked;
  readonly kind: string;
  readonly isDone: boolean;
  readonly result: string | null;
  readonly time: number;
}

/** What the code asks for, and what it is told of it. */
export interface Question {
  readonly name: string;
  readonly kind: string;
  answer(result: string | null): unknown;
  failure?(reason: string): unknown;
  /** What is to be remembered at once, if nobody remembers anything of it. */
  begin?(count: number): Recorded;
  /** What is done here, and then remembered. */
  work?(count: number): Promise<Recorded | undefined>;
}

/** One attempt at a run. */
export class Run {
  readonly #document: OpenStreams;
  readonly #attempt: Attempt<GivenRun>;
  /** Aborted once nothing more comes of the attempt, for whichever reason. */
  readonly #over = new AbortController();
  /** Called then: Node warns of more than ten listeners to a signal. */
  readonly #leaving = new Set<() => void>();
  #records = new Map<string, KnownRecord>();
  /** How many there are, with those that are on their way. */
  #recordsCount = 0;
  readonly #counts = new Map<string, number>();
  /** What the code waits for, in the order in which it was asked. */
  readonly #asked = new Map<string, Asked>();
  /** What it is to hear from the records, by their places; and then of what is new. */
  readonly #past: (Heard & { readonly place: number })[] = [];
  readonly #fresh: Heard[] = [];
  /** The place of the last record of an event that the code was told of. */
  #told = 0;
  /** What is to be remembered and was not sent. */
  #queue: NewRecord[] = [];
  #isSending = false;
  /** Whether it was cancelled, and nothing has heard of that yet. */
  #isCancelled = false;
  #hasHeardOfCancel = false;
  /** What is awaited now has that number. */
  #awaiting = 1;
  #isAwaiting = false;
  #decision: Decision | undefined;
  /** Whether the attempt ends since nothing but waiting was left. */
  #isPutAway = false;
  #hasToldOfLate = false;
  /** Why nobody could be told what it remembers. */
  #failure: { readonly error: unknown } | undefined;
  /** By the clock of whoever started it, until something is heard of by that of the authority. */
  #now: number;
  #heardAt = 0;
  /** Called when there may be something to do. */
  #stir: () => void = () => {};
  #isStirred = false;
  /** Draws the same numbers each time. */
  readonly random: () => number;

  constructor(document: OpenStreams, attempt: Attempt<GivenRun>) {
    this.#document = document;
    this.#attempt = attempt;
    this.#now = attempt.given.time;
    const { workflow, id, number } = attempt.given;
    this.random = drawnFrom(JSON.stringify([workflow, id, number]));
    const { signal } = attempt;
    signal.addEventListener('abort', () => this.#leave(signal.reason), { once: true });
    attempt.onRow = () => this.#noteRow();
    this.#noteRow();
  }

  get document(): OpenStreams {
    return this.#document;
  }

  get given(): GivenRun {
    return this.#attempt.given;
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  get now(): number {
    return this.#now;
  }

  /** How many of that name were asked for. */
  countOf(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  /** Calls that once nothing more comes of the attempt. Gives what calls it off. */
  readonly whenOver = (leave: () => void): (() => void) => {
    this.#leaving.add(leave);
    return () => this.#leaving.delete(leave);
  };

  /** Tells the app what was thrown. */
  readonly tell = (error: unknown): void => this.#attempt.tell(error);

  /** The same each time, whoever has the run go on: by this others know what comes of the run. */
  keyOf(name: string, count: number): string {
    const { workflow, id, number } = this.given;
    const part = (text: string): string => text.replace(/[%/~]/g, encodeURIComponent);
    // What goes on as new is asked for anew, and so is it by a run of an id that was forgotten.
    return `${part(workflow)}/${part(id)}~${number}/${part(name)}/${count}`;
  }

  /** Runs the code until the attempt is over. */
  async carryOut(code: Code): Promise<void> {
    const { row } = this.#attempt;
    this.#records = await readRecords(this.#document, row.number, row.attempt, this.signal);
    this.#recordsCount = this.#records.size;
    this.#hasHeardOfCancel = [...this.#records.values()].some(({ kind }) => kind === 'cancel');
    const ctx = contextOf(this);
    const ran = Promise.resolve().then(() => code(ctx, JSON.parse(row.args)));
    ran.then(
      (value) => this.#codeEnds({ value }),
      (error) => this.#codeEnds({ error }),
    );
    try {
      while (await this.#goOn());
      if (this.#failure) throw this.#failure.error;
    } finally {
      this.#leave(new Error('this attempt is over'));
    }
  }

  /** Does what is next, once the code has come to rest. Says whether there is more. */
  async #goOn(): Promise<boolean> {
    this.#isStirred = false;
    await rest(this.#document.connection.host);
    if (this.signal.aborted) return false;
    if (this.#decision) {
      this.#beginHeld();
      return this.#finish(this.#decision);
    }
    const past = this.#past.shift();
    if (past?.kind === 'event') this.#told = Math.max(this.#told, past.place);
    const heard = past ?? this.#fresh.shift();
    if (heard) {
      await this.#answer(heard);
      return true;
    }
    if (this.#isToHearOfCancel()) this.#hearOfCancel();
    // It has too many records, perhaps.
    if (this.#decision) return true;
    if (!this.#isSending) {
      const isAtRest = this.#asked.size > 0 && [...this.#asked.values()].every((it) => it.waits);
      const records = this.#takeProgress();
      const suspends = isAtRest && this.#queue.length === 0;
      if (suspends) {
        this.#isPutAway = true;
        await this.#complete({ records, suspends });
        return false;
      }
      if (records.length > 0) void this.#send(records);
    }
    await this.#stirred();
    return !this.signal.aborted;
  }

  /** Resolves once there may be something to do. */
  #stirred(): Promise<void> {
    return new Promise((resolve) => {
      this.#stir = resolve;
      if (this.#isStirred || this.signal.aborted) resolve();
    });
  }

  #wake(): void {
    this.#isStirred = true;
    this.#stir();
  }

  /** Nothing more comes of it: what the code waits for it never hears. */
  #leave(reason: unknown): void {
    this.#over.abort(reason);
    for (const leave of this.#leaving) leave();
    this.#asked.clear();
    this.#records.clear();
    this.#wake();
  }

  #end(decide: () => Decision): void {
    if (this.signal.aborted) return;
    this.#decision ??= decide();
    this.#wake();
  }

  #noteRow(): void {
    this.#isCancelled = this.#attempt.row.is_cancelled === 1;
    this.#wake();
  }

  /** The code asks for something. */
  ask({ name, kind, answer, failure, begin, work }: Question): Promise<unknown> {
    const count = this.countOf(name);
    this.#counts.set(name, count + 1);
    const key = keyOf(name, count);
    let onAwaited: (() => void) | undefined;
    const asking = new Asking((resolve, reject) => {
      // Nobody hears of what is asked once the attempt is over.
      if (this.signal.aborted || this.#decision || this.#isPutAway) {
        this.#tellOfLate(`asked for ${name}`);
        return;
      }
      const failed = failure ?? ((reason) => failedStep(name, reason));
      const of = { name, count, kind, answer, failure: failed, resolve, reject };
      const record = this.#records.get(key);
      const isBegun = record?.state === 'started';
      const asked: Asked = { ...of, waits: false, isBegun, awaited: 0 };
      onAwaited = () => this.#noteAwaited(asked);
      if (record && record.kind !== kind && record.kind !== 'cancel') {
        this.#stop(record);
        return;
      }
      this.#asked.set(key, asked);
      this.#wake();
      const goOn = (): void => {
        if (record?.state === 'waiting' || record?.state === 'done') asked.waits = true;
        else this.#begin(asked, record !== undefined, begin, work);
      };
      if (record && isOver(record)) this.#hearOf(asked, record);
      else if (this.#isToHearOfCancel() && !isBegun) asked.begin = goOn;
      else goOn();
    });
    // The code may leave it to itself.
    asking.catch(() => {});
    asking.onAwaited = onAwaited;
    return asking;
  }

  #codeEnds(ended: { readonly value: unknown } | { readonly error: unknown }): void {
    if (!this.#isPutAway) this.#end(() => decisionOf(ended, this.tell));
    else if (!('error' in ended)) this.#tellOfLate('ended');
    // It may have been told to by the signal.
    else if (ended.error !== this.signal.reason) this.#tellOfLate('ended', { cause: ended.error });
  }

  /** The code goes on behind its attempt: what it did meanwhile it is to do in a step. */
  #tellOfLate(what: string, why: ErrorOptions = {}): void {
    if (!this.#isPutAway || (this.#hasToldOfLate && !('cause' in why))) return;
    this.#hasToldOfLate = true;
    const { workflow, id } = this.given;
    const message =
      `run ${id} of workflow ${workflow} awaited what is not of ctx while it waited for ` +
      `something, and was put away by the time it ${what}: await that within a step`;
    this.tell(new Error(message, why));
  }

  #noteAwaited(asked: Asked): void {
    asked.awaited = this.#awaiting;
    if (this.#isAwaiting) return;
    this.#isAwaiting = true;
    // `await`, `Promise.race` and `Promise.all` each call `then` in a microtask of its own: those
    // of one race come before this, and whatever the code awaits behind a `catch()` comes after.
    queueMicrotask(() => {
      this.#awaiting += 1;
      this.#isAwaiting = false;
    });
  }

  /** Begins with what was held back. */
  #beginHeld(): void {
    for (const asked of [...this.#asked.values()]) {
      const { begin } = asked;
      asked.begin = undefined;
      begin?.();
    }
  }

  #begin(asked: Asked, isKnown: boolean, begin: Question['begin'], work: Question['work']): void {
    const { count } = asked;
    asked.waits = !work;
    if (!isKnown) {
      if (this.#recordsCount >= WORKFLOW_RECORDS_MAX) {
        const reason = `it has ${WORKFLOW_RECORDS_MAX} records: let it go on by continueAsNew()`;
        this.#end(() => ({ reason, isFinal: true }));
        return;
      }
      this.#recordsCount += 1;
      if (begin) this.#remember(asked, begin(count));
    }
    if (!work || this.#decision) return;
    const note = (recorded: Recorded | undefined): void => {
      if (recorded && !this.signal.aborted && !this.#decision) this.#remember(asked, recorded);
    };
    work(count).then(note, (error) => this.#end(() => decisionOf({ error }, this.tell)));
  }

  #remember({ name, count }: Asked, recorded: Recorded): void {
    // What has ended before anybody was told that it was begun takes the place of that.
    const at = this.#queue.findIndex((it) => it.name === name && it.count === count);
    this.#queue.splice(at < 0 ? this.#queue.length : at, 1, { name, count, recorded });
    this.#wake();
  }

  /** What became of it stands in a record. */
  #hearOf(asked: Asked, { record, kind, state, result, time }: KnownRecord): void {
    const heard = { asked, kind, isDone: state === 'done', result, time: time ?? 0 };
    const at = this.#past.findIndex(({ place }) => place > record);
    this.#past.splice(at < 0 ? this.#past.length : at, 0, { ...heard, place: record });
  }

  #isToHearOfCancel(): boolean {
    return this.#isCancelled && !this.#hasHeardOfCancel;
  }

  /**
   * The code is told at what it waits for by now, once it has heard all else: what has lost a race,
   * or is left to a `catch()`, it does not look at any more. While it waits for what is at work
   * alone, it goes on, and hears of it at what it does next; so it does while it waits, beside
   * anything else, for what may have been carried out, which is asked once more to know.
   */
  #hearOfCancel(): void {
    // By what has ended it may go on as well, and hears of that first.
    const isEnd = ({ recorded: { what } }: NewRecord): boolean =>
      what === 'done' || what === 'failed';
    if (this.#isSending || this.#queue.some(isEnd)) return;
    const all = [...this.#asked.values()];
    const last = all.reduce((most, { awaited }) => Math.max(most, awaited), 1);
    const awaited = all.filter((it) => it.awaited === last);
    if (awaited.some((it) => it.isBegun)) return;
    const told = awaited.find((it) => it.waits || it.begin);
    if (told) {
      this.#hasHeardOfCancel = true;
      told.waits = false;
      told.begin = undefined;
    }
    // What was asked for before is begun before: runs among it are cancelled too.
    this.#beginHeld();
    if (told) this.#remember(told, { what: 'cancel' });
  }

  /** The code does something else by that name. */
  #stop({ name, count, kind }: KnownRecord): void {
    const { workflow, id } = this.given;
    const reason = `it remembers a ${kind} as number ${count} of ${name}, which is none any more`;
    this.#end(() => {
      this.tell(
        new WorkflowMismatchError(
          `run ${id} of workflow ${workflow} cannot go on by this code: ${reason}`,
          { workflow, id },
        ),
      );
      return { stopped: reason };
    });
  }

  /** Tells the code what became of something it has asked for. */
  async #answer({ asked, kind, isDone, result, time }: Heard): Promise<void> {
    let say = (): void => {};
    try {
      if (kind === 'cancel') say = () => asked.reject(this.#cancelled());
      else if (!isDone) say = () => asked.reject(asked.failure(String(result)));
      else {
        const value = await asked.answer(result);
        say = () => asked.resolve(value);
      }
    } catch (error) {
      // An event, say, that this release cannot read.
      this.#end(() => {
        this.tell(error);
        return { stopped: shortened(reasonOf(error)) };
      });
    }
    if (this.signal.aborted) return;
    this.#asked.delete(keyOf(asked.name, asked.count));
    this.#heardAt = Math.max(this.#heardAt, time);
    this.#now = this.#heardAt;
    say();
  }

  #cancelled(): WorkflowCancelledError {
    const { workflow, id } = this.given;
    const message = `run ${id} of workflow ${workflow} was cancelled`;
    return new WorkflowCancelledError(message, { workflow, id, reason: 'cancelled' });
  }

  /** As much of what is to be remembered as travels at a time. */
  #takeProgress(): NewRecord[] {
    let size = 0;
    const isNext = ({ recorded }: NewRecord, index: number): boolean => {
      const fits = index < COMPLETION_ITEMS_MAX && size <= PROGRESS_SIZE_MAX;
      size += sizeOf(JSON.stringify(recorded));
      return fits;
    };
    const end = this.#queue.findIndex((it, index) => !isNext(it, index));
    return this.#queue.splice(0, end < 0 ? this.#queue.length : end);
  }

  /** Sends it; then the code hears of what has come to its end by that. */
  async #send(records: readonly NewRecord[]): Promise<void> {
    this.#isSending = true;
    try {
      const time = await this.#complete({ records, suspends: false });
      if (time === undefined) return;
      for (const { name, count, recorded } of records) {
        const asked = this.#asked.get(keyOf(name, count));
        if (!asked) continue;
        const { what } = recorded;
        if (what === 'done') {
          const { result } = recorded;
          this.#fresh.push({ asked, kind: asked.kind, isDone: true, result, time });
        } else if (what === 'failed') {
          const { reason: result } = recorded;
          this.#fresh.push({ asked, kind: asked.kind, isDone: false, result, time });
        } else if (what === 'cancel') {
          this.#fresh.push({ asked, kind: 'cancel', isDone: false, result: null, time });
        }
      }
    } catch (error) {
      this.#failure ??= { error };
      this.#leave(error);
    } finally {
      this.#isSending = false;
      this.#wake();
    }
  }

  /** The code has ended: what it has left is remembered first. Says whether there is more to do. */
  async #finish(decision: Decision): Promise<boolean> {
    if (this.#isSending) {
      await this.#stirred();
      return true;
    }
    const records = this.#takeProgress();
    if (records.length > 0)
      return (await this.#complete({ records, suspends: false })) !== undefined;
    await this.#complete(decision);
    return false;
  }

  /** Tells the authority. Gives its time, unless the attempt is over by what it says. */
  async #complete(decision: Decision): Promise<number | undefined> {
    const { row, handling } = this.#attempt;
    const request = completeRequest(handling, row, this.#told, decision);
    const [said] = await this.#document.rows('complete', { request }, this.#attempt.signal);
    if (said?.answer === 'done') return Number(said.time);
    this.#leave(new Error('this attempt counts no longer'));
    return undefined;
  }
}

function failedStep(name: string, reason: string): StepFailedError {
  return new StepFailedError(`step ${name} has failed: ${reason}`, { step: name, reason });
}
