/** Opening and deleting documents. */

import type { BundledMeta } from './called.js';
import { Connection, type GetToken } from './connection.js';
import { Database } from './database.js';
import type { DevOptions } from './dev.js';
import {
  type Doctype,
  flawOf,
  isText,
  type Mutations,
  type Streams,
  type Workflows,
} from './doctype.js';
import { InvalidOptionError } from './errors.js';
import type { ToCore } from './messages.js';
import type { WorkerUrls } from './ports.js';
import type { Status } from './status.js';

/** What {@link open} wants to know. */
export interface OpenOptions extends WorkerUrls {
  /** The document's id; it is created if it does not exist. */
  readonly document: string;
  /**
   * Address of the server, `ws://` or `wss://`, to which `/v1/sync` is appended. Absent: the
   * document is purely local.
   */
  readonly server?: string | URL | undefined;
  /** Gives the token for the server whenever it is asked for. */
  readonly token?: GetToken | undefined;
  /** Whose copy this is on a shared device. Absent: the device's. */
  readonly user?: string | undefined;
  /** What is done while the app is developed; nothing of it is for users. */
  readonly dev?: DevOptions | undefined;
}

/** What {@link destroy} wants to know. */
export interface DestroyOptions extends WorkerUrls {
  /** Whose copy. Absent: the device's. */
  readonly user?: string | undefined;
  /** Also with mutations pending, which are lost then. */
  readonly force?: boolean | undefined;
  /**
   * Closes the document in all tabs first, in this one too, also in one that answers too late. What
   * is issued meanwhile ends it with `PendingError`, unless `force` is set. A page that was put
   * aside, or whose engine has just died, is not told, and has the document anew as it goes on.
   */
  readonly everywhere?: boolean | undefined;
}

/** What {@link destroyAll} wants to know, to delete the copies of one user. */
export interface DestroyAllOptions extends WorkerUrls {
  /** Whose copies. The empty text: the device's. */
  readonly user: string;
  /** Also with mutations pending, which are lost then. */
  readonly force?: boolean | undefined;
  /** Closes all of them in all tabs first, as {@link DestroyOptions.everywhere} says. */
  readonly everywhere?: boolean | undefined;
}

/** All options, of either call: who destroys what was opened may give the same ones. */
const OPTIONS =
  'document, server, token, user, dev, force, everywhere, ' +
  'workerUrl, coreWasmUrl, pageServerWasmUrl';

/** One connection for each set of addresses, which is nearly always one. */
const connections = new Map<string, Connection>();

/** Where no page is, the engine says so. */
const here = (): string => globalThis.location?.href ?? 'about://';

function connectionTo(urls: WorkerUrls): Connection {
  const place = (url: string | URL | undefined): string | undefined =>
    url && new URL(url, here()).href;
  const places = {
    workerUrl: place(urls.workerUrl),
    coreWasmUrl: place(urls.coreWasmUrl),
    pageServerWasmUrl: place(urls.pageServerWasmUrl),
  };
  const key = JSON.stringify(places);
  let connection = connections.get(key);
  if (!connection) {
    connection = new Connection(places);
    connections.set(key, connection);
  }
  return connection;
}

/**
 * Opens a document, which every tab of this origin may do at once.
 *
 * Resolves as soon as the document can be read and changed here; the server need not be there. A
 * local document that is given a server is handed over first, which takes the time that the line
 * needs.
 *
 * @example
 * ```ts
 * const db = await open(todos, { document: 'groceries', server: 'wss://sync.example.org' });
 * ```
 */
export function open<
  const Defined extends Mutations,
  const Recorded extends Streams = Record<never, never>,
  const Flows extends Workflows = Record<never, never>,
>(
  doctype: Doctype<Defined, Recorded, Flows>,
  options: OpenOptions,
): Promise<Database<Defined, Recorded, Flows>> {
  // False where a bundler builds for users, if it says so: then all of this is left out.
  if (!(import.meta as BundledMeta).env?.PROD) {
    const { dev, document, server, ...rest } = Object(options) as OpenOptions;
    const once = async () => {
      if (dev && !/^(reset|error)$/.test(dev.onMigrationEdited)) {
        wrong("dev has to be { onMigrationEdited: 'reset' } or { onMigrationEdited: 'error' }");
      }
      const db = await openOnce(doctype, options);
      if (server !== undefined) explainSilence(db, server);
      return db;
    };
    if (dev?.onMigrationEdited !== 'reset') return once();
    const whose = { ...rest, token: undefined, force: true, everywhere: true };
    const steps = { document, server, open: once, destroy: () => destroy(document, whose) };
    // Fetched only where it is asked for: no user's page has to.
    return import('./dev.js').then(({ openAnew }) => openAnew(steps));
  }
  return openOnce(doctype, options);
}

