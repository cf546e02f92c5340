/** What an app says of a kind of document, and the checks on what it gives to mutations. */

import type { Value, Writer } from './codec.js';
import { DoctypeError, MutationArgumentError } from './errors.js';
import type { OpenStreams } from './streams.js';

/** A type that an argument may have. */
export type ArgumentKind = keyof ArgumentValues;

/**
 * A type of argument; with a trailing `?` the argument may be left out, which is null. One of type
 * `uuid` may always be left out: without a `?` the tab draws one.
 */
export type ArgumentType = ArgumentKind | `${ArgumentKind}?`;

/** The parameters of a mutation by name. */
export type ParamTypes = Readonly<Record<string, ArgumentType>>;

/** What may be given for each kind. */
export interface ArgumentValues {
  /** Text without lone surrogates. */
  text: string;
  /** A safe integer, or a bigint of 64 bits. */
  integer: number | bigint;
  /** A finite number. */
  real: number;
  /** Bytes; they are copied. */
  blob: Uint8Array | ArrayBuffer;
  /** 1 or 0 in SQL. */
  boolean: boolean;
  /** Anything that `JSON.stringify` takes; its text in SQL. */
  json: NonNullable<unknown> | null;
  /** A UUID; in lower case in SQL. */
  uuid: string;
}

type Named<Types extends ParamTypes, Type extends ArgumentType> = {
  [Name in keyof Types]: Types[Name] extends Type ? Name : never;
}[keyof Types];

type Optional<Types extends ParamTypes> = Named<Types, `${ArgumentKind}?`>;

type KindOf<Type> = Type extends `${infer Kind extends ArgumentKind}?` ? Kind : Type;

type ValueOf<Type> = ArgumentValues[KindOf<Type> & ArgumentKind];

/** The arguments of a mutation with these parameters. */
export type Arguments<Types extends ParamTypes> = {
  readonly [Name in Exclude<keyof Types, Optional<Types> | Named<Types, 'uuid'>>]: ValueOf<
    Types[Name]
  >;
} & {
  readonly [Name in Optional<Types>]?: ValueOf<Types[Name]> | null | undefined;
} & {
  readonly [Name in Named<Types, 'uuid'>]?: string;
};

/** The same as a mutation was issued with them: with what was left out. */
export type IssuedArguments<Types extends ParamTypes> = {
  readonly [Name in Exclude<keyof Types, Optional<Types>>]: ValueOf<Types[Name]>;
} & {
  readonly [Name in Optional<Types>]: ValueOf<Types[Name]> | null;
};

/** A named, deterministic change: see {@link mutation}. */
export interface Mutation<Types extends ParamTypes = ParamTypes> {
  /** Its parameters by name. */
  readonly params: Types;
  /** Its statements, one transaction. */
  readonly sql: readonly string[];
}

/** The mutations of a doctype by name. */
export type Mutations = Readonly<Record<string, Mutation>>;

/** The fields of events, by the names of their types. */
export type EventFields = Readonly<Record<string, ParamTypes>>;

/** What may happen to an aggregate: see `stream` in `tidelog/events`. */
export interface Stream<
  Fields extends EventFields = EventFields,
  Accepted extends Commands = Commands,
> {
  /** Its events by the names of their types. */
  readonly events: { readonly [Type in keyof Fields]: EventDefinition<Fields[Type]> };
  /** What it may be asked to do, by name; absent where that is nothing. */
  readonly commands?: Accepted;
  /** @internal */
  readonly [EVENTS]?: EventsCode;
}

/** A type of event. */
export interface EventDefinition<Fields extends ParamTypes = ParamTypes> {
  /** What its data have, at its newest version. */
  readonly fields: Fields;
  /** SQL expressions of `:data`, each of which brings older data to the next version. */
  readonly upcast: readonly string[];
  /** SQL that runs in the transaction in which it is recorded. */
  readonly project: readonly string[];
}

/** A type of command: see `command` in `tidelog/events`. */
export interface Command<Fields extends ParamTypes = ParamTypes> {
  /** What its arguments are. */
  readonly fields: Fields;
  /** SQL that runs as it is received: where it is sent, and then where that is decided. */
  readonly received: readonly string[];
  /** SQL that runs once it has failed for good. */
  readonly failed: readonly string[];
  /** How often it is tried again. */
  readonly retries: number;
  /** Milliseconds that an attempt may take; 0 for as long as it likes. */
  readonly timeout: number;
  /** @internal */
  readonly [EVENTS]?: CommandsCode;
}

/** The commands of an aggregate by name. */
export type Commands = Readonly<Record<string, Command>>;

/** The streams of a doctype by the names of their aggregates. */
export type Streams = Readonly<Record<string, Stream>>;

