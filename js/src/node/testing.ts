/// <reference lib="esnext.disposable" preserve="true" />
/**
 * Tests of an app in Node: the engine and the server themselves, in memory, with a clock that
 * stands still until it is moved.
 */

import { Connection } from '../connection.js';
import type { Database } from '../database.js';
import {
  type Doctype,
  flawOf,
  isText,
  type Mutations,
  type Streams,
  type Workflows,
} from '../doctype.js';
import { DocumentClosedError, EngineError, InvalidOptionError } from '../errors.js';
import { openOn } from '../open.js';
import { provideReportError } from './report-error.js';
import { closedError, Devices, type Port } from './world.js';

/** When a world begins, where nothing else is said. */
const STARTS_AT = '2025-01-01T00:00:00Z';

/** What the document is called that all clients open, where nothing else is said. */
const DOCUMENT = 'document';

/** The server of a world, for its clients. */
const SERVER = 'ws://server';

/** How long a world may take to settle, milliseconds of its own time. */
const SETTLE_MS = 10 * 60_000;

/** No script and no module is loaded by a tab. */
const PLACES = { workerUrl: undefined, coreWasmUrl: undefined, pageServerWasmUrl: undefined };

/** What {@link world} may be told. */
export interface WorldOptions {
  /** What its clock shows at first; 1 January 2025, 00:00 UTC, if it is left out. */
  readonly startsAt?: Date | undefined;
  /** A whole number from which all ids are drawn; 1 if it is left out. */
  readonly seed?: number | undefined;
}

/** What {@link World.client} may be told. */
export interface ClientOptions {
  /** The document's id; all clients that leave it out share one. */
  readonly document?: string | undefined;
  /** Whose copy this is, as in `open`. */
  readonly user?: string | undefined;
}

/**
 * Makes a world: a server, and as many devices as {@link World.client} is asked for, with one
 * kind of document. Messages in it take no time, so promises settle at once, and nothing of it is
 * kept.
 *
 * @throws InvalidOptionError if this is no doctype, or an option is none.
 *
 * @example
 * ```ts
 * const w = await world(todos);
 * const ada = await w.client();
 * const bob = await w.client();
 * ada.offline();
 * await ada.db.mutate.add({ title: 'milk' });
 * ada.online();
 * await w.settle();
 * const rows = await bob.db.query('select title from todo');
 * await w.close();
 * ```
 */
export async function world<
  const Defined extends Mutations,
  const Recorded extends Streams = Record<never, never>,
  const Flows extends Workflows = Record<never, never>,
>(
  doctype: Doctype<Defined, Recorded, Flows>,
  options: WorldOptions = {},
): Promise<World<Defined, Recorded, Flows>> {
  const flaw = flawOf(doctype);
  if (flaw) throw new InvalidOptionError(flaw);
  checkNames(options, ['startsAt', 'seed']);
  const { startsAt = new Date(STARTS_AT), seed = 1 } = options;
  const startsAtMs = Number(startsAt);
  if (!(startsAtMs >= 0)) throw new InvalidOptionError('startsAt has to be a Date since 1970');
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new InvalidOptionError('seed has to be a whole number from 0 on');
  }
  provideReportError();
  return new World(doctype, await Devices.start(startsAtMs, seed));
}

/** Devices and a server that share documents: see {@link world}. */
export class World<
  Defined extends Mutations = Mutations,
  Recorded extends Streams = Streams,
  Flows extends Workflows = Workflows,
