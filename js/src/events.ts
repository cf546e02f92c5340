/**
 * Events: what has happened to the things that an app is about, kept in the document beside the
 * rows that follow from it; commands, and workflows.
 *
 * Start with {@link stream}, and {@link workflow}.
 */

import {
  type ArgumentValues,
  areTypes,
  type Command,
  type Commands,
  type DoctypeDefinition,
  EVENTS,
  type EventDefinition,
  type EventFields,
  type EventsCode,
  isTexts,
  type ParamTypes,
  type Stream,
  type Streams,
  writeNamed,
  writeTexts,
  writeTypes,
} from './doctype.js';
import { DoctypeError, InvalidOptionError } from './errors.js';
import { type EventRow, readEvents, recordedOf, type WantedEvents } from './event-rows.js';
import type { Abortable } from './sql.js';

export type { HandleOptions, Handling } from './attempts.js';
export { type CommandOptions, command } from './commands.js';
export type {
  Command,
  Commands,
  EventDefinition,
  EventFields,
  Stream,
  Streams,
  Workflow,
  Workflows,
} from './doctype.js';
export type { Duration } from './durations.js';
export type { CommandContext, GivenCommand, Handlers, NewEvent } from './handling.js';
export type {
  AsJson,
  GivenRun,
  RequestOptions,
  RunHandler,
  RunHandlers,
  SentOutcome,
  StepOptions,
  WaitOptions,
  WorkflowContext,
} from './running.js';
export type {
  CommandOutcome,
  CommandReceipt,
  Send,
  SendLater,
  SendOptions,
} from './sending.js';
export type { Cancel, Start, StartLater, StartOptions, WorkflowReceipt } from './starting.js';
export { type WorkflowOptions, workflow } from './workflows.js';

/** What {@link stream} wants to know. */
export interface StreamOptions<Fields extends EventFields, Accepted extends Commands> {
  /** The fields of each type of event, at its newest version: `{ placed: { items: 'json' } }`. */
  readonly events: Fields;
  /**
   * For types that have changed: SQL expressions of `:data`, the first of which makes of what was
   * recorded at version 1 what it is at version 2, and so on. Append only.
   */
  readonly upcast?: { readonly [Type in keyof Fields]?: readonly string[] };
  /**
   * What follows from an event in the tables: SQL that runs in the transaction in which it is
   * recorded, with its fields, `:stream`, `:sequence`, `:position`, `:now`, `:client` and `:user`.
   * It may `reject()`: then nothing has happened.
   */
  readonly project?: { readonly [Type in keyof Fields]?: string | readonly string[] };
  /** What it may be asked to do, by name: see {@link command}. */
  readonly commands?: Accepted;
}

/** Which events {@link Database.events} gives, and until when. */
export interface EventsOptions<Type extends string = string> extends Abortable {
  /** Behind this sequence number; 0 for all, as by default. */
  readonly after?: number | undefined;
  /** Of these types alone. */
  readonly types?: readonly Type[] | undefined;
  /**
   * Goes on behind those that a loop with this name has dealt with, here and in any tab of this
   * copy of the document: each event at least once, and again where the tab ended meanwhile. An
   * event is dealt with when the loop asks for the next one, which a `break` does not. The names of
   * 64 consumers are kept, of at most 256 bytes.
   */
  readonly consumer?: string | undefined;
  /** Whether it goes on with those that are yet to come, as by default, or ends behind the last. */
  readonly live?: boolean | undefined;
}

type Optional<Fields extends ParamTypes> = {
  [Name in keyof Fields]: Fields[Name] extends `${string}?` ? Name : never;
}[keyof Fields];

type JsonOf<Type> = Type extends `${infer Kind}?`
  ? JsonOf<Kind>
  : Type extends 'integer'
    ? number
    : Type extends 'json'
      ? unknown
      : Type extends keyof ArgumentValues
        ? ArgumentValues[Type]
        : never;

/** The data of an event with these fields. */
export type EventData<Fields extends ParamTypes> = {
  readonly [Name in Exclude<keyof Fields, Optional<Fields>>]: JsonOf<Fields[Name]>;
} & { readonly [Name in Optional<Fields>]?: JsonOf<Fields[Name]> | null };