/** A workflow: see `workflow` in `tidelog/events`. */
export interface Workflow<Fields extends ParamTypes = ParamTypes> {
  /** Which version of it runs have that are started from now on. */
  readonly version: number;
  /** What the arguments of a run are. */
  readonly fields: Fields;
  /** @internal */
  readonly [EVENTS]?: WorkflowsCode;
}

/** The workflows of a doctype by name. */
export type Workflows = Readonly<Record<string, Workflow>>;

/**
 * @internal What streams and workflows bring along, so that apps without any load nothing of it.
 * The same of two copies of the package: what checks an app's doctypes may have one of its own.
 */
export const EVENTS: unique symbol = Symbol.for('tidelog.events');

/** @internal What is known of a part of a doctype. */
interface PartCode<Part> {
  /** Why it is none that could be written. */
  flawOf(part: unknown): string | undefined;
  write(w: Writer, part: Part): void;
}

/** @internal Each carries out the method of `Database` that is called so. */
export interface EventsCode extends PartCode<Stream>, Partial<CommandsCode> {
  events(document: OpenStreams, given: readonly unknown[]): unknown;
}

/** @internal The same of what commands bring along. */
export interface CommandsCode {
  send(document: OpenStreams): unknown;
  outcome(document: OpenStreams, given: readonly unknown[]): unknown;
  handle(document: OpenStreams, given: readonly unknown[]): unknown;
}

/** @internal The same of what workflows bring along. */
export interface WorkflowsCode extends PartCode<Workflow>, Omit<CommandsCode, 'send'> {
  start(document: OpenStreams): unknown;
  cancel(document: OpenStreams): unknown;
}

/** A kind of document: see {@link doctype}. */
export interface Doctype<
  Defined extends Mutations = Mutations,
  Recorded extends Streams = Streams,
  Flows extends Workflows = Workflows,
> {
  /** The kind's name. */
  readonly name: string;
  /** Migration n brings a document from version n to n + 1. Append only. */
  readonly migrations: readonly string[];
  /** The mutations by name. */
  readonly mutations: Defined;
  /** The events of its aggregates, by the names of these: see `stream` in `tidelog/events`. */
  readonly streams?: Recorded;
  /** What takes several steps, by name: see `workflow` in `tidelog/events`. */
  readonly workflows?: Flows;
}

/** Any doctype, as far as the wire is concerned. */
export type DoctypeDefinition = Doctype<Mutations>;

/**
 * Defines a mutation: SQL that may read its parameters (`:name`), the database, `:now`
 * (milliseconds since the epoch, taken when it was issued), `:client` (which copy issued it) and
 * `:user` (whose copy that is: the subject of the token by which the server let it in first; before
 * that, and where the server asks for none, the option `user` of `open`, or an empty text), and
 * nothing else.
 *
 * @param params the types of its parameters, for example `{ id: 'text', weight: 'real?' }`.
 * @param sql one statement, or several that are one transaction.
 */
export function mutation<const Types extends ParamTypes>(
  params: Types,
  sql: string | readonly string[],
): Mutation<Types> {
  const texts = typeof sql === 'string' ? [sql] : [...(isTexts(sql) ? sql : [])];
  if (Object(params) !== params || texts.length === 0 || texts.some((text) => !text.trim())) {
    throw new DoctypeError(
      "a mutation is its parameters, and SQL that uses them: mutation({ id: 'text' }, 'delete…')",
    );
  }
  for (const [name, type] of Object.entries(params)) {
    if (!KINDS.includes(kindOf(type))) {
      throw new DoctypeError(`parameter ${name}: there is no type ${type}; use ${KINDS}`);
    }
  }
  return { params, sql: texts };
}

/**
 * Defines a kind of document. Later versions of it keep the name, append migrations, and change
 * mutations as they like.
 *
 * @example
 * ```ts
 * const todos = doctype({
 *   name: 'todos',
 *   migrations: ['create table todo (id text primary key, title text not null) strict'],
 *   mutations: {
 *     add: mutation(
 *       { id: 'uuid', title: 'text' },
 *       'insert into todo (id, title) values (:id, :title)',
 *     ),
 *     remove: mutation({ id: 'text' }, 'delete from todo where id = :id'),
 *   },
 * });
 * ```
 */
export function doctype<
  const Defined extends Mutations,
  const Recorded extends Streams = Record<never, never>,
  const Flows extends Workflows = Record<never, never>,
>(definition: Doctype<Defined, Recorded, Flows>): Doctype<Defined, Recorded, Flows> {
  return definition;
}

/** @internal */
export const isTexts = (it: unknown): it is readonly string[] =>
  Array.isArray(it) && it.every((text) => typeof text === 'string');

/**
 * Why this is no doctype that could be written, if it is none: halfway through a message it is too
 * late to find out.
 */
