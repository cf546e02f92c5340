/**
 * What is asked of the core about commands and runs, as it travels: see `protocol.rs` in crate
 * `client`, and `tasks.rs` and `workflows.rs` in crate `document`.
 */

import type { GivenRow } from './attempts.js';
import { type Bytes, Writer } from './codec.js';
import type { CommandName } from './errors.js';

/** A command to be sent, its arguments a JSON object. */
export interface NewCommand extends CommandName {
  readonly args: string;
}

/** A run to be started, its arguments a JSON object. */
export interface NewRun {
  readonly workflow: string;
  readonly id: string;
  readonly args: string;
}

/** What a run remembers from now on. */
export type Recorded =
  | { readonly what: 'done'; readonly kind: string; readonly result: string }
  | { readonly what: 'failed'; readonly kind: string; readonly reason: string }
  /** A request. */
  | { readonly what: 'begun' }
  | { readonly what: 'sleep'; readonly ms: number }
  | {
      readonly what: 'waitFor';
      readonly aggregate: string;
      readonly stream: string;
      readonly event: string;
      /** Milliseconds; 0 for as long as it takes. */
      readonly timeout: number;
    }
  | ({ readonly what: 'send' } & NewCommand)
  | ({ readonly what: 'start' } & NewRun)
  /** The run has heard here that it is cancelled. */
  | { readonly what: 'cancel' };

/** The same with the name by which it is found, and how many of that name were before. */
export interface NewRecord {
  readonly name: string;
  readonly count: number;
  readonly recorded: Recorded;
}

/** What the events of a stream come to, as JSON, by which way of folding. */
export interface NewSnapshot {
  readonly name: string;
  readonly state: string;
}

/** What an attempt came to. */
export type Decision =
  /** Events, each with its type and a JSON object, commands and runs. */
  | {
      readonly events: readonly (readonly [type: string, data: string])[];
      readonly sends: readonly NewCommand[];
      readonly starts: readonly NewRun[];
      /** What the events before these come to, to be kept. */
      readonly snapshot?: NewSnapshot | undefined;
    }
  | { readonly reason: string; readonly isFinal: boolean }
  /** A run has come so far; whether it waits, and the attempt is over. */
  | { readonly records: readonly NewRecord[]; readonly suspends: boolean }
  /** What a run has returned, as JSON. */
  | { readonly result: string }
  /** A run goes on with these arguments, a JSON object, and remembers nothing. */
  | { readonly args: string }
  /** The code does not fit the run, or does not know an event of the command's stream. */
  | { readonly stopped: string }
  | { readonly isCancelled: true };

/** Which attempt that was, and whose. */
export type Completed = Pick<GivenRow, 'instance' | 'number' | 'attempt'>;

function writeTexts(w: Writer, ...texts: readonly string[]): void {
  for (const text of texts) w.text(text);
}

/** What becomes of this command? Or of a run: by its id, and no name. */
export function outcomeRequest({ aggregate, stream, name, key }: CommandName): Bytes {
  const w = new Writer();
  writeTexts(w, aggregate, stream, name, key);
  return w.take();
}

/** Commands of these names are handled, or runs of these versions, so many at a time. */
export function handleRequest(
  aggregate: string,
  names: readonly string[],
  concurrency: number,
): Bytes {
  const w = new Writer();
  w.list(names, (name) => writeTexts(w, aggregate, name));
  w.u32(concurrency);
  return w.take();
}

/** What does this run remember, as of this attempt, behind that record? */
export function recordsRequest(task: number, attempt: number, after: number): Bytes {
  const w = new Writer();
  w.u64(task);
  w.u64(attempt);
  w.u64(after);
  return w.take();
}

/**
 * An attempt has ended, or has come so far, at what that call handles; of a command, decided by so
 * many events of its stream, and of a run, told of events up to that of this record.
 */
export function completeRequest(
  handling: number,
  { instance, number, attempt }: Completed,
  position: number,
  decision: Decision,
): Bytes {
  const w = new Writer();
  w.u32(handling);
  for (const it of [instance, number, attempt, position]) w.u64(it);
  writeDecision(w, decision);
  return w.take();
}

function writeDecision(w: Writer, decision: Decision): void {
  if ('events' in decision) {
    w.u32(0);
    w.list(decision.events, ([type, data]) => writeTexts(w, type, data));
    w.list(decision.sends, (it) => writeCommand(w, it));
    w.list(decision.starts, (it) => writeRun(w, it));
    writeSnapshot(w, decision.snapshot);
  } else if ('reason' in decision) {
    w.u32(1);
    w.text(decision.reason);
    w.u8(decision.isFinal);
  } else if ('records' in decision) {
    w.u32(2);
    w.list(decision.records, ({ name, count, recorded }) => {
      w.text(name);
      w.u32(count);
      writeRecorded(w, recorded);
    });
    w.u8(decision.suspends);
  } else if ('result' in decision) {
    w.u32(3);
    w.text(decision.result);
  } else if ('args' in decision) {
    w.u32(4);
    w.text(decision.args);
  } else if ('stopped' in decision) {
    w.u32(5);
    w.text(decision.stopped);
  } else {
    w.u32(6);
  }
}

function writeSnapshot(w: Writer, snapshot: NewSnapshot | undefined): void {
  w.u8(snapshot !== undefined);
  if (!snapshot) return;
  writeTexts(w, snapshot.name, snapshot.state);
}

function writeCommand(w: Writer, { aggregate, stream, name, args, key }: NewCommand): void {
  writeTexts(w, aggregate, stream, name, args, key);
}

function writeRun(w: Writer, { workflow, id, args }: NewRun): void {
  writeTexts(w, workflow, id, args);
}

type Writers = {
  [What in Recorded['what']]: (w: Writer, it: Extract<Recorded, { readonly what: What }>) => void;
};

/** In the order of `Recorded`'s variants in crate `document`. */
const RECORDED: Writers = {
  done: (w, { kind, result }) => writeTexts(w, kind, result),
  failed: (w, { kind, reason }) => writeTexts(w, kind, reason),
  begun() {},
  sleep: (w, { ms }) => w.u64(ms),
  waitFor(w, { aggregate, stream, event, timeout }) {
    writeTexts(w, aggregate, stream, event);
    w.u64(timeout);
  },
  send: writeCommand,
  start: writeRun,
  cancel() {},
};

const KINDS = Object.keys(RECORDED);

function writeRecorded(w: Writer, recorded: Recorded): void {
  w.u32(KINDS.indexOf(recorded.what));
  RECORDED[recorded.what](w, recorded as never);
}
