/** Handling commands: `db.handle`. */

import { isPassing } from './call.js';
import { completeRequest, type Decision, handleRequest } from './command-requests.js';
import {
  type Arguments,
  argumentBinder,
  type EventFields,
  type ParamTypes,
  type Stream,
  type Streams,
} from './doctype.js';
import { DocumentClosedError, InvalidOptionError, type TidelogError } from './errors.js';
import type { EventData, RecordedEvent } from './events.js';
import { Folds } from './folds.js';
import { hexOf } from './messages.js';
import { decodeRows } from './rows.js';
import {
  type CommandFields,
  type CommandNameOf,
  commandFunctions,
  type GivenData,
  jsonOf,
  type SendLater,
  type Sent,
} from './sending.js';
import type { Abortable } from './sql.js';
import type { OpenStreams } from './streams.js';

/** Limits of crate `types`. */
const INSTANCE_COMMANDS_MAX = 1_024;
const INSTANCE_KINDS_MAX = 1_024;
const COMPLETION_ITEMS_MAX = 1_024;

/** Commands given to one handler at a time, where it does not say how many. */
const CONCURRENCY = 16;

/** Attempts that are over and may be given once more by a core that does not know that yet. */
const ATTEMPTS_MAX = 2 * INSTANCE_COMMANDS_MAX;

/** A command as it is given to a handler. */
export interface GivenCommand {
  /** Its place among all commands of the document, from 1. */
  readonly number: number;
  /** The name of its aggregate. */
  readonly aggregate: string;
  /** Which of those. */
  readonly stream: string;
  /** The name of its type. */
  readonly name: string;
  /** The key that it was sent by. */
  readonly key: string;
  /** When it was sent, milliseconds since the epoch by the clock of that device. */
  readonly time: number;
  /** Who has sent it: `:user`. */
  readonly user: string;
  /** The copy that has sent it: `:client`. */
  readonly client: string;
  /** Which attempt this is, from 1. */
  readonly attempt: number;
}

/** What a handler is given beside the arguments of its command. */
export interface CommandContext<State = unknown, Recorded extends Streams = Streams> {
  /**
   * What the stream's events come to: never older than what the last command of it has recorded.
   * Change nothing in it: events alone change it.
   */
  readonly state: State;
  /** Which stream it is about. */
  readonly stream: string;
  /** The command. */
  readonly command: GivenCommand;
  /** Aborted once this attempt counts no longer: somebody else has the command, or it is over. */
  readonly signal: AbortSignal;
  /** When the attempt began, milliseconds since the epoch by the clock of this device. */
  readonly now: number;
  /**
   * Sends commands to any streams: in the transaction in which this one completes, or not at all.
   * Without a key each is known by the number of this command and its place among what this
   * sends.
   */
  readonly send: SendLater<Recorded>;
  /** Ends the attempt: the command has failed for good, for that reason. */
  fail(reason: string): never;
}

type FieldsOf<Of extends Stream> = Of extends Stream<infer Fields> ? Fields : never;

/** An event as a handler gives it. */
export type NewEvent<Fields extends EventFields> = {
  [Type in keyof Fields & string]: Record<never, never> extends Arguments<Fields[Type]>
    ? { readonly type: Type; readonly data?: GivenData<Fields[Type]> }
    : { readonly type: Type; readonly data: GivenData<Fields[Type]> };
}[keyof Fields & string];

// biome-ignore lint/suspicious/noConfusingVoidType: a handler may end without a word.
type Decided<Fields extends EventFields> = readonly NewEvent<Fields>[] | undefined | void;

/** How commands of an aggregate are handled. */
export interface Handlers<
  Recorded extends Streams,
  Aggregate extends keyof Recorded & string,
  State,