/** An event as it was recorded. */
export interface RecordedEvent<Aggregate = string, Type = string, Data = unknown> {
  /** Its place among all events of the document, from 1, without gaps. */
  readonly sequence: number;
  /** The name of its aggregate. */
  readonly aggregate: Aggregate;
  /** Which of those. */
  readonly stream: string;
  /** Its place among the events of that, from 1, without gaps. */
  readonly position: number;
  /** The name of its type. */
  readonly type: Type;
  /**
   * The version of its data, from 1: that of the doctype, or a later one that a newer release of
   * the app has recorded.
   */
  readonly version: number;
  /** What it says. Of an event that was {@link erased} that is `{}`, whatever its type says. */
  readonly data: Data;
  /**
   * Whether somebody has erased what it said: it has no data, user or client then, and no upcast
   * has run on it. That it happened, to what, where among all events and when, stays.
   */
  readonly erased: boolean;
  /**
   * When its mutation was issued, milliseconds since the epoch by the clock of that device; of one
   * that whoever runs the server has recorded, what that said.
   */
  readonly time: number;
  /** Whose mutation that was: `:user`. */
  readonly user: string;
  /** The copy that issued it: `:client`. */
  readonly client: string;
  /**
   * What it was recorded by: `mutation:` and the name of that, `command:` and its number, or
   * `append`, where whoever runs the server has.
   */
  readonly cause: string;
}

/** The events of these streams. */
export type EventOf<Recorded extends Streams> = {
  [Aggregate in keyof Recorded & string]: Recorded[Aggregate] extends Stream<infer Fields>
    ? {
        [Type in keyof Fields & string]: RecordedEvent<Aggregate, Type, EventData<Fields[Type]>>;
      }[keyof Fields & string]
    : never;
}[keyof Recorded & string];

/**
 * Defines what may happen to an aggregate: a thing of the app, as an order, of which each has a
 * stream of events of its own. A mutation records one by inserting its aggregate, stream, type and
 * data, a JSON object, into `tidelog_events`.
 *
 * @example
 * ```ts
 * const shop = doctype({
 *   name: 'shop',
 *   migrations: ['create table orders (id text primary key, items text, state text) strict'],
 *   mutations: {
 *     place: mutation(
 *       { id: 'text', items: 'json' },
 *       `insert into tidelog_events (aggregate, stream, type, data)
 *        values ('order', :id, 'placed', json_object('items', json(:items)))`,
 *     ),
 *   },
 *   streams: {
 *     order: stream({
 *       events: { placed: { items: 'json' }, shipped: {} },
 *       project: {
 *         placed: `insert into orders (id, items, state) values (:stream, :items, 'placed')`,
 *         shipped: `update orders set state = 'shipped' where id = :stream`,
 *       },
 *     }),
 *   },
 * });
 * ```
 */
export function stream<
  const Fields extends EventFields,
  const Accepted extends Commands = Record<never, never>,
>({
  events,
  upcast = {},
  project = {},
  commands,
}: StreamOptions<Fields, Accepted>): Stream<Fields, Accepted> {
  const definitions: Record<string, EventDefinition> = {};
  for (const [type, fields] of Object.entries(events ?? {})) {
    const { [type]: casts = [] } = upcast as Readonly<Record<string, readonly string[]>>;
    const { [type]: sql = [] } = project as Readonly<Record<string, string | readonly string[]>>;
    definitions[type] = { fields, upcast: casts, project: typeof sql === 'string' ? [sql] : sql };
  }
  for (const type of [...Object.keys(upcast), ...Object.keys(project)]) {
    if (!Object.hasOwn(definitions, type)) throw new DoctypeError(`there is no event ${type}`);
  }
  const [one] = Object.values(Object(commands)) as Command[];
  const made = { events: definitions, ...(one && { commands }) };
  const flaw = CODE.flawOf(made);
  if (flaw) throw new DoctypeError(`a stream ${flaw}`);
  return { ...made, [EVENTS]: { ...CODE, ...one?.[EVENTS] } } as unknown as Stream<
    Fields,
    Accepted
  >;
}

const isCommand = ({ fields, received, failed, retries, timeout }: Partial<Command>): boolean =>
  areTypes(fields) &&
  isTexts(received) &&
  isTexts(failed) &&
  Number.isInteger(retries) &&
  Number.isInteger(timeout);

