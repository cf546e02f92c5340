/** Runs of workflows that go on here: `db.handle`, and what their code is given. */

import {
  type Attempt,
  Attempts,
  type GivenRow,
  type HandleOptions,
  type Handling,
  type Work,
} from './attempts.js';
import type { EventFields, Stream, Streams, Workflow, Workflows } from './doctype.js';
import type { Duration } from './durations.js';
import { InvalidOptionError } from './errors.js';
import type { EventData, RecordedEvent } from './events.js';
import { type Code, Run } from './run.js';
import type { CommandFields, CommandNameOf, SendOne } from './sending.js';
import type { FieldsOf, StartLater } from './starting.js';
import type { OpenStreams } from './streams.js';

/** A run as it is given to a handler. */
export interface GivenRun {
  /** Its place among all commands and runs of the document, from 1; another one as it goes on as
   * new. */
  readonly number: number;
  /** The workflow's name. */
  readonly workflow: string;
  /** Which run of it. */
  readonly id: string;
  /** The version that it was started with. */
  readonly version: number;
  /** When it was started, milliseconds since the epoch by the clock of that device. */
  readonly time: number;
  /** Who has started it: `:user`. */
  readonly user: string;
  /** The copy that has started it: `:client`. */
  readonly client: string;
  /** Which attempt this is, from 1: each time that it goes on is one. */
  readonly attempt: number;
}

/** What JSON makes of a value. */
export type AsJson<Value> = unknown extends Value
  ? Value
  : Value extends string | number | boolean | null
    ? Value
    : Value extends { toJSON(): infer Json }
      ? AsJson<Json>
      : Value extends undefined | ((...given: never) => unknown) | symbol
        ? null
        : Value extends object
          ? { [Name in keyof Value]: AsJson<Value[Name]> }
          : Value extends void
            ? null
            : never;

/** How a step is tried. */
export interface StepOptions {
  /** How often it is tried again where it throws, later each time; 5 by default. */
  readonly retries?: number | undefined;
  /**
   * How long a try may take before it counts as one that has failed: milliseconds, or a text as
   * `'30s'`, `'5m'`, `'2h'` or `'3d'`; 30 seconds by default, 0 for as long as it likes.
   */
  readonly timeout?: Duration | undefined;
}

/** How a request is tried, and what is kept of its result. */
export interface RequestOptions<Result = unknown, Kept = unknown> extends StepOptions {
  /** What is recorded of the result; without it the result itself, as JSON. */
  readonly keep?: ((result: Result) => Kept | Promise<Kept>) | undefined;
}

/** By what name something is found again. */
export interface Named {
  /** Without one it has one that says what it is, as `sleep`. */
  readonly name?: string | undefined;
}

/** How long an event is waited for. */
export interface WaitOptions extends Named {
  /** Milliseconds, or a text as `'30s'` or `'7d'`; for as long as it takes where it is left out. */
  readonly timeout?: Duration | undefined;
}

/** What a command of a run has recorded: its first event and its last one, by their sequence. */
export interface SentOutcome {
  readonly first: number;
  readonly last: number;
}

type EventsOf<Of extends Stream> = Of extends Stream<infer Fields> ? Fields : never;

type EventOfType<
  Recorded extends Streams,
  Aggregate extends keyof Recorded & string,
  Type extends string,
> = RecordedEvent<
  Aggregate,
  Type,
  EventsOf<Recorded[Aggregate]> extends infer Fields extends EventFields
    ? EventData<Fields[Type]>
    : never
>;

/** The commands of a doctype as functions that send one, and wait for its end. */
export type SendAndWait<Recorded extends Streams> = {
  readonly [Aggregate in keyof Recorded & string]: {
    readonly [Name in CommandNameOf<Recorded[Aggregate]>]: SendOne<
      CommandFields<Recorded[Aggregate], Name>,
      Promise<SentOutcome | null>
    >;
  };
};

/**
 * What the code of a workflow is given beside the arguments of a run. Whatever it does by this is
 * recorded by name, and is not done again when the run goes on elsewhere: the code is run from its
 * beginning then, and is answered from the records. So what it does besides has to come to the same
 * each time.
 */
export interface WorkflowContext<
  Recorded extends Streams = Streams,
  Flows extends Workflows = Workflows,
