/// <reference lib="esnext.disposable" preserve="true" />
/** A document as an app sees it. */

import type { HandleOptions, Handling } from './attempts.js';
import { isPassing, isSame } from './call.js';
import { callAll, soon } from './call-back.js';
import { type BundledMeta, calledAt, calling } from './called.js';
import type { Bytes, Value } from './codec.js';
import type { Connection, OpenDocument } from './connection.js';
import {
  type Arguments,
  argumentBinder,
  type Bound,
  type CommandsCode,
  type DoctypeDefinition,
  describe,
  EVENTS,
  type EventsCode,
  type IssuedArguments,
  isText,
  type Mutation,
  type Mutations,
  type ParamTypes,
  type Stream,
  type Streams,
  sizeOf,
  toValue,
  unbindArguments,
  VALUES_SIZE_MAX,
  type Workflow,
  type Workflows,
  type WorkflowsCode,
} from './doctype.js';
import { type Standing, wordOnServer } from './document.js';
import {
  BudgetExceededError,
  DocumentClosedError,
  InvalidOptionError,
  noRoomFor,
  QueryError,
  TidelogError,
  UnknownMutationError,
} from './errors.js';
import type { EventOf, EventsOptions } from './events.js';
import type { GivenCommand, Handlers } from './handling.js';
import { LiveQuery, type RunQuery } from './live-query.js';
import {
  type Answer,
  type EntryId,
  hexOf,
  type Params,
  type QueryParams,
  type ToCore,
} from './messages.js';
import { Presence } from './presence.js';
import type { KnownRow } from './queries.js';
import { type Issued, issue, type Receipt } from './receipt.js';
import { decodeRows, decodeValues, type Row, type RowBytes } from './rows.js';
import type { GivenRun, RunHandlers } from './running.js';
import type { CommandNameOf, CommandOutcome, Send } from './sending.js';
import { type Abortable, type Asking, parted } from './sql.js';
import type { Cancel, Start } from './starting.js';
import type { Status } from './status.js';
import type { CallKind } from './step.js';
import type { OpenStreams } from './streams.js';

/** Whether a call may be given up by its caller, and by time alone. */
interface AskOptions extends Abortable {
  readonly limited?: boolean | undefined;
}

/** In Chromium, Node and newer Firefox. */
interface WithStacks {
  captureStackTrace?(of: object): void;
}

/** The mutations of a doctype as functions. */
export type Mutate<Defined extends Mutations> = {
  readonly [Name in keyof Defined]: Defined[Name] extends Mutation<infer Types>
    ? Record<never, never> extends Arguments<Types>
      ? (args?: Arguments<Types>) => Receipt<IssuedArguments<Types>>
      : (args: Arguments<Types>) => Receipt<IssuedArguments<Types>>
    : never;
};

/** A mutation of this client that the server rejected. */
export interface Rejection {
  /** Its name. */
  readonly mutation: string;
  /** Its arguments, as they were given. */
  readonly args: Readonly<Record<string, unknown>>;
  /** Why. */
  readonly reason: string;
  /** Tells repeats apart: no two mutations of any device have the same. */
  readonly id: string;
  /** Its LSN in the timeline in which it was rejected. */
  readonly lsn: number;
}

/** What {@link Database.on} can listen to. */
export interface DatabaseEvents {
  /** Something in `db.status` has changed. */
  status: Status;
  /**
   * Something is wrong that belongs to no call. Where nobody listens it is written to the console,
   * unless it is only that the server cannot be reached.
   */
  error: TidelogError;
  /**
   * The server rejected a mutation, whichever tab issued it: all that listen in all tabs are told.
   * At least once for each; of thousands to which nobody listens the oldest are forgotten.
   */
  rejected: Rejection;
  /** A newer release of the app has migrated the document, or has not after all: see `status`. */
  release: Status['release'];
}

/** @internal What ends when a document is closed. */
export interface Ending {
  endWith(error: TidelogError): void;
}

/** What a mutation that sends a command, or starts a run, has beside texts. */
const sentBy = (mutation: string): ParamTypes | undefined =>
  /^(send|start):/.test(mutation) ? { args: 'json' } : undefined;

type Listeners = { readonly [Name in keyof DatabaseEvents]: Set<(it: never) => void> };

