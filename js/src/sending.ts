/** Sending commands, and what becomes of them: `db.send` and `db.outcome`. */

import { type NewCommand, outcomeRequest } from './command-requests.js';
import { isProbe } from './database.js';
import {
  type Arguments,
  argumentBinder,
  type Bound,
  type Command,
  type IssuedArguments,
  isText,
  type ParamTypes,
  type Stream,
  type Streams,
  unbindArguments,
} from './doctype.js';
import {
  CommandFailedError,
  type CommandName,
  InvalidOptionError,
  KeyReusedError,
  MutationArgumentError,
  RejectedError,
  type TidelogError,
  UnknownMutationError,
} from './errors.js';
import { readEvents, recordedOf } from './event-rows.js';
import type { EventOf, RecordedEvent } from './events.js';
import { issue, type Receipt } from './receipt.js';
import type { OpenStreams } from './streams.js';

/** Bytes of a command's key, as in crate `types`. */
export const COMMAND_KEY_SIZE_MAX = 256;

/** What begins the reason of a rejection where a key stands for another command. */
const KEY_REUSED = 'key reused: ';

/** How a command is sent. */
export interface SendOptions {
  /**
   * What it is known by: of one stream and one type of command each key counts once, from whichever
   * device, so that what is sent again is the same command. 1 to 256 bytes; where none is given a
   * UUID is drawn. A key is free again 24 hours after the end of its command.
   */
  readonly key?: string | undefined;
}

/** What a command came to. */
export interface CommandOutcome<Event = RecordedEvent> {
  /** The events that it has recorded, which may be none. */
  readonly events: readonly Event[];
}

/** What becomes of a command: a {@link Receipt} of the mutation that sends it, and of its end. */
export interface CommandReceipt<Args = Readonly<Record<string, unknown>>, Event = RecordedEvent>
  extends Receipt<Args> {
  /** The key that it was sent by. */
  readonly key: string;
  /**
   * What it came to, once somebody has handled it, however long that takes. Rejects with
   * `CommandFailedError` where it has failed for good, and as `confirmed` does where it was not
   * received. Nobody has to listen to it.
   */
  readonly completed: Promise<CommandOutcome<Event>>;
}

type CommandsOf<Of extends Stream> = NonNullable<Of['commands']>;

/** The names of what an aggregate may be asked to do; none where nothing is said of that. */
export type CommandNameOf<Of extends Stream> = string extends keyof CommandsOf<Of>
  ? never
  : keyof CommandsOf<Of> & string;

/** The arguments of a command of that name, as they are declared. */
export type CommandFields<Of extends Stream, Name extends CommandNameOf<Of>> =
  CommandsOf<Of>[Name] extends Command<infer Fields> ? Fields : never;

/** What is given for these fields. Of JSON that was read nobody knows what it is. */
export type GivenData<Fields extends ParamTypes> = {
  readonly [Name in keyof Arguments<Fields>]: Fields[Name & keyof Fields] extends `json${string}`
    ? unknown
    : Arguments<Fields>[Name];
};

/** A function that sends one type of command. */
export type SendOne<Fields extends ParamTypes, Sent> =
  Record<never, never> extends Arguments<Fields>
    ? (stream: string, args?: GivenData<Fields>, options?: SendOptions) => Sent
    : (stream: string, args: GivenData<Fields>, options?: SendOptions) => Sent;

/** The commands of a doctype as functions, by aggregate and name; of any doctype whatever. */
export type Send<Recorded extends Streams> = string extends keyof Recorded
  ? unknown
  : {
      readonly [Aggregate in keyof Recorded & string]: {
        readonly [Name in CommandNameOf<Recorded[Aggregate]>]: SendOne<
          CommandFields<Recorded[Aggregate], Name>,
          CommandReceipt<
            IssuedArguments<CommandFields<Recorded[Aggregate], Name>>,
            EventOf<Pick<Recorded, Aggregate>>
          >
        >;
      };
    };

/** The same from a handler: what is sent is sent once its own command completes. */
export type SendLater<Recorded extends Streams> = {
  readonly [Aggregate in keyof Recorded & string]: {
    readonly [Name in CommandNameOf<Recorded[Aggregate]>]: SendOne<
      CommandFields<Recorded[Aggregate], Name>,
      void
    >;
  };
};

/** A command with what it is given, as that was bound and as JSON. */
export interface Sent extends NewCommand {
  readonly bound: Bound;
}

/** Functions for the commands of streams, each of which gives what it is asked to `send`. */
export function commandFunctions(
  doctype: string,
  streams: Streams,
  drawUuid: () => string,
  keyOf: (called: string) => string,
  send: (sent: Sent, fields: ParamTypes) => unknown,
): object {
  const aggregates = Object.entries(streams).map(([aggregate, { commands = {} }]) => {
    const functions = Object.entries(commands).map(([name, { fields }]) => {
      const called = `${aggregate}.${name}`;
      const bind = argumentBinder(called, fields, drawUuid);
      const sendOne = (stream: unknown, args: unknown, { key }: SendOptions = {}): unknown => {
        if (!isText(stream)) {
          throw new MutationArgumentError(`${called}: which ${aggregate} comes first, as a string`);
        }
        const bound = bind(args);
        const sent = { aggregate, stream, name, key: checkedKey(key ?? keyOf(called)) };
        return send({ ...sent, bound, args: jsonOf(fields, bound) }, fields);
      };
      return [name, sendOne] as const;
    });
    const what = `stream ${aggregate} of ${doctype} has no command`;
    return [aggregate, orUnknown(what, Object.fromEntries(functions))] as const;
  });
  return orUnknown(`${doctype} has no stream`, Object.fromEntries(aggregates));
}

