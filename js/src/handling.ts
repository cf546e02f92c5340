/** Handling commands: `db.handle`. */

import {
  type Attempt,
  Attempts,
  type GivenRow,
  type HandleOptions,
  type Handling,
  pause,
  reasonOf,
  type Work,
} from './attempts.js';
import { isPassing } from './call.js';
import {
  completeRequest,
  type Decision,
  type NewRun,
  type NewSnapshot,
} from './command-requests.js';
import {
  type Arguments,
  argumentBinder,
  type EventFields,
  type ParamTypes,
  type Stream,
  type Streams,
  type Workflows,
} from './doctype.js';
import { ArchivedError, InvalidOptionError, TidelogError, UnknownEventError } from './errors.js';
import type { EventData, RecordedEvent } from './events.js';
import { type Folded, Folds } from './folds.js';
import {
  type CommandFields,
  type CommandNameOf,
  commandFunctions,
  type GivenData,
  jsonOf,
  type SendLater,
  type Sent,
} from './sending.js';
import { type StartLater, startFunctions } from './starting.js';
import type { OpenStreams } from './streams.js';

/** Limit of crate `types`. */
const COMPLETION_ITEMS_MAX = 1_024;

/** How long it waits before it asks an archive once more. */
const ARCHIVE_AGAIN_MS = 1_000;

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
export interface CommandContext<
  State = unknown,
  Recorded extends Streams = Streams,
  Flows extends Workflows = Workflows,