const CODE: EventsCode = {
  flawOf(stream) {
    const { events, commands = {} } = Object(stream) as Partial<Stream>;
    if (Object(events) !== events) return 'has to have events';
    const isEvent = ({ fields, upcast, project }: Partial<EventDefinition>): boolean =>
      areTypes(fields) && isTexts(upcast) && isTexts(project);
    const odd = Object.entries(events!).find(([, event]) => !isEvent(Object(event)));
    if (odd) {
      const wanted = 'whose fields have to be types by name, its upcast and project SQL';
      return `has an event ${odd[0]} ${wanted}`;
    }
    const none = Object.entries(commands).find(([, it]) => !isCommand(Object(it)));
    return none && `has a command ${none[0]} that has to be what command() returned`;
  },

  write(w, { events, commands = {} }) {
    writeNamed(w, events, ({ fields, upcast, project }) => {
      writeTypes(w, fields);
      writeTexts(w, upcast);
      writeTexts(w, project);
    });
    writeNamed(w, commands, ({ fields, received, failed, retries, timeout }) => {
      writeTypes(w, fields);
      writeTexts(w, received);
      writeTexts(w, failed);
      w.u32(retries);
      w.u32(timeout);
    });
  },

  events({ doctype, rows, mustBeOpen }, wanted) {
    const texts = wanted.filter((it) => typeof it === 'string');
    const options = Object(wanted[texts.length]) as EventsOptions;
    const { after = 0, types = [], live = true, signal, consumer: name } = options;
    const [aggregate, stream] = texts;
    mustHave(doctype, aggregate, types);
    if (!Number.isSafeInteger(after) || after < 0) {
      throw new InvalidOptionError('after has to be the sequence number of an event, or 0');
    }
    if (name !== undefined && (typeof name !== 'string' || name === '')) {
      throw new InvalidOptionError('consumer has to be a name');
    }
    const left = new AbortController();
    const leave = (): void => left.abort(signal?.reason);
    if (signal?.aborted) leave();
    signal?.addEventListener('abort', leave, { once: true });
    const consumer = name === undefined ? undefined : { name, begins: true };
    const found = { aggregate, stream, types, after, waits: live, consumer };
    const mayGoOn = (): void => {
      left.signal.throwIfAborted();
      mustBeOpen();
    };
    const end = (): void => signal?.removeEventListener('abort', leave);
    const read = (it: WantedEvents): Promise<EventRow[]> => readEvents({ rows }, it, left.signal);
    const events = follow(found, read, mayGoOn, end);
    return Object.assign(events, {
      // Unlike that of a generator it does not wait for an event that may never come.
      return: () => {
        end();
        left.abort(LEFT);
        return Promise.resolve({ done: true, value: undefined });
      },
    });
  },
};

/** Why nobody waits any more, where that is no error. */
const LEFT = new Error('nobody waits for events any more');

async function* follow(
  wanted: WantedEvents,
  read: (it: WantedEvents) => Promise<EventRow[]>,
  mayGoOn: () => void,
  end: () => void,
): AsyncGenerator<RecordedEvent, undefined, undefined> {
  let { after, consumer } = wanted;
  try {
    for (;;) {
      const rows = await read({ ...wanted, after, consumer });
      if (rows.length === 0) return;
      for (const event of rows) {
        // Many may have come at once, and whoever has left is told none of them.
        mayGoOn();
        yield recordedOf(event);
        after = event.sequence;
      }
      consumer &&= { ...consumer, begins: false };
    }
  } catch (error) {
    if (error !== LEFT) throw error;
  } finally {
    end();
  }
}

function mustHave(
  { name, streams = {} }: DoctypeDefinition,
  aggregate: string | undefined,
  types: readonly string[],
): void {
  const there = Object.keys(streams);
  if (aggregate !== undefined && !there.includes(aggregate)) {
    throw new InvalidOptionError(`${name} has no stream ${aggregate}: it has ${there}`);
  }
  const streamed = aggregate === undefined ? Object.values(streams) : [streams[aggregate]!];
  const known = streamed.flatMap(({ events }) => Object.keys(events));
  const odd = types.find((type) => !known.includes(type));
  if (odd !== undefined) {
    throw new InvalidOptionError(`${name} has no event ${odd} there: it has ${known}`);
  }
}