/** Members, over what says of each other name that there is none. */
export function orUnknown(what: string, members: Readonly<Record<string, unknown>>): object {
  const get = (_: unknown, name: string | symbol): undefined => {
    if (isProbe(name)) return undefined;
    throw new UnknownMutationError(`${what} ${name}: it has ${Object.keys(members)}`);
  };
  return Object.assign(Object.create(new Proxy({}, { get })), members);
}

function checkedKey(key: unknown): string {
  if (!isText(key) || key === '' || new TextEncoder().encode(key).length > COMMAND_KEY_SIZE_MAX) {
    throw new InvalidOptionError(
      `a command's key has to be a string of 1 to ${COMMAND_KEY_SIZE_MAX} bytes`,
    );
  }
  return key;
}

/** A JSON object of what was bound: what was left out is left out. */
export function jsonOf(fields: ParamTypes, bound: Bound): string {
  const members = bound.flatMap(([name, value]) => {
    if (value === null) return [];
    const kind = fields[name]!.replace('?', '');
    const isBare = kind === 'json' || typeof value === 'bigint';
    const json = isBare ? value : JSON.stringify(kind === 'boolean' ? value === 1 : value);
    return [`${JSON.stringify(name)}:${json}`];
  });
  return `{${members.join(',')}}`;
}

/** The functions of `db.send`. */
export function sendersOf(document: OpenStreams): object {
  const { doctype, connection } = document;
  const { uuid } = connection.host;
  const send = (sent: Sent, fields: ParamTypes): Receipt => {
    const { aggregate, stream, name, key, args } = sent;
    const issued = issue(() => unbindArguments(fields, Object.fromEntries(sent.bound)));
    let completed: Promise<CommandOutcome> | undefined;
    Object.defineProperties(issued.receipt, {
      key: { value: key },
      completed: {
        get() {
          completed ??= issued.receipt.confirmed.then(() => askOutcome(document, sent));
          completed.catch(() => {});
          return completed;
        },
      },
    });
    const bound = Object.entries({ stream, args, key });
    const failed = (error: TidelogError, last: boolean): void => issued.failed(named(error), last);
    return document.mutate(`send:${aggregate}.${name}`, bound, { ...issued, failed });
  };
  return commandFunctions(doctype.name, doctype.streams ?? {}, uuid, uuid, send);
}

/** That a key was used before has a class of its own. */
export function named(error: TidelogError): TidelogError {
  if (!(error instanceof RejectedError) || !error.reason.startsWith(KEY_REUSED)) return error;
  return new KeyReusedError(error.message, { ...error });
}

/** `db.outcome`. */
export function outcomeOf(document: OpenStreams, given: readonly unknown[]): unknown {
  const [aggregate, stream, name, key, options] = given as readonly string[];
  const { name: doctype, streams = {} } = document.doctype;
  const commands = Object.hasOwn(streams, aggregate!) ? streams[aggregate!]!.commands : undefined;
  if (!commands || !Object.hasOwn(commands, name!)) {
    throw new UnknownMutationError(`${doctype} has no command ${name} of a stream ${aggregate}`);
  }
  if (!isText(stream)) throw new InvalidOptionError(`which ${aggregate} has to be a string`);
  const command = { aggregate: aggregate!, stream, name: name!, key: checkedKey(key) };
  const { signal } = Object(options) as { signal?: AbortSignal };
  return askOutcome(document, command, signal);
}

/** Waits until a command is over, and reads what it has recorded. */
async function askOutcome(
  document: OpenStreams,
  { aggregate, stream, name, key }: CommandName,
  signal?: AbortSignal,
): Promise<CommandOutcome> {
  const command = { aggregate, stream, name, key };
  const [row] = await document.rows('outcome', { request: outcomeRequest(command) }, signal);
  const said = `command ${name} of ${aggregate} ${stream}`;
  if (!row) {
    const reason = 'nobody knows any more what became of it';
    throw new CommandFailedError(`${said}: ${reason}`, { outcome: 'unknown', command, reason });
  }
  if (row.state !== 'completed') {
    const reason = String(row.reason);
    throw new CommandFailedError(`${said} has failed: ${reason}`, { command, reason });
  }
  const events: RecordedEvent[] = [];
  const [first, last] = [Number(row.first), Number(row.last)];
  for (let after = first - 1; row.first !== null && after < last; ) {
    const wanted = { aggregate, stream, types: [], after, waits: false, consumer: undefined };
    const rows = await readEvents(document, wanted, signal);
    if (rows.length === 0) break;
    for (const it of rows) {
      after = it.sequence;
      if (after <= last) events.push(recordedOf(it));
    }
  }
  return { events };
}