> {
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
  /** Starts runs of workflows, likewise, and by such ids. */
  readonly start: StartLater<Flows>;
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
  Flows extends Workflows = Workflows,
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
   * For events whose data were erased, of whichever type: the state after one. `evolve` is not
   * asked for them, since it would find no data: without this they change nothing.
   */
  readonly erased?: (
    state: State,
    event: RecordedEvent<Aggregate, keyof FieldsOf<Recorded[Aggregate]> & string>,
  ) => State;
  /**
   * Has states kept in the document, every 1,000 events of a stream, so that whoever handles its
   * commands next begins there, and not at the first event. It is the name of how they are made,
   * by `initial`, `evolve` and `erased`: give another one with each release that makes others of
   * the same events, and to each of several who handle an aggregate and do not make the same. A
   * state then has to be JSON, of at most 256 KiB.
   */
  readonly snapshot?: string;
  /**
   * For commands: the events that one comes to, or a promise of those. A throw is an attempt that
   * has failed, and is tried again; an event of a type that there is not fails the command at once.
   * Commands that are not named here are left to others.
   */
  readonly commands: {
    readonly [Name in CommandNameOf<Recorded[Aggregate]>]?: (
      ctx: CommandContext<State, Recorded, Flows>,
      args: EventData<CommandFields<Recorded[Aggregate], Name>>,
    ) => Decided<FieldsOf<Recorded[Aggregate]>> | Promise<Decided<FieldsOf<Recorded[Aggregate]>>>;
  };
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

/** `db.handle`, of commands. */
export function handle(document: OpenStreams, given: readonly unknown[]): Handling {
  const [aggregate, handlers, options] = given as [
    string,
    AnyHandlers,
    HandleOptions<GivenCommand> | undefined,
  ];
  document.mustBeOpen();
  const deciding = new Deciding(document, aggregate, handlers);
  return new Attempts(document, deciding, options ?? {});
}

/** How the commands of an aggregate are decided. */
class Deciding implements Work<GivenCommand> {
  readonly aggregate: string;
  readonly names: readonly string[];
  readonly #document: OpenStreams;
  readonly #stream: Stream;
  readonly #handlers: Readonly<Record<string, AnyHandler>>;
  readonly #folds: Folds;

  constructor(document: OpenStreams, aggregate: string, handlers: AnyHandlers) {
    const { doctype } = document;
    this.#document = document;
    this.aggregate = aggregate;
    this.#stream = streamOf(doctype, aggregate);
    this.names = checkHandlers(aggregate, this.#stream, handlers);
    this.#handlers = handlers.commands as Readonly<Record<string, AnyHandler>>;
    this.#folds = new Folds(document, aggregate, this.#stream, handlers);
  }

  given(row: GivenRow, client: string): GivenCommand {
    const { number, aggregate, stream, name, key, time, user, attempt } = row;
    return { number, aggregate, stream, name, key, time, user, client, attempt };
  }

  /** From the stream's state to what the authority makes of it: anew while that is stale. */
  async carryOut(attempt: Attempt<GivenCommand>): Promise<void> {
    const { row, given, signal } = attempt;
    const { stream } = row;
    for (let least = row.position; ; ) {
      let position = 0;
      let snapshot: NewSnapshot | undefined;
      let decision: Decision;
      let isFolded = false;
      try {
        const folded = await this.#folded(attempt, least);
        if (!folded) return;
        position = folded.position;
        isFolded = true;
        snapshot = this.#snapshotOf(attempt);
        decision = { ...(await this.#decide(row, given, folded.state, signal)), snapshot };
      } catch (error) {
        if (signal.aborted) return;
        // Of the device, and not of the command.
        if (!isFolded && error instanceof TidelogError && isPassing(error)) throw error;
        const isWanted = error instanceof Failed;
        if (!isWanted) attempt.tell(error);
        const reason = isWanted ? error.reason : reasonOf(error);
        const isUnknown = error instanceof UnknownEventError;
        // An event of a newer release, which others may know.
        if (isUnknown && !isFolded) decision = { stopped: reason };
        else decision = { reason, isFinal: isWanted || isUnknown };
      }
      const request = completeRequest(attempt.handling, row, position, decision);
      const [said] = await this.#document.rows('complete', { request }, signal);
      if (said?.answer !== 'stale') {
        const isKept = said?.answer === 'done' && 'events' in decision && decision.snapshot;
        if (isKept) this.#folds.noteSnapshot(stream);
        return;
      }
      // Others have recorded more: with that it is decided anew.
      least = position + 1;
    }
  }

  /**
   * The stream's state. Where it takes events that the archive does not give now, it waits for
   * them for as long as an attempt may take: the app is told once. Nothing if it is left to others.
   */
  async #folded(attempt: Attempt<GivenCommand>, least: number): Promise<Folded | undefined> {
    const { signal, row } = attempt;
    for (let isTold = false; !isTold || !attempt.isClosing(); isTold = true) {
      try {
        return await this.#folds.stateOf(row.stream, least, signal);
      } catch (error) {
        if (!(error instanceof ArchivedError) || signal.aborted) throw error;
        if (!isTold) attempt.tell(error);
      }
      await pause(this.#document.connection.host, ARCHIVE_AGAIN_MS, signal);
    }
    return undefined;
  }

  /** What is to be kept of the state. That it cannot be is no failure of the command. */
  #snapshotOf({ row, tell }: Attempt<GivenCommand>): NewSnapshot | undefined {
    try {
      return this.#folds.snapshotOf(row.stream);
    } catch (error) {
      tell(error);
      return undefined;
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
    const starts: NewRun[] = [];
    const isInTime = (): void => {
      if (!isDeciding) throw new Error('a command has to be sent before its handler ends');
    };
    const send = (sent: Sent): void => {
      isInTime();
      sends.push(sent);
    };
    const start = (run: NewRun): void => {
      isInTime();
      starts.push(run);
    };
    const keyOf = (): string => `${row.number}:${sends.length}`;
    const idOf = (): string => `${row.number}:${starts.length}`;
    const { name, streams = {}, workflows = {} } = doctype;
    const ctx: CommandContext = {
      state,
      stream: row.stream,
      command,
      signal,
      now: now(),
      send: commandFunctions(name, streams, uuid, keyOf, send) as SendLater<Streams>,
      start: startFunctions(name, workflows, uuid, idOf, start) as StartLater<Workflows>,
      fail: (reason) => {
        throw new Failed(String(reason));
      },
    };
    const decided = await this.#handlers[row.name]!(ctx, JSON.parse(row.args));
    isDeciding = false;
    const events = eventsOf(this.aggregate, this.#stream, decided, uuid);
    if ([events, sends, starts].some(({ length }) => length > COMPLETION_ITEMS_MAX)) {
      throw new Error(`a command records, sends and starts ${COMPLETION_ITEMS_MAX} at most`);
    }
    return { events, sends, starts };
  }
}

function streamOf(
  { name, streams = {}, workflows = {} }: OpenStreams['doctype'],
  aggregate: string,
): Stream {
  if (Object.hasOwn(streams, aggregate)) return streams[aggregate]!;
  const there = Object.keys({ ...streams, ...workflows });
  throw new InvalidOptionError(
    `${name} has no stream or workflow ${aggregate}: it has ${there.join(', ')}`,
  );
}

/** The names of the commands that are handled. */
function checkHandlers(aggregate: string, of: Stream, handlers: AnyHandlers): readonly string[] {
  const { commands, evolve = {}, erased } = Object(handlers) as AnyHandlers;
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
  if (erased !== undefined && typeof erased !== 'function') {
    throw new InvalidOptionError('erased has to be a function');
  }
  return check('command', of.commands ?? {}, commands);
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
      const there = Object.keys(events).join(', ') || 'none';
      throw new UnknownEventError(`${aggregate} has no event ${type}: it has ${there}`);
    }
    const fields: ParamTypes = events[type]!.fields;
    const bound = argumentBinder(`event ${aggregate}.${type}`, fields, drawUuid)(data);
    return [type, jsonOf(fields, bound)] as const;
  });
}