export function flawOf(it: unknown): string | undefined {
  const { name, migrations, mutations, ...more } = Object(it) as Partial<DoctypeDefinition>;
  if (!isTexts([name])) return 'that is no doctype, which has a name: give what doctype() returned';
  if (!isTexts(migrations)) return `migrations of doctype ${name} have to be a list of SQL`;
  if (Object(mutations) !== mutations) return `doctype ${name} has to have mutations, if none {}`;
  const isMutation = ({ params, sql }: Partial<Mutation>): boolean =>
    areTypes(params) && isTexts(sql);
  const odd = Object.entries(mutations!).find(([, mutation]) => !isMutation(Object(mutation)));
  if (odd) return `mutation ${odd[0]} of doctype ${name} has to be what mutation() returned`;
  for (const what of ['stream', 'workflow'] as const) {
    for (const [part, given] of Object.entries(more[`${what}s`] ?? {})) {
      const code = Object(given)[EVENTS] as EventsCode | WorkflowsCode | undefined;
      const flaw = code ? code.flawOf(given) : `has to be what ${what}() returned`;
      if (flaw) return `${what} ${part} of doctype ${name} ${flaw}`;
    }
  }
  return undefined;
}

/** @internal Whether these are types by name. */
export const areTypes = (params: unknown): params is ParamTypes =>
  Object(params) === params && Object.values(params as object).every(isType);

const isType = (it: unknown): boolean => isTexts([it]) && KINDS.includes(kindOf(it as string));

const kindOf = (type: string): ArgumentKind => type.replace(/\?$/, '') as ArgumentKind;
const isOptional = (type: string): boolean => type.endsWith('?');

/** Writes a `Doctype` of crate `document`: what has names sorted by those, since it is hashed. */
export function writeDoctype(
  w: Writer,
  { name, migrations, mutations, streams = {}, workflows = {} }: DoctypeDefinition,
): void {
  w.text(name);
  writeTexts(w, migrations);
  writeNamed(w, mutations, ({ params, sql }) => {
    writeTypes(w, params);
    writeTexts(w, sql);
  });
  writeNamed(w, streams, (stream) => stream[EVENTS]!.write(w, stream));
  writeNamed(w, workflows, (workflow) => workflow[EVENTS]!.write(w, workflow));
}

/** @internal Writes members, sorted by name. */
export function writeNamed<T>(
  w: Writer,
  members: Readonly<Record<string, T>>,
  write: (it: T) => void,
): void {
  w.list(Object.keys(members).sort(), (name) => {
    w.text(name);
    write(members[name]!);
  });
}

/** @internal */
export const writeTexts = (w: Writer, texts: readonly string[]): void =>
  w.list(texts, (it) => w.text(it));

/** @internal Writes types by name, in their order. */
export const writeTypes = (w: Writer, types: ParamTypes): void =>
  w.list(Object.entries(types), ([name, type]) => {
    w.text(name);
    w.u32(KINDS.indexOf(kindOf(type)));
    w.u8(isOptional(type));
  });

/** What SQL is given for a JavaScript value, or undefined where it cannot be given. */
export function toValue(value: unknown): Value | undefined {
  if (value == null) return null;
  if (typeof value === 'boolean') return Number(value);
  if (typeof value === 'string' || typeof value === 'number') return value;
  if (typeof value === 'bigint') return BigInt.asIntN(64, value) === value ? value : undefined;
  return isBytes(value) ? copyOf(value) : undefined;
}

const isBytes = (it: unknown): it is ArrayBuffer | ArrayBufferView =>
  it instanceof ArrayBuffer || ArrayBuffer.isView(it);

/** These bytes, or undefined where they were given away to a worker. */
function copyOf(bytes: ArrayBuffer | ArrayBufferView): Uint8Array | undefined {
  try {
    const { buffer, byteOffset } = ArrayBuffer.isView(bytes) ? bytes : new Uint8Array(bytes);
    return new Uint8Array(buffer, byteOffset, bytes.byteLength).slice();
  } catch {
    return undefined;
  }
}

/**
 * Bytes of the arguments of one mutation, as `MUTATION_SIZE_MAX` in crate `types`, and of one
 * query, its parameters with it. The core counts exactly, but a gigabyte would kill it.
 */
export const VALUES_SIZE_MAX: number = 16 * 1024 * 1024;

/** The least number of bytes that a value takes where it travels. */
export function sizeOf(value: unknown): number {
  if (typeof value === 'string') return value.length;
  return isBytes(value) ? value.byteLength : 0;
}

/** Whether it travels as it is: half a surrogate pair would become another character. */
export const isText = (it: unknown): it is string =>
  typeof it === 'string' && !/\p{Surrogate}/u.test(it);

/** Whether a value is of a kind, and what is said of one that is not. */
type Kind = readonly [fits: (value: unknown) => boolean, wanted: string];