> {
  /** The workflow's name. */
  readonly workflow: string;
  /** Which run of it this is. */
  readonly id: string;
  /** The version that the run was started with. */
  readonly version: number;
  /** Which attempt this is, from 1. */
  readonly attempt: number;
  /** The run. */
  readonly run: GivenRun;
  /** Aborted once this attempt counts no longer: the run waits, goes on elsewhere, or is over. */
  readonly signal: AbortSignal;
  /**
   * Milliseconds since the epoch by the server's clock, of the latest that the run has seen; at the
   * beginning when it was started. The same each time.
   */
  readonly now: number;
  /** A number from 0 up to 1, the same each time. */
  random(): number;
  /**
   * Does something, at least once, and records what it comes to, as JSON of at most 256 KiB.
   * Where it throws it is tried again, later each time; after that it has failed, which is
   * recorded too: `StepFailedError`.
   */
  step<Result>(
    name: string,
    run: (step: { readonly signal: AbortSignal }) => Result | Promise<Result>,
    options?: StepOptions,
  ): Promise<AsJson<Result>>;
  /**
   * The same for what is asked of others: with a key that is the same at each try, by which they
   * can tell that it is the same request.
   */
  request<Result, Kept>(
    name: string,
    run: (request: {
      readonly key: string;
      readonly signal: AbortSignal;
    }) => Result | Promise<Result>,
    options: RequestOptions<Result, Kept> & {
      readonly keep: (result: Result) => Kept | Promise<Kept>;
    },
  ): Promise<AsJson<Kept>>;
  request<Result>(
    name: string,
    run: (request: {
      readonly key: string;
      readonly signal: AbortSignal;
    }) => Result | Promise<Result>,
    options?: RequestOptions<Result>,
  ): Promise<AsJson<Result>>;
  /** Waits: milliseconds, or a text as `'30s'`, `'5m'`, `'2h'` or `'3d'`. */
  sleep(duration: Duration, options?: Named): Promise<void>;
  /**
   * Waits for an event of a stream: the first one since the run's start that it has not had. Null
   * once the time is over.
   */
  waitFor<
    Aggregate extends keyof Recorded & string,
    Type extends keyof EventsOf<Recorded[Aggregate]> & string,
  >(
    aggregate: Aggregate,
    stream: string,
    type: Type,
    options?: Named & { readonly timeout?: undefined },
  ): Promise<EventOfType<Recorded, Aggregate, Type>>;
  waitFor<
    Aggregate extends keyof Recorded & string,
    Type extends keyof EventsOf<Recorded[Aggregate]> & string,
  >(
    aggregate: Aggregate,
    stream: string,
    type: Type,
    options?: WaitOptions,
  ): Promise<EventOfType<Recorded, Aggregate, Type> | null>;
  /**
   * Sends commands, each as soon as it is called. Resolves once it has completed, to its events, or
   * null where it has recorded none, and rejects with `CommandFailedError`; nobody has to wait.
   */
  readonly send: SendAndWait<Recorded>;
  /**
   * Starts runs of workflows, each as soon as it is called. Resolves to what one has returned, and
   * rejects with `WorkflowFailedError`; nobody has to wait for it.
   */
  readonly start: StartLater<Flows, Promise<unknown>>;
  /**
   * Ends this run and begins it anew under its id: with these arguments, and without records. It is
   * given no event again that this one was given.
   */
  continueAsNew(args: unknown): never;
  /** Ends the run: it has failed, for that reason. */
  fail(reason: string): never;
}

/** The code of a workflow. */
export type RunHandler<
  Recorded extends Streams,
  Flows extends Workflows,
  Name extends keyof Flows & string,
> = (ctx: WorkflowContext<Recorded, Flows>, args: EventData<FieldsOf<Flows[Name]>>) => unknown;

/** How runs of a workflow go on: those of the doctype's version; or a function for each version. */
export type RunHandlers<
  Recorded extends Streams,
  Flows extends Workflows,
  Name extends keyof Flows & string,
> =
  | RunHandler<Recorded, Flows, Name>
  | { readonly [version: number]: RunHandler<Recorded, Flows, Name> };

/** `db.handle`, of runs. */
export function handleRuns(document: OpenStreams, given: readonly unknown[]): Handling {
  const [workflow, handlers, options] = given as [
    string,
    unknown,
    HandleOptions<GivenRun> | undefined,
  ];
  document.mustBeOpen();
  return new Attempts(document, new Running(document, workflow, handlers), options ?? {});
}

/** How the runs of a workflow go on. */
class Running implements Work<GivenRun> {
  readonly aggregate: string;
  readonly names: readonly string[];
  readonly #document: OpenStreams;
  readonly #codes: ReadonlyMap<string, Code>;

  constructor(document: OpenStreams, workflow: string, handlers: unknown) {
    const { name, workflows = {} } = document.doctype;
    if (!Object.hasOwn(workflows, workflow)) {
      const there = Object.keys(workflows);
      throw new InvalidOptionError(`${name} has no workflow ${workflow}: it has ${there}`);
    }
    this.#document = document;
    this.#codes = codesOf(workflow, workflows[workflow]!, handlers);
    this.aggregate = workflow;
    this.names = [...this.#codes.keys()];
  }

  given(row: GivenRow, client: string): GivenRun {
    const { number, aggregate: workflow, stream: id, name, time, user, attempt } = row;
    return { number, workflow, id, version: Number(name), time, user, client, attempt };
  }

  carryOut(attempt: Attempt<GivenRun>): Promise<void> {
    // The authority gives what is handled and nothing else.
    const code = this.#codes.get(attempt.row.name)!;
    return new Run(this.#document, attempt).carryOut(code);
  }
}

/** The functions by their versions. */
function codesOf(
  workflow: string,
  { version }: Workflow,
  handlers: unknown,
): ReadonlyMap<string, Code> {
  const given = typeof handlers === 'function' ? { [version]: handlers } : Object(handlers);
  const codes = new Map(Object.entries<unknown>(given).filter(([, it]) => it !== undefined));
  for (const [of, code] of codes) {
    if (!/^[1-9]\d*$/.test(of) || Number(of) > version) {
      throw new InvalidOptionError(`${workflow} has no version ${of}: it has 1 to ${version}`);
    }
    if (typeof code !== 'function') {
      throw new InvalidOptionError(`what runs version ${of} of ${workflow} has to be a function`);
    }
  }
  if (codes.size === 0) {
    throw new InvalidOptionError(`${workflow} has to be given a function that runs it`);
  }
  return codes as ReadonlyMap<string, Code>;
}