/** A WebSocket does not say why it fails: developers are told, once, what is at its address. */
function explainSilence(db: Database, server: string | URL): void {
  const look = ({ error }: Status): void => {
    if (error?.code !== 'server-unreachable') return;
    stop();
    const saying = import('./dev.js').then(({ sayWhoAnswers }) => sayWhoAnswers(db, server));
    // The page's own site may be away as well.
    saying.catch(() => {});
  };
  const stop = db.on('status', look);
  look(db.status);
}

async function openOnce<
  Defined extends Mutations,
  Recorded extends Streams,
  Flows extends Workflows,
>(
  doctype: Doctype<Defined, Recorded, Flows>,
  options: OpenOptions,
): Promise<Database<Defined, Recorded, Flows>> {
  const flaw = flawOf(doctype);
  if (flaw) wrong(flaw);
  const { document, server, token, user = '', ...urls } = checkOptions(options);
  if (token !== undefined && typeof token !== 'function') wrong('token has to be a function');
  const wanted = {
    document: checkText('document', document),
    user: checkText('user', user),
    server: server === undefined ? undefined : socketAddress(server),
  };
  return openOn(connectionTo(urls), doctype, wanted, token);
}

/** @internal Opens a document on this connection. The names were checked. */
export function openOn<
  Defined extends Mutations,
  Recorded extends Streams = Streams,
  Flows extends Workflows = Workflows,
>(
  connection: Connection,
  doctype: Doctype<Defined, Recorded, Flows>,
  wanted: Pick<ToCore['open'], 'document' | 'user' | 'server'>,
  token?: GetToken,
): Promise<Database<Defined, Recorded, Flows>> {
  return new Promise((resolve, reject) => {
    const message = { handle: connection.nextHandle(), ...wanted, doctype };
    connection.open(message, token, (answer) => {
      if (answer.type === 'failed') reject(answer.error);
      else if (answer.type === 'opened') {
        resolve(new Database<Defined, Recorded, Flows>(connection, message, answer));
      }
    });
  });
}

/**
 * Deletes the local copy of a document. Refuses with `PendingError` while mutations are pending,
 * and where it cannot be read with the reason for that, unless `force` is set; and with
 * `DocumentInUseError` where a tab has it open, unless `everywhere` is: then all tabs close it
 * first, for which they have five seconds.
 *
 * @example
 * ```ts
 * try {
 *   await destroy('groceries');
 * } catch (error) {
 *   if (!(error instanceof PendingError)) throw error;
 *   if (confirm('Lose what the server has not seen yet?')) {
 *     await destroy('groceries', { force: true });
 *   }
 * }
 * ```
 */
export async function destroy(document: string, options: DestroyOptions = {}): Promise<void> {
  const { user = '', ...rest } = checkOptions(options);
  const name = { document: checkText('document', document), user: checkText('user', user) };
  await destroyCopies(name, rest);
}

/** @internal Deletes the copies of all documents of a user. */
export async function destroyAllOf(options: DestroyAllOptions): Promise<void> {
  const { user, ...rest } = checkOptions(options);
  if ('document' in options) wrong('there is no option document here: destroy deletes one');
  await destroyCopies({ document: undefined, user: checkText('user', user) }, rest);
}

function destroyCopies(
  of: Pick<ToCore['destroy'], 'document' | 'user'>,
  { force, everywhere, ...urls }: Omit<DestroyOptions, 'user'>,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const message = { ...of, force: force === true, everywhere: everywhere === true };
    connectionTo(urls).call('destroy', message, (answer) => {
      if (answer.type === 'failed') reject(answer.error);
      else resolve();
    });
  });
}

/** Thrown in an async function: whatever is given, a call answers by rejecting. */
function wrong(what: string): never {
  throw new InvalidOptionError(what);
}

function checkOptions<Options extends WorkerUrls>(options: Options): Options {
  if (Object(options) !== options) wrong('the options have to be an object');
  for (const [name, url] of Object.entries(options)) {
    const isThere = OPTIONS.split(', ').includes(name);
    if (!isThere) wrong(`there is no option ${name}: there are ${OPTIONS}`);
    if (/Url$/.test(name) && url !== undefined && !URL.canParse(String(url), here())) {
      wrong(`${name} is no address`);
    }
  }
  return options;
}

/** @internal */
export function checkText(name: string, text: string): string {
  return isText(text) ? text : wrong(`${name} has to be a string of whole characters`);
}

/** @internal What the core can append a path to: one text for one server. */
export function socketAddress(server: string | URL): string {
  const text = String(server);
  if (!/^wss?:\/\//i.test(text) || !URL.canParse(text)) {
    wrong('server has to be an address that begins with ws:// or wss://');
  }
  if (/[\s?#]/.test(text)) wrong('server has to be an address without spaces, ? and #');
  if (/\/v1\/sync\/*$/.test(text)) {
    wrong('server has to be the address without /v1/sync, which is appended to it');
  }
  return text.replace(/\/+$/, '');
}