/** In the order of `ParamKind` in crate `document`. JSON is made into text before. */
const ARGUMENTS: { readonly [Name in ArgumentKind]: Kind } = {
  text: [isText, 'a string of whole characters'],
  integer: [
    (it) => typeof it === 'bigint' || Number.isSafeInteger(it),
    'a whole number up to 2^53, or a bigint of 64 bits',
  ],
  real: [(it) => Number.isFinite(it), 'a finite number'],
  blob: [
    (it) => it instanceof ArrayBuffer || it instanceof Uint8Array,
    'a Uint8Array or an ArrayBuffer',
  ],
  boolean: [(it) => typeof it === 'boolean', 'true or false'],
  json: [(it) => typeof it === 'string', 'something that JSON.stringify takes'],
  uuid: [(it) => typeof it === 'string' && UUID.test(it), 'a UUID, or nothing, and one is drawn'],
};

const KINDS = Object.keys(ARGUMENTS);

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** What a value is, for whoever gave it in the wrong place. */
export function describe(value: unknown): string {
  if (value === null) return 'null';
  if (value instanceof Date) {
    return 'a Date: give date.getTime() for milliseconds, or date.toISOString() for text';
  }
  if (/number|bigint/.test(typeof value)) return `the ${typeof value} ${value}`;
  if (typeof value === 'string')
    return isText(value) ? 'a string' : 'a string with half a character';
  if (typeof value !== 'object') return value === undefined ? 'undefined' : `a ${typeof value}`;
  if (isBytes(value) && !copyOf(value)) return 'bytes that were given away to a worker';
  if (Array.isArray(value)) return 'an array';
  const of = Object.getPrototypeOf(value)?.constructor?.name;
  return of && of !== 'Object' ? `an object of ${of}` : 'an object';
}

/** Arguments as they travel: names and values. */
export type Bound = readonly (readonly [string, Value])[];

/**
 * Makes what turns the arguments of a mutation into what travels.
 *
 * That throws {@link MutationArgumentError} for the first argument that is missing, unknown, or
 * of another type.
 */
export function argumentBinder(
  mutation: string,
  types: ParamTypes,
  drawUuid: () => string,
): (args: unknown) => Bound {
  const params = Object.entries(types);
  const names = Object.keys(types);
  return (args) => {
    if (args != null && (typeof args !== 'object' || Array.isArray(args))) {
      const example = names.map((name) => `${name}: ...`).join(', ');
      fail(
        mutation,
        `its arguments are given by name, as { ${example} }, not as ${describe(args)}`,
      );
    }
    const given = Object(args) as Readonly<Record<string, unknown>>;
    for (const name in given) {
      if (!Object.hasOwn(types, name)) {
        const there = names.join(', ') || 'it takes none';
        fail(mutation, `there is no parameter ${name}: ${there}`);
      }
    }
    let size = 0;
    return params.map(([name, type]) => {
      const kind = kindOf(type);
      const optional = isOptional(type);
      const [fits, wanted] = ARGUMENTS[kind];
      let value = isGiven(given, name) ? given[name] : undefined;
      if (value === undefined || (value === null && (optional || kind !== 'json'))) {
        if (kind === 'uuid' && !optional && !(name in given)) {
          return [name, drawUuid()];
        }
        if (!optional) fail(mutation, `argument ${name} is missing: give ${wanted}`);
        return [name, null];
      }
      if (kind === 'uuid' && typeof value === 'string') value = value.toLowerCase();
      const was = value;
      if (kind === 'json') value = toJson(value);
      size += sizeOf(value);
      if (size > VALUES_SIZE_MAX) {
        fail(mutation, `its arguments are over ${VALUES_SIZE_MAX} bytes`);
      }
      const bound = fits(value) ? toValue(value) : undefined;
      if (bound === undefined) {
        fail(mutation, `argument ${name} has to be ${wanted}, and is ${describe(was)}`);
      }
      return [name, bound];
    });
  };
}

/** Whether it is more than what every object has. */
const isGiven = (given: object, name: string): boolean =>
  Object.hasOwn(given, name) || !(name in Object.prototype);

function fail(mutation: string, what: string): never {
  throw new MutationArgumentError(`${mutation}: ${what}`);
}

function toJson(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    return undefined;
  }
}

/** Arguments as the app gave them, from what travelled. */
export function unbindArguments(
  params: ParamTypes | undefined,
  args: Readonly<Record<string, Value>>,
): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(args).map(([key, value]) => {
      const kind = kindOf(params?.[key] ?? '');
      if (value !== null && kind === 'boolean') return [key, value === 1];
      if (value instanceof Uint8Array) return [key, value.slice()];
      return [key, kind === 'json' && typeof value === 'string' ? fromJson(value) : value];
    }),
  );
}

/** An earlier release of the app may have had another type there: then the text as it is. */
function fromJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