/** An open document. Calls take effect in the order in which they are made. */
export class Database<
  Defined extends Mutations = Mutations,
  // biome-ignore lint/suspicious/noExplicitAny: one of any streams takes the place of all.
  Recorded extends Streams = any,
  // biome-ignore lint/suspicious/noExplicitAny: one of any workflows takes the place of all.
  Flows extends Workflows = any,
> {
  /** @internal Vue leaves what has this as it is: a proxy around it has none of its state. */
  readonly __v_skip: true = true;
  /**
   * The mutations of its doctype, as functions.
   *
   * @example
   * ```ts
   * const { lsn } = await db.mutate.add({ title: 'milk' });
   * ```
   */
  readonly mutate: Mutate<Defined>;
  readonly #connection: Connection;
  readonly #doctype: DoctypeDefinition;
  readonly #handle: number;
  /** The name of the newest mutation: eight random bytes, and a counter that shows their order. */
  readonly #callId: Bytes;
  readonly #listeners: Listeners = {
    status: new Set(),
    error: new Set(),
    rejected: new Set(),
    release: new Set(),
  };
  /** Live queries that run, and what else ends with the document. */
  readonly #ending = new Set<Ending>();
  #status: Status;
  /** The journal whose LSNs the status counts; undefined while it is not on the disk. */
  #journal: Uint8Array | undefined;
  #closed: Promise<void> | undefined;
  #presence: Presence | undefined;
  /** Functions of what streams and workflows bring along, by what they do. */
  readonly #functions = new Map<string, unknown>();

  /** @internal */
  constructor(
    connection: Connection,
    { handle, doctype }: Pick<ToCore['open'], 'handle' | 'doctype'>,
    { status, memo }: Standing,
  ) {
    this.#connection = connection;
    this.#callId = connection.host.draw(new Uint8Array(16)).fill(0, 8);
    this.#doctype = doctype;
    this.#handle = handle;
    this.#status = status;
    if (status.error) {
      // Whoever opens it may listen by then, and is told what there is.
      connection.host.wakeIn(0, () => this.#listeners.error.size > 0 || this.#tellError());
    }
    this.#journal = memo.head?.journal;
    this.mutate = this.#mutations() as Mutate<Defined>;
    connection.attach(this.#handle, {
      news: (news) => this.#news(news),
      lost: (error) => {
        this.#setStatus(asLost(this.#status, error));
        this.#presence?.lose();
      },
    });
  }

  /** How the document stands. A new object whenever something has changed. */
  get status(): Status {
    return this.#status;
  }

  /** Who else has the document open at this moment, and what this one tells them of itself. */
  get presence(): Presence {
    if (!this.#presence) {
      const say = (state: string | null): void =>
        this.#connection.tell('presence', { handle: this.#handle, state });
      this.#presence = new Presence(say);
      if (this.#closed) this.#presence.endWith();
      else this.#ending.add(this.#presence);
    }
    return this.#presence;
  }

  /**
   * The rows of a query as objects.
   *
   * @param asking one statement that only reads, and its parameters by position (an array) or by
   *   name (an object); or a {@link Query} that has both, as {@link sql} makes it. Options behind
   *   that: a `signal`.
   *
   * @example
   * ```ts
   * const [milk] = await db.query<{ id: string }>('select id from todo where title = ?', ['milk']);
   * if (milk) await db.mutate.remove({ id: milk.id });
   * ```
   */
  query<R = Row, const Sql extends string = string>(
    ...asking: Asking<R, Sql>
  ): Promise<KnownRow<Sql, R>[]> {
    return this.#query(asking, (rows) => decodeRows(rows) as KnownRow<Sql, R>[]);
  }

  /**
   * The rows of a query as arrays, in the order of its columns, of which two may have one name.
   *
   * @param asking as {@link query} takes it.
   *
   * @example
   * ```ts
   * const [[count]] = await db.values<[number]>('select count(*) from todo');
   * ```
   */
  values<R extends readonly Value[] = Value[]>(...asking: Asking<unknown>): Promise<R[]> {
    return this.#query(
      asking,
      (rows) => decodeValues(rows) as readonly (readonly Value[])[] as R[],
    );
  }

  #query<T>(asking: readonly unknown[], decode: (rows: RowBytes) => T): Promise<T> {
    const [sql, params, options] = parted(asking);
    return this.#ask(
      'query',
      () => bindQuery(sql, params),
      (answer) => (answer.type === 'rows' ? decode(answer.rows) : undefined),
      options,
    );
  }

  /**
   * A query that runs while somebody listens: then, and again whenever something that it read has
   * changed. {@link close} ends it, and tells whoever listens.
   *
   * @param asking as {@link query} takes it; a `signal` closes the live query.
   *
   * @example
   * ```ts
   * const live = db.live<{ title: string }>('select title from todo order by title');
   * const stop = live.subscribe((rows, error) => console.log(rows ?? error));
   * for await (const rows of live) {
   *   if (rows.length === 0) break;
   * }
   * stop();
   * ```
   */
  live<R = Row, const Sql extends string = string>(
    ...asking: Asking<R, Sql>
  ): LiveQuery<KnownRow<Sql, R>> {
    const [sql, params, { signal }] = parted(asking);
    return this.watch(bindOrFail(sql, params), signal);
  }

  /** @internal The same for a query that is bound, or cannot be. */
  watch<R>(bound: BoundQuery | TidelogError, signal?: AbortSignal): LiveQuery<R> {
    const run: RunQuery = (take) => {
      this.#mustBeOpen();
      if (bound instanceof TidelogError) {
        take(bound);
        return () => {};
      }
      const message = { ...bound, handle: this.#handle };
      const call = this.#connection.call('watch', message, (answer, last) => {
        if (answer.type !== 'failed') take(answer);
        else take(answer.error, !last && isPassing(answer.error));
      });
      this.#ending.add(query);
      return () => {
        this.#ending.delete(query);
        this.#connection.giveUp(call);
      };
    };
    const query = new LiveQuery<R>(run, signal);
    return query;
  }

  /**
   * The events that the server has confirmed, oldest first, and then those that come: all, or those
   * of one aggregate, or of one of its streams. None is left out or given twice.
   *
   * @param wanted the name of the aggregate, if any; which of them, if any; options behind that.
   *
   * @example
   * ```ts
   * for await (const { type, sequence } of db.events('order', 'order-7', { after: 0 })) {
   *   console.log(sequence, type);
   *   if (type === 'shipped') break;
   * }
   * ```
   */
  events<Aggregate extends keyof Recorded & string = keyof Recorded & string>(
    ...wanted:
      | [options?: EventsOptions]
      | [aggregate: Aggregate, options?: EventsOptions]
      | [aggregate: Aggregate, stream: string, options?: EventsOptions]
  ): AsyncIterableIterator<EventOf<Pick<Recorded, Aggregate>>> {
    return this.#byStreams('events', wanted) as never;
  }

  /**
   * The commands of its streams, as functions: each is sent to one stream, by a mutation that shows
   * at once what follows from its receipt, offline too.
   *
   * @example
   * ```ts
   * const receipt = db.send.order.place('order-7', { items: ['tea'] }, { key: 'checkout-41' });
   * await receipt; // on this device's disk
   * const { events } = await receipt.completed; // somebody has handled it
   * ```
   */
  get send(): Send<Recorded> {
    return this.#made('send');
  }

  /**
   * The workflows, as functions that start a run: by a mutation, offline too. An id that is there
   * already, with the same arguments, is that run.
   *
   * @example
   * ```ts
   * const receipt = db.start.fulfil({ order: 'order-7' }, { id: 'fulfil-7' });
   * await receipt; // on this device's disk
   * const result = await receipt.completed; // what its code has returned
   * ```
   */
  get start(): Start<Flows> {
    return this.#made('start');
  }

  /**
   * The workflows, as functions that cancel a run by its id: its code hears of it where it would
   * have gone on, and may put right what was done. A run that is over stays as it is.
   *
   * @example
   * ```ts
   * await db.cancel.fulfil('fulfil-7');
   * ```
   */
  get cancel(): Cancel<Flows> {
    return this.#made('cancel');
  }

  #made(what: 'send' | 'start' | 'cancel'): never {
    const functions = this.#functions.get(what) ?? this.#byStreams(what);
    this.#functions.set(what, functions);
    return functions as never;
  }

  /**
   * What became of a command, or of a run, as `receipt.completed` says it, also after a reload: it
   * waits until that is over.
   *
   * @example
   * ```ts
   * const { events } = await db.outcome('order', 'order-7', 'place', 'checkout-41');
   * const result = await db.outcome('fulfil', 'fulfil-7');
   * ```
   */
  outcome<Aggregate extends keyof Recorded & string>(
    ...which: [
      aggregate: Aggregate,
      stream: string,
      command: CommandNameOf<Recorded[Aggregate]>,
      key: string,
      options?: Abortable,
    ]
  ): Promise<CommandOutcome<EventOf<Pick<Recorded, Aggregate>>>>;
  outcome<Name extends keyof Flows & string>(
    ...which: [workflow: Name, id: string, options?: Abortable]
  ): Promise<unknown>;
  outcome(...which: readonly unknown[]): Promise<never> {
    return this.#byStreams('outcome', which) as never;
  }

  /**
   * Handles commands of an aggregate, those of any device, as long as the document is open: each is
   * given to one handler at a time, and those of one stream one after another. Or has runs of a
   * workflow go on here.
   *
   * @param how the name of the aggregate; how a stream's state follows from its events, and what
   *   each command comes to; options behind that. Of a workflow its name; what a run does, or a
   *   function for each version; options.
   *
   * @example
   * ```ts
   * const handling = db.handle('order', {
   *   initial: { isPlaced: false },
   *   evolve: { placed: () => ({ isPlaced: true }) },
   *   commands: {
   *     place: (ctx, { items }) => {
   *       if (ctx.state.isPlaced) return ctx.fail('it was placed before');
   *       return [{ type: 'placed', data: { items } }];
   *     },
   *   },
   * });
   * await handling.close();
   *
   * db.handle('fulfil', async (ctx, { order }) => {
   *   await ctx.send.order.place(order, { items: ['tea'] });
   *   await ctx.sleep('3d');
   * });
   * ```
   */
  handle<Aggregate extends keyof Recorded & string, State>(
    ...how: [
      aggregate: Aggregate,
      handlers: Handlers<Recorded, Aggregate, State, Flows>,
      options?: HandleOptions<GivenCommand>,
    ]
  ): Handling;
  handle<Name extends keyof Flows & string>(
    ...how: [
      workflow: Name,
      run: RunHandlers<Recorded, Flows, Name>,
      options?: HandleOptions<GivenRun>,
    ]
  ): Handling;
  handle(...how: readonly unknown[]): Handling {
    return this.#byStreams('handle', how) as never;
  }

  /**
   * Only who has streams or workflows has loaded what they can do: that which is named, or any
   * that can.
   */
  #byStreams(
    name: 'events' | keyof CommandsCode | keyof WorkflowsCode,
    given: readonly unknown[] = [],
  ): unknown {
    const { streams, workflows } = this.#doctype;
    const parts: Readonly<Record<string, Stream | Workflow>> = { ...streams, ...workflows };
    const named = [parts[given[0] as string], ...Object.values(parts)];
    type Code = Partial<Record<typeof name, EventsCode['events']>>;
    const codes = named.map((it) => it?.[EVENTS] as unknown as Code | undefined);
    const code = codes.find((it) => it?.[name]);
    if (!code) {
      throw new InvalidOptionError(
        `${this.#doctype.name} has no streams or workflows for ${name}: see tidelog/events`,
      );
    }
    const document: OpenStreams = {
      connection: this.#connection,
      doctype: this.#doctype,
      handle: this.#handle,
      ending: this.#ending,
      rows: (kind, message, signal) =>
        this.#ask(
          kind,
          () => message,
          (answer) => (answer.type === 'rows' ? decodeRows(answer.rows) : undefined),
          { signal, limited: false },
        ),
      mutate: (name, args, issued) => this.#mutate(name, args, issued),
      mustBeOpen: () => this.#mustBeOpen(),
    };
    return code[name]!(document, given);
  }

  /**
   * Listens to what belongs to no call. Who listens to errors is soon told of the present one, if
   * there is one, and who listens to releases that there is a newer one, if there is.
   *
   * @returns stops it. Safe to call more than once.
   *
   * @example
   * ```ts
   * const stop = db.on('rejected', ({ mutation, args, reason }) => {
   *   console.warn(`${mutation} was undone: ${reason}`, args);
   * });
   * ```
   */
  on<Name extends keyof DatabaseEvents>(
    event: Name,
    listener: (it: DatabaseEvents[Name]) => void,
    { signal }: Abortable = {},
  ): () => void {
    let isTold = false;
    const own = (it: DatabaseEvents[Name]): void => {
      isTold = true;
      listener(it);
    };
    if (!Object.hasOwn(this.#listeners, event)) {
      throw new InvalidOptionError(`there is no event ${event}`);
    }
    const stop = (): void => {
      this.#listeners[event].delete(own);
      signal?.removeEventListener('abort', stop);
    };
    if (signal?.aborted) return stop;
    signal?.addEventListener('abort', stop, { once: true });
    this.#listeners[event].add(own);
    const ask = (): void => {
      // All are told anew what nobody has handled: the last of those that come in one turn asks.
      const isLast = [...this.#listeners.rejected].at(-1) === (own as unknown);
      if (isLast && !this.#closed) {
        this.#connection.tell('listenRejections', { handle: this.#handle });
      }
    };
    if (event === 'rejected') soon(ask);
    const present = () => /error|release/.test(event) && this.#status[event as 'error' | 'release'];
    const tell = (): void => {
      const news = present();
      const isNews = news && news !== 'current' && !isTold;
      if (isNews && this.#listeners[event].has(own)) own(news as never);
    };
    if (present()) soon(tell);
    return stop;
  }

  /**
   * Resolves when everything that was pending has its verdict, and all that the server had is
   * visible here. Rejects where trying again cannot help, where there is no engine, and where no
   * tab has opened a synced document with its server.
   */
  sync({ signal }: Abortable = {}): Promise<void> {
    return this.#ask(
      'sync',
      () => ({}),
      () => {},
      { signal, limited: false },
    );
  }

  /**
   * A SQLite file of what {@link query} sees.
   *
   * @example
   * ```ts
   * const file = new Blob([await db.export()], { type: 'application/vnd.sqlite3' });
   * ```
   */
  export({ signal }: Abortable = {}): Promise<Bytes> {
    return this.#ask(
      'export',
      () => ({}),
      (answer) => (answer.type === 'exported' ? answer.file.slice() : undefined),
      { signal },
    );
  }

  /**
   * Stays away from the server until {@link connect}, in all tabs.
   *
   * @example
   * ```ts
   * db.disconnect();
   * await db.mutate.add({ title: 'milk' }); // on this disk, and not sent
   * db.connect();
   * ```
   */
  disconnect(): void {
    this.#connect(false);
  }

  /** Goes back to the server. */
  connect(): void {
    this.#connect(true);
  }

  /**
   * Lets go of the document, once the mutations that were issued are on this device's disk. Where
   * the disk does not answer it ends all the same: each receipt says how its own mutation stands.
   * Nobody is told of a later verdict: `confirmed` rejects with `DocumentClosedError`, and the
   * mutation goes to the server all the same, at the latest with the next `open`. A
   * rejection that comes meanwhile is told to whoever listens next.
   */
  close(): Promise<void> {
    if (!this.#closed) {
      const left = this.#ask(
        'close',
        () => ({}),
        () => {},
      );
      this.#closed = left.finally(() => this.#connection.detach(this.#handle));
      // Only now: whoever is told may close it too, or want to listen again.
      for (const it of [...this.#ending]) it.endWith(closedError());
      this.#setStatus(this.#status);
    }
    return this.#closed;
  }

  /** @internal Tells it when the document is closed. */
  endWithIt(it: Ending): void {
    this.#ending.add(it);
  }

  /** The same as {@link close}, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #connect(connected: boolean): void {
    if (!this.#closed) {
      const word = wordOnServer(connected, this.#connection.host.now());
      this.#connection.tell('setConnected', { handle: this.#handle, word });
    }
  }

  /** Functions for the doctype's mutations, over one that answers for all other names. */
  #mutations(): object {
    const others = new Proxy(
      {},
      {
        get: (_, name) => {
          if (isProbe(name)) return undefined;
          return () => {
            const there = Object.keys(this.#doctype.mutations).join(', ') || 'none';
            throw new UnknownMutationError(
              `${this.#doctype.name} has no mutation ${name}: it has ${there}`,
            );
          };
        },
      },
    );
    const functions = Object.create(others);
    for (const [name, { params }] of Object.entries(this.#doctype.mutations)) {
      const bind = argumentBinder(name, params, this.#connection.host.uuid);
      functions[name] = (args: unknown) => {
        const bound = bind(args);
        const issued = issue(() => unbindArguments(params, Object.fromEntries(bound)));
        return this.#mutate(name, bound, issued);
      };
    }
    return functions;
  }

  /** Calls of two handles may be asked again in another order, so each handle counts its own. */
  #nextCallId(): Uint8Array {
    const id = this.#callId;
    for (let at = 15; at > 7 && ++id[at]! > 255; at--);
    return id.slice();
  }

  #mutate(name: string, args: Bound, issued: Issued): Receipt {
    if (this.#closed) {
      issued.failed(closedError(), true);
      return issued.receipt;
    }
    const call = (import.meta as BundledMeta).env?.PROD ? undefined : calling();
    const message = {
      handle: this.#handle,
      id: this.#nextCallId(),
      name,
      args,
      now: this.#connection.host.now(),
      again: undefined,
    };
    this.#connection.call('mutate', message, (answer, last) => {
      // A verdict may come first, on another port; whatever comes behind it is not heard.
      if ('entry' in answer) issued.durable({ lsn: answer.entry.lsn });
      if (answer.type === 'durable') {
        this.#countDurable(answer.entry);
      } else if (answer.type === 'confirmed') {
        issued.confirmed({ lsn: answer.lsn });
      } else if (answer.type === 'failed' || answer.type === 'rejected') {
        const error = call ? calledAt(call, answer.error) : answer.error;
        issued.failed(error, last);
        // Once whoever has waited for the receipt may have asked for the verdict.
        if (answer.type === 'rejected') {
          const warn = (): void => this.#warn(name, issued.receipt.args, error);
          this.#connection.host.wakeIn(0, () => issued.isAwaited() || warn());
        }
      }
    });
    return issued.receipt;
  }

  /** Nobody would hear that a mutation was undone. */
  #warn(name: string, args: object, error: TidelogError): void {
    if (this.#listeners.rejected.size > 0) return;
    const advice = "listen to db.on('rejected'), or to receipt.confirmed";
    console.error(`${name} was undone (${advice}):`, args, error);
  }

  #mustBeOpen(): void {
    if (this.#closed) throw closedError();
  }

  /** A call with one answer. What fails it names, where the browser can, who has asked. */
  async #ask<Kind extends CallKind, T>(
    kind: Kind,
    message: () => Omit<ToCore[Kind], 'call' | 'handle'>,
    result: (answer: Answer) => T | undefined,
    { signal, limited }: AskOptions = {},
  ): Promise<T> {
    const call = (import.meta as BundledMeta).env?.PROD ? undefined : calling();
    signal?.throwIfAborted();
    this.#mustBeOpen();
    const whole = { ...message(), handle: this.#handle } as unknown as Omit<ToCore[Kind], 'call'>;
    const answer = await new Promise<Answer>((resolve, reject) => {
      const abort = (): void => {
        this.#connection.giveUp(number);
        reject(signal!.reason);
      };
      const take = (answer: Answer): void => {
        signal?.removeEventListener('abort', abort);
        resolve(answer);
      };
      signal?.addEventListener('abort', abort, { once: true });
      const number = this.#connection.call(kind, whole, take, limited);
    });
    if (answer.type === 'failed') {
      if (call) throw calledAt(call, answer.error);
      // It was made where the answer came in, which was asked for from here.
      (Error as WithStacks).captureStackTrace?.(answer.error);
      throw answer.error;
    }
    try {
      return result(answer) as T;
    } catch (error) {
      throw noRoomFor(error);
    }
  }

  #news(news: Parameters<OpenDocument['news']>[0]): void {
    if (news.type === 'status') {
      this.#journal = news.memo.head?.journal;
      this.#setStatus(news.status);
    } else if (news.type === 'presence') {
      this.#presence?.take(news);
    } else if (news.type === 'closeWanted') {
      this.close().catch(() => {});
    } else if (!this.#closed) {
      // What comes behind `close` is left to the next `open`: the core, which has closed the
      // handle, takes no word any more that it was handled.
      const { mutation, reason, lsn } = news;
      const { params } = this.#doctype.mutations[mutation] ?? {};
      const args = unbindArguments(params ?? sentBy(mutation), news.args);
      const id = hexOf(news.id);
      if (this.#emit('rejected', { mutation, args, reason, id, lsn })) {
        this.#connection.tell('rejectionHandled', { handle: this.#handle, id: news.id });
      }
    }
  }

  /**
   * The page server can tell of a mutation before the core's status that counts it is here. One of
   * an earlier timeline, which was asked again, counts for nothing in this one.
   */
  #countDurable({ journal, lsn }: EntryId): void {
    const { connection, timeline } = this.#status;
    if (connection === 'local' || lsn < timeline.head) return;
    if (this.#journal && !isSame(journal, this.#journal)) return;
    const head = lsn + 1;
    this.#setStatus({
      ...this.#status,
      pending: head - timeline.start,
      timeline: { ...timeline, durable: head, head },
    });
  }

  #setStatus(now: Status): void {
    const before = this.#status;
    const status = this.#closed ? asLost(now, closedError()) : now;
    this.#status = status;
    this.#emit('status', status);
    const { error, release } = status;
    if (error?.message !== before.error?.message) this.#tellError();
    if (release !== before.release) this.#emit('release', release);
  }

  #tellError(): void {
    const { error } = this.#status;
    if (!error || this.#closed) return;
    if (this.#listeners.error.size > 0) this.#emit('error', error);
    else if (error.code !== 'server-unreachable') console.error('a document:', error);
  }

  /** Whether there was a listener, and none of them threw. */
  #emit<Name extends keyof DatabaseEvents>(event: Name, it: DatabaseEvents[Name]): boolean {
    const listeners = this.#listeners[event] as Set<(it: unknown) => void>;
    // One that closes the document has those after it hear of that last.
    return callAll(listeners, (listener) => listener(event === 'status' ? this.#status : it));
  }
}

/** Whether promises, JSON or frameworks look for this to find out what a thing is. */
export function isProbe(name: string | symbol): name is symbol {
  return typeof name === 'symbol' || /^(then|toJSON|\$\$typeof|__.*)$/.test(name);
}

/** What was known last of a document that no engine has open, which no server hears of. */
function asLost(status: Status, error: TidelogError): Status {
  return { ...status, error, connection: status.connection === 'local' ? 'local' : 'offline' };
}

function closedError(): TidelogError {
  return new DocumentClosedError('the document was closed: open it again');
}

/** The message of a query, or why there is none. */
export function bindOrFail(...of: Parameters<typeof bindQuery>): BoundQuery | TidelogError {
  try {
    return bindQuery(...of);
  } catch (error) {
    return error as TidelogError;
  }
}

/** A query and its parameters, as they travel. */
export interface BoundQuery {
  sql: string;
  params: QueryParams;
}

function bindQuery(sql: string, params: Params | undefined): BoundQuery {
  if (typeof sql !== 'string') throw new QueryError('SQL has to be a string');
  let size = 0;
  const count = (part: unknown): void => {
    size += sizeOf(part);
    if (size > VALUES_SIZE_MAX) {
      throw new BudgetExceededError(`a query and its parameters are over ${VALUES_SIZE_MAX} bytes`);
    }
  };
  const text = (it: string): string => {
    count(it);
    if (!isText(it)) throw new QueryError('SQL and its parameters have to be of whole characters');
    return it;
  };
  const bind = (name: string, value: unknown): Value => {
    if (typeof value === 'string') return text(value);
    count(value);
    const bound = value === undefined ? undefined : toValue(value);
    if (bound !== undefined) return bound;
    const advice = value === undefined ? ': give null where there is none' : '';
    const where = sql.trim().slice(0, 80);
    throw new QueryError(`parameter ${name} of ${where} is ${describe(value)}${advice}`);
  };
  text(sql);
  const given = params ?? [];
  if (Array.isArray(given)) {
    return { sql, params: given.map((value, index) => bind(`${index + 1}`, value)) };
  }
  if (typeof given !== 'object') {
    throw new QueryError('the parameters of a query are an array, or an object by their names');
  }
  const named = Object.entries(given).map(
    ([name, value]) => [text(name), bind(`:${name}`, value)] as const,
  );
  return { sql, params: { named } };
}