> {
  readonly #doctype: Doctype<Defined, Recorded, Flows>;
  readonly #devices: Devices;
  readonly #clients = new Set<Client>();
  #closed: Promise<void> | undefined;

  /** The server. */
  readonly server: WorldServer = {
    delete: async (document = DOCUMENT) => {
      this.#mustBeOpen();
      const wasThere = this.#devices.delete(document);
      await this.#devices.idle();
      return wasThere;
    },
  };

  /** @internal */
  constructor(doctype: Doctype<Defined, Recorded, Flows>, devices: Devices) {
    this.#doctype = doctype;
    this.#devices = devices;
    devices.unsettled = (within) => this.#unsettled(within);
  }

  /** What its clock shows, milliseconds since the epoch: `:now` of what is issued now. */
  get now(): number {
    this.#mustBeOpen();
    return this.#devices.now;
  }

  /**
   * Opens a document on a new device, which is online. A release of the app that has another
   * version of the doctype is a client that gets that one.
   *
   * Rejects as `open` does, and with `DocumentClosedError` once the world is closed.
   *
   * @param doctype that of the world, if it is left out.
   */
  client(options?: ClientOptions): Promise<Client<Defined, Recorded, Flows>>;
  client<
    const Other extends Mutations,
    const OfOther extends Streams = Record<never, never>,
    const FlowsOfOther extends Workflows = Record<never, never>,
  >(
    options: ClientOptions & { readonly doctype: Doctype<Other, OfOther, FlowsOfOther> },
  ): Promise<Client<Other, OfOther, FlowsOfOther>>;
  async client(
    options: ClientOptions & { readonly doctype?: Doctype } = {},
  ): Promise<Client<Defined, Recorded, Flows>> {
    this.#mustBeOpen();
    checkNames(options, ['document', 'user', 'doctype']);
    const { document = DOCUMENT, user = '', doctype = this.#doctype } = options;
    const flaw = flawOf(doctype);
    if (flaw) throw new InvalidOptionError(flaw);
    for (const [name, text] of Object.entries({ document, user })) {
      if (isText(text)) continue;
      throw new InvalidOptionError(`${name} has to be a string of whole characters`);
    }
    const kind = doctype as Doctype<Defined, Recorded, Flows>;
    const device = new Device(this.#devices, kind, { document, user, server: SERVER });
    const opening = device.open().finally(() => this.#mustBeOpen());
    const client: Client<Defined, Recorded, Flows> = new Client(device, await opening);
    device.whenLeft = () => this.#clients.delete(client as Client<never>);
    this.#clients.add(client as Client<never>);
    return client;
  }

  /**
   * Lets time pass: all that is due in so many milliseconds is done, at its time. Calls that run
   * at once do not add up: two of a second move the clock by one.
   *
   * Rejects with `InvalidOptionError` where that is not a number of milliseconds, and with
   * `DocumentClosedError` once the world is closed.
   */
  async pass(ms: number): Promise<void> {
    this.#mustBeOpen();
    if (!(ms >= 0 && ms < Number.POSITIVE_INFINITY)) {
      throw new InvalidOptionError('pass() wants a number of milliseconds from 0 on');
    }
    await this.#devices.moveTo(this.#devices.now + Math.round(ms));
  }

  /**
   * Runs until nobody has anything left to do: whatever clients that are online have issued has
   * its verdict, and they all have all that the server has. Time passes only as far as somebody
   * waits for it. Clients that are offline, or stay away by `db.disconnect()`, stay as they are.
   *
   * Rejects with `EngineError` where that takes more than ten minutes of the world's time, or where
   * at one time of it there is always more to do, and with `DocumentClosedError` once the world is
   * closed.
   */
  async settle(): Promise<void> {
    this.#mustBeOpen();
    const until = this.#devices.now + SETTLE_MS;
    for (let before = ''; ; ) {
      await this.#devices.idle();
      const documents = [...this.#clients].flatMap((client) => client.synced());
      let waiting = documents.length;
      for (const db of documents) {
        const done = (): number => waiting--;
        // What is wrong with a document is in its status: nothing more comes of it.
        db.sync().then(done, done);
      }
      await this.#devices.idle();
      while (waiting > 0) await this.#moveOn(until);
      // Somebody may have been told something since, and have answered it.
      const stand = JSON.stringify(
        documents.map(({ status }) => [status.timeline, status.journal]),
      );
      if (stand === before) return;
      before = stand;
    }
  }

  async #moveOn(until: number): Promise<void> {
    const next = this.#devices.nextAt();
    if (next > until) throw this.#unsettled(`in ${SETTLE_MS / 60_000} minutes of its time`);
    await this.#devices.moveTo(next);
  }

  #unsettled(within: string): EngineError {
    const behind = [...this.#clients].flatMap((client) => client.synced());
    const pending = behind.map(({ status }) => `${status.pending} pending, ${status.connection}`);
    return new EngineError(
      `the world has not settled ${within}: ` +
        `its documents are ${pending.join('; ') || 'offline'}: ` +
        'look at the status of each, and at what is issued again',
    );
  }

  /**
   * Closes every document and ends the world. Nothing of it is left.
   */
  close(): Promise<void> {
    this.#closed ??= (async () => {
      try {
        // All at once: none of them rests while another one goes on.
        const clients = this.#devices.hasEnded ? [] : [...this.#clients];
        await Promise.all(clients.map((client) => client.close()));
      } finally {
        this.#devices.end();
      }
    })();
    return this.#closed;
  }

  /** The same as {@link close}, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #mustBeOpen(): void {
    if (this.#closed) throw closedError();
  }
}

/** What a test may do to the server. */
export interface WorldServer {
  /**
   * Deletes a document, as an operator does. Resolves to whether there was one.
   *
   * @param document its id; what clients open that name none, if it is left out.
   */
  delete(document?: string): Promise<boolean>;
}

/** A device that has a document open: see {@link World.client}. */
export class Client<
  Defined extends Mutations = Mutations,
  // biome-ignore lint/suspicious/noExplicitAny: one of any streams takes the place of all.
  Recorded extends Streams = any,
  // biome-ignore lint/suspicious/noExplicitAny: one of any workflows takes the place of all.
  Flows extends Workflows = any,
> {
  readonly #device: Device<Defined, Recorded, Flows>;
  #db: Database<Defined, Recorded, Flows>;

  /** @internal */
  constructor(device: Device<Defined, Recorded, Flows>, db: Database<Defined, Recorded, Flows>) {
    this.#device = device;
    this.#db = db;
  }

  /** The document, as `open` gives it; after {@link reload} another one. */
  get db(): Database<Defined, Recorded, Flows> {
    return this.#db;
  }

  /** Cuts the device off from the server. What is on its way is lost, and is sent again later. */
  offline(): void {
    this.#device.setOnline(false);
  }

  /** Lets the device reach the server again, which it does at once. */
  online(): void {
    this.#device.setOnline(true);
  }

  /** Opens the document in one more tab of the device. */
  tab(): Promise<Database<Defined, Recorded, Flows>> {
    return this.#device.open();
  }

  /**
   * Closes all tabs of the device, and opens the document in a new one, as {@link db}: the engine
   * ends, and another one starts on what is on the disk.
   */
  async reload(): Promise<Database<Defined, Recorded, Flows>> {
    await this.#device.closeTabs();
    this.#db = await this.#device.open();
    return this.#db;
  }

  /** Closes all tabs of the device for good. What the server has not seen, nobody will. */
  close(): Promise<void> {
    return this.#device.leave();
  }

  /** The same as {@link close}, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal The documents that can be brought into step with the server. */
  synced(): readonly Database<Defined, Recorded, Flows>[] {
    return this.#device.synced();
  }
}

/** The tabs of a device. */
class Device<Defined extends Mutations, Recorded extends Streams, Flows extends Workflows> {
  readonly #devices: Devices;
  readonly #number: number;
  readonly #doctype: Doctype<Defined, Recorded, Flows>;
  readonly #names: Parameters<typeof openOn>[2];
  readonly #tabs = new Map<Database<Defined, Recorded, Flows>, Port | undefined>();
  #isOnline = true;
  #left: Promise<void> | undefined;
  /** Called once it has left the world. */
  whenLeft: () => void = () => {};

  constructor(
    devices: Devices,
    doctype: Doctype<Defined, Recorded, Flows>,
    names: Parameters<typeof openOn>[2],
  ) {
    this.#devices = devices;
    this.#number = devices.add();
    this.#doctype = doctype;
    this.#names = names;
  }

  async open(): Promise<Database<Defined, Recorded, Flows>> {
    this.#mustBeThere();
    const host = this.#devices.host(this.#number);
    const connection = new Connection(PLACES, host);
    try {
      const opening = openOn(connection, this.#doctype, this.#names);
      const db = await opening.finally(() => this.#mustBeThere());
      this.#tabs.set(db, host.port);
      if (host.port) host.port.whenLost = () => void db.close().catch(() => {});
      return db;
    } catch (error) {
      host.port?.leave();
      throw error;
    }
  }

  setOnline(isOnline: boolean): void {
    this.#mustBeThere();
    if (this.#isOnline === isOnline) return;
    this.#isOnline = isOnline;
    this.#devices.setOnline(this.#number, isOnline);
  }

  synced(): readonly Database<Defined, Recorded, Flows>[] {
    if (!this.#isOnline) return [];
    return [...this.#tabs.keys()].filter(({ status }) => !status.away);
  }

  async closeTabs(): Promise<void> {
    this.#mustBeThere();
    await this.#closeAll();
  }

  async #closeAll(): Promise<void> {
    for (const [db, port] of this.#tabs) {
      await db.close();
      port?.leave();
    }
    this.#tabs.clear();
    await this.#devices.idle();
  }

  leave(): Promise<void> {
    this.#left ??= this.#closeAll().then(() => this.whenLeft());
    return this.#left;
  }

  #mustBeThere(): void {
    if (!this.#left) return;
    throw new DocumentClosedError('this client was closed: make another one with world.client()');
  }
}

function checkNames(options: object, names: readonly string[]): void {
  if (Object(options) !== options) {
    throw new InvalidOptionError('the options have to be an object');
  }
  const unknown = Object.keys(options).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new InvalidOptionError(`there is no option ${unknown}: there are ${names.join(', ')}`);
  }
}