> {
  /** The state of a stream in which nothing has happened yet; or a function that makes one. */
  readonly initial: State | (() => State);
  /**
   * For types of events: the state after one, from that before it. They see nothing else, and each
   * time the same comes of the same. What is not named here changes nothing.
   */
  readonly evolve?: {
    readonly [Type in keyof FieldsOf<Recorded[Aggregate]> & string]?: (
      state: State,
      event: RecordedEvent<Aggregate, Type, EventData<FieldsOf<Recorded[Aggregate]>[Type]>>,
    ) => State;
  };
  /**
   * For commands: the events that one comes to, or a promise of those. A throw is an attempt that
   * has failed, and is tried again. Commands that are not named here are left to others.
   */
  readonly commands: {
    readonly [Name in CommandNameOf<Recorded[Aggregate]>]?: (
      ctx: CommandContext<State, Recorded>,
      args: EventData<CommandFields<Recorded[Aggregate], Name>>,
    ) => Decided<FieldsOf<Recorded[Aggregate]>> | Promise<Decided<FieldsOf<Recorded[Aggregate]>>>;
  };
}

/** How many commands are handled, and who is told of errors. */
export interface HandleOptions extends Abortable {
  /** Commands that it works at, at most, of as many streams; 16 by default, up to 1,024. */
  readonly concurrency?: number | undefined;
  /**
   * Is told what a handler has thrown, and at which command; and, without one, why there are none
   * to handle any more. By default that is written to the console.
   */
  readonly onError?: ((error: unknown, command?: GivenCommand) => void) | undefined;
}

/** Somebody who handles commands: see `Database.handle`. */
export interface Handling {
  /**
   * Begins no more commands, and resolves once those at work have ended and others may have the
   * rest. A `signal`, as `db.close()`, leaves those at work to others too, at once.
   */
  close(): Promise<void>;
  /** The same as {@link close}, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A row of what is given: what `GivenCommand` has, as it travels, and what the handler needs. */
interface GivenRow extends Omit<GivenCommand, 'client'> {
  readonly client: string | Uint8Array;
  readonly args: string;
  /** How many events its stream had when it was given. */
  readonly position: number;
}

/** One attempt at a command. */
interface Attempt {
  readonly attempt: number;
  readonly left: AbortController;
  isOver: boolean;
}

type AnyHandlers = Handlers<Streams, string, unknown>;
type AnyHandler = (ctx: CommandContext, args: unknown) => unknown;

/** Why an attempt ends that has failed for good. */
class Failed {
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}

/** `db.handle`. */
export function handle(document: OpenStreams, given: readonly unknown[]): Handling {
  const [aggregate, handlers, options] = given as [string, AnyHandlers, HandleOptions | undefined];
  document.mustBeOpen();
  return new Worker(document, aggregate, handlers, options ?? {});
}

class Worker implements Handling {
  readonly #document: OpenStreams;
  readonly #aggregate: string;
  readonly #stream: Stream;
  readonly #handlers: Readonly<Record<string, AnyHandler>>;
  readonly #onError: NonNullable<HandleOptions['onError']>;
  readonly #folds: Folds;
  /** By the numbers of their commands, the oldest first. */
  readonly #attempts = new Map<number, Attempt>();
  /** Runs that have not ended, so that closing may wait for them. */
  readonly #runs = new Set<Promise<void>>();
  readonly #call: number;
  /** Stops listening to the app's signal. */
  readonly #unlisten: () => void;
  #isClosing = false;
  #isOver = false;

  constructor(
    document: OpenStreams,
    aggregate: string,
    handlers: AnyHandlers,
    { concurrency = CONCURRENCY, onError, signal }: HandleOptions,
  ) {
    const { connection, doctype, ending } = document;
    this.#document = document;
    this.#aggregate = aggregate;
    this.#stream = streamOf(doctype.name, doctype.streams ?? {}, aggregate);
    const names = checkHandlers(aggregate, this.#stream, handlers);
    if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > INSTANCE_COMMANDS_MAX) {
      throw new InvalidOptionError(`concurrency has to be 1 to ${INSTANCE_COMMANDS_MAX}`);
    }
    this.#handlers = handlers.commands as Readonly<Record<string, AnyHandler>>;
    this.#onError = onError ?? writeError;
    this.#folds = new Folds(document, aggregate, this.#stream, handlers);
    ending.add(this);
    const request = handleRequest(aggregate, names, concurrency);
    const abort = (): void => this.endWith();
    this.#unlisten = () => signal?.removeEventListener('abort', abort);
    this.#call = connection.call(
      'handle',
      { handle: document.handle, request },
      (answer, last) => {
        if (answer.type === 'rows') this.#take(decodeRows(answer.rows) as unknown as GivenRow[]);
        else if (answer.type === 'failed') this.#notGiven(answer.error, last);
      },
      false,
    );
    if (signal?.aborted) this.endWith();
    else signal?.addEventListener('abort', abort, { once: true });
  }

  /** @internal */
  endWith(error?: TidelogError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#unlisten();
    this.#document.ending.delete(this);
    for (const { left } of this.#attempts.values()) left.abort(error);
    this.#attempts.clear();
    if (!error) this.#document.connection.giveUp(this.#call);
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    while (this.#runs.size > 0 && !this.#isOver) await Promise.race(this.#runs);
    this.endWith();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Nothing is given for now, which the document's status says as well, or any more. */
  #notGiven(error: TidelogError, last: boolean): void {
    if (this.#isOver || (!last && isPassing(error))) return;
    this.endWith(last ? error : undefined);
    if (!(error instanceof DocumentClosedError)) this.#tell(error);
  }

  #tell(error: unknown, command?: GivenCommand): void {
    try {
      this.#onError(error, command);
    } catch (thrown) {
      reportError(thrown);
    }
  }

  /** All that is given now: what is no longer was taken away. */
  #take(rows: readonly GivenRow[]): void {
    if (this.#isOver) return;
    const given = new Map(rows.map((row) => [row.number, row]));
    for (const [number, { attempt, left, isOver }] of this.#attempts) {
      if (isOver || given.get(number)?.attempt === attempt) continue;
      left.abort(new Error('this attempt counts no longer'));
      this.#attempts.delete(number);
    }
    for (const row of given.values()) this.#begin(row);
    for (const [number, { isOver }] of this.#attempts) {
      if (this.#attempts.size <= ATTEMPTS_MAX) break;
      if (isOver && !given.has(number)) this.#attempts.delete(number);
    }
  }

  #begin(row: GivenRow): void {
    if (this.#isClosing || this.#attempts.get(row.number)?.attempt === row.attempt) return;
    const begun: Attempt = { attempt: row.attempt, left: new AbortController(), isOver: false };
    // Behind all others, by which age they are forgotten.
    this.#attempts.delete(row.number);
    this.#attempts.set(row.number, begun);
    const { aggregate, stream, name, number, key, time, user, attempt } = row;
    const client = typeof row.client === 'string' ? row.client : hexOf(row.client);
    const command = { number, aggregate, stream, name, key, time, user, client, attempt };
    const run = this.#run(row, command, begun.left.signal)
      .catch((error: unknown) => begun.left.signal.aborted || this.#tell(error, command))
      .then(() => {
        begun.isOver = true;
        this.#runs.delete(run);
      });
    this.#runs.add(run);
  }

  /** From the stream's state to what the authority makes of it: anew while that is stale. */
  async #run(row: GivenRow, command: GivenCommand, signal: AbortSignal): Promise<void> {
    const { number, stream, attempt } = row;
    for (let least = row.position; ; ) {
      let position = 0;
      let decision: Decision;
      try {
        const folded = await this.#folds.stateOf(stream, least, signal);
        position = folded.position;
        decision = await this.#decide(row, command, folded.state, signal);
      } catch (error) {
        if (signal.aborted) return;
        const isFinal = error instanceof Failed;
        if (!isFinal) this.#tell(error, command);
        decision = { reason: isFinal ? error.reason : reasonOf(error), isFinal };
      }
      const completion = { command: number, attempt, position, decision };
      const request = completeRequest(this.#call, completion);
      const [said] = await this.#document.rows('complete', { request }, signal);
      if (said?.answer !== 'stale') return;
      // Others have recorded more: with that it is decided anew.
      least = position + 1;
    }
  }

  /** Has the handler decide. */
  async #decide(
    row: GivenRow,
    command: GivenCommand,
    state: unknown,
    signal: AbortSignal,
  ): Promise<Decision> {
    const { doctype, connection } = this.#document;
    const { uuid, now } = connection.host;
    const sends: Sent[] = [];
    let isDeciding = true;
    const send = (sent: Sent): void => {
      if (!isDeciding) throw new Error('a command has to be sent before its handler ends');
      sends.push(sent);
    };
    const keyOf = (): string => `${row.number}:${sends.length}`;
    const { streams = {} } = doctype;
    const ctx: CommandContext = {
      state,
      stream: row.stream,
      command,
      signal,
      now: now(),
      send: commandFunctions(doctype.name, streams, uuid, keyOf, send) as SendLater<Streams>,
      fail: (reason) => {
        throw new Failed(String(reason));
      },
    };
    const decided = await this.#handlers[row.name]!(ctx, JSON.parse(row.args));
    isDeciding = false;
    const events = eventsOf(this.#aggregate, this.#stream, decided, uuid);
    if (events.length > COMPLETION_ITEMS_MAX || sends.length > COMPLETION_ITEMS_MAX) {
      throw new Error(`a command records, and sends, ${COMPLETION_ITEMS_MAX} at most`);
    }
    return { events, sends };
  }
}

function streamOf(doctype: string, streams: Streams, aggregate: string): Stream {
  if (Object.hasOwn(streams, aggregate)) return streams[aggregate]!;
  throw new InvalidOptionError(
    `${doctype} has no stream ${aggregate}: it has ${Object.keys(streams)}`,
  );
}

/** The names of the commands that are handled. */
function checkHandlers(aggregate: string, of: Stream, handlers: AnyHandlers): readonly string[] {
  const { commands, evolve = {} } = Object(handlers) as AnyHandlers;
  const check = (what: string, known: object, given: object): readonly string[] => {
    const named = Object.entries(Object(given)).filter(([, it]) => it !== undefined);
    for (const [name, it] of named) {
      if (!Object.hasOwn(known, name)) {
        const there = Object.keys(known).join(', ') || 'none';
        throw new InvalidOptionError(`${aggregate} has no ${what} ${name}: it has ${there}`);
      }
      if (typeof it !== 'function') {
        throw new InvalidOptionError(`what handles ${what} ${name} has to be a function`);
      }
    }
    return named.map(([name]) => name);
  };
  check('event', of.events, evolve);
  const names = check('command', of.commands ?? {}, commands);
  if (names.length < 1 || names.length > INSTANCE_KINDS_MAX) {
    throw new InvalidOptionError(`who handles ${aggregate} has to name 1 to 1,024 commands`);
  }
  return names;
}

/** Types and data of the events that a handler gave. */
function eventsOf(
  aggregate: string,
  { events }: Stream,
  decided: unknown,
  drawUuid: () => string,
): readonly (readonly [string, string])[] {
  if (decided == null) return [];
  if (!Array.isArray(decided)) {
    throw new TypeError('a handler gives its events as a list: [{ type, data }]');
  }
  return decided.map((event: unknown) => {
    const { type, data } = Object(event) as { type: string; data: unknown };
    if (typeof type !== 'string' || !Object.hasOwn(events, type)) {
      throw new TypeError(`${aggregate} has no event ${type}: it has ${Object.keys(events)}`);
    }
    const fields: ParamTypes = events[type]!.fields;
    const bound = argumentBinder(`event ${aggregate}.${type}`, fields, drawUuid)(data);
    return [type, jsonOf(fields, bound)] as const;
  });
}

function reasonOf(error: unknown): string {
  try {
    return String(error);
  } catch {
    return 'something without a text was thrown';
  }
}

function writeError(error: unknown, command?: GivenCommand): void {
  if (command) console.error(`command ${command.name} of ${command.aggregate}:`, error);
  else console.error('nothing is given to handle:', error);
}
