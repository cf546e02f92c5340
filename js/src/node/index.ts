/**
 * The whole client in a process of Node, with its documents in a folder or in memory.
 *
 * A process is a device with one tab. What is open runs on the code of a tab in a page, and on the
 * same core and page server, in one thread for each folder; what is not there of a browser is made
 * up for at its border: files by `worker/src/node/keep.ts`, the lock on them by `lock.ts`, sockets
 * by `sockets.ts`, workers by `engine.ts`. Everything of `tidelog` is exported here too, and
 * `open`, `destroy` and `destroyAll` stand in place of those for pages.
 */

import type { GetToken } from '../connection.js';
import type { Database } from '../database.js';
import { type Doctype, flawOf, type Mutations, type Streams, type Workflows } from '../doctype.js';
import { DocumentInUseError, InvalidOptionError } from '../errors.js';
import { checkText, openOn, socketAddress } from '../open.js';
import { Device } from './device.js';
import { removeStore } from './engine.js';
import { storeFolder } from './folder.js';
import type { SocketClass } from './sockets.js';
import { type WorkHandlers, type Working, type WorkOptions, workIn } from './work.js';

export * from '../index.js';
export { DueRefusedError } from './due-lines.js';
export { FolderInUseError } from './engine.js';
export type { Socket, SocketClass } from './sockets.js';
export type { WorkHandlers, Working, WorkOptions, WorkPlace } from './work.js';

/** Where documents are kept. */
export interface FolderOptions {
  /**
   * A folder on a disk of this machine, which is made if it is not there. One process, and one
   * thread of it, has it at a time. Absent: documents are kept in memory, and are gone once none is
   * open in this thread any more.
   */
  readonly folder?: string | URL | undefined;
}

/** What {@link open} wants to know. */
export interface OpenOptions extends FolderOptions {
  /** The document's id; it is created if it does not exist. */
  readonly document: string;
  /**
   * Address of the server, `ws://` or `wss://`, to which `/v1/sync` is appended. Absent: the
   * document is purely local.
   */
  readonly server?: string | URL | undefined;
  /** Gives the token for the server whenever it is asked for. */
  readonly token?: GetToken | undefined;
  /** Whose copy this is in the folder. Absent: the process's own. */
  readonly user?: string | undefined;
  /**
   * The class of the connection to the server, as `WebSocket` of package `ws`, for all that is open
   * in the folder. Absent: `globalThis.WebSocket`, which Node has from version 22 on.
   */
  readonly webSocket?: SocketClass | undefined;
}

/** What {@link destroy} wants to know. */
export interface DestroyOptions extends FolderOptions {
  /** Whose copy. Absent: the process's own. */
  readonly user?: string | undefined;
  /** Also with mutations pending, which are lost then. */
  readonly force?: boolean | undefined;
  /** Closes the document first, wherever in this process it is open. */
  readonly everywhere?: boolean | undefined;
}

/** What {@link destroyAll} wants to know. */
export interface DestroyAllOptions extends DestroyOptions {
  /** Whose copies; the empty text: the process's own. Absent: everything in the folder. */
  readonly user?: string | undefined;
}

const NAMES = ['document', 'server', 'token', 'user', 'folder', 'webSocket', 'force', 'everywhere'];

/** What is open, by the folder of its store; in memory under the empty name. */
const devices = new Map<string, Device>();

/** What is still being let go of or removed, by the same: the next one waits for that. */
const leaving = new Map<string, Promise<void>>();

/** Does something on the device of a folder, once what there was in it before has ended. */
async function onDevice<T>(
  folder: string | URL | undefined,
  work: (device: Device) => Promise<T>,
): Promise<T> {
  const store = folder === undefined ? undefined : storeFolder(folder);
  const name = store ?? '';
  while (leaving.has(name)) await leaving.get(name);
  let device = devices.get(name);
  if (!device) {
    device = new Device(store, (end) => {
      devices.delete(name);
      return leave(name, end);
    });
    devices.set(name, device);
  }
  const found = device;
  return found.during(() => work(found));
}

/** Does it while nobody else begins anything in this folder. */
async function leave(name: string, work: () => Promise<void>): Promise<void> {
  while (leaving.has(name)) await leaving.get(name);
  const done = work().finally(() => leaving.delete(name));
  leaving.set(
    name,
    done.catch(() => {}),
  );
  await done;
}

/**
 * Opens a document, in a folder or in memory. Resolves as soon as it can be read and changed here;
 * the server need not be there.
 *
 * The process goes on until what it has opened is closed.
 *
 * Rejects with `FolderInUseError` where another process or thread has the folder, with
 * `InvalidOptionError` where there is a `server` and no class of connections to it, and otherwise
 * as `open` of `tidelog` does.
 *
 * @example
 * ```ts
 * const db = await open(todos, { document: 'groceries', folder: './data' });
 * await db.mutate.add({ title: 'milk' }); // on the disk
 * await db.close();
 * ```
 */
export async function open<
  const Defined extends Mutations,
  const Recorded extends Streams = Record<never, never>,
  const Flows extends Workflows = Record<never, never>,
>(
  doctype: Doctype<Defined, Recorded, Flows>,
  options: OpenOptions,
): Promise<Database<Defined, Recorded, Flows>> {
  const flaw = flawOf(doctype);
  if (flaw) throw new InvalidOptionError(flaw);
  const { document, server, token, user = '', folder, webSocket } = checkOptions(options);
  if (token !== undefined && typeof token !== 'function') {
    throw new InvalidOptionError('token has to be a function');
  }
  const wanted = {
    document: checkText('document', document),
    user: checkText('user', user),
    server: server === undefined ? undefined : socketAddress(server),
  };
  checkSockets(webSocket, wanted.server !== undefined);
  return onDevice(folder, (device) => {
    if (webSocket) device.engine.useSockets(webSocket);
    return openOn<Defined, Recorded, Flows>(device, doctype, wanted, token);
  });
}

/**
 * Works for many documents: handles their commands, and has their runs go on. The server says
 * which have something to do, and while they have, a few at a time are open here, in memory. Any
 * number of processes may work for the same documents; whatever one of them was at as it ends,
 * others do.
 *
 * The process goes on until it is closed. Needs a token that allows `handle`.
 *
 * @example
 * ```ts
 * const working = work(shop, { server: 'wss://sync.example.org', token, documents: 'shops/*' }, {
 *   order: {
 *     initial: 0,
 *     evolve: { placed: (count) => count + 1 },
 *     commands: { place: () => [{ type: 'placed' }] },
 *   },
 *   fulfil: async (ctx, { order }) => {
 *     await ctx.sleep('3d');
 *     await ctx.send.order.ship(order);
 *   },
 * });
 * process.once('SIGTERM', () => working.close());
 * ```
 */
export function work<
  const Defined extends Mutations,
  const Recorded extends Streams = Record<never, never>,
  const Flows extends Workflows = Record<never, never>,
>(
  doctype: Doctype<Defined, Recorded, Flows>,
  options: WorkOptions,
  handlers: WorkHandlers<Recorded, Flows>,
): Working {
  const flaw = flawOf(doctype);
  if (flaw) throw new InvalidOptionError(flaw);
  checkSockets(Object(options).webSocket, true);
  const memory = {
    open: open as never,
    destroy,
    keep: (until: Promise<void>) => onDevice(undefined, () => until),
  };
  return workIn(memory, doctype as never, options, handlers);
}

/**
 * Deletes the copy of a document in a folder. Refuses with `PendingError` while mutations are
 * pending, unless `force` is set, and with `DocumentInUseError` where it is open in this process,
 * unless `everywhere` is.
 *
 * @example
 * ```ts
 * await destroy('groceries', { folder: './data' });
 * ```
 */
export async function destroy(document: string, options: DestroyOptions = {}): Promise<void> {
  const { user = '', folder, force, everywhere } = checkOptions(options);
  const of = { document: checkText('document', document), user: checkText('user', user) };
  await destroyCopies(of, { folder, force, everywhere });
}

/**
 * Deletes everything in a folder, also where its store is damaged or of a newer format; or with a
 * `user` the copies of that user, as `destroyAll` of `tidelog` does. Refuses with
 * `DocumentInUseError` where a document of it is open in this process, and with `FolderInUseError`
 * where another one has the folder.
 *
 * @example
 * ```ts
 * await destroyAll({ folder: './data' });
 * ```
 */
export async function destroyAll(options: DestroyAllOptions = {}): Promise<void> {
  const { folder, user, force, everywhere } = checkOptions(options);
  if ('document' in options) {
    throw new InvalidOptionError('there is no option document here: destroy deletes one');
  }
  if ('user' in options) {
    const of = { document: undefined, user: checkText('user', user as string) };
    await destroyCopies(of, { folder, force, everywhere });
    return;
  }
  const store = folder === undefined ? undefined : storeFolder(folder);
  const name = store ?? '';
  while (leaving.has(name)) await leaving.get(name);
  if (devices.has(name)) {
    throw new DocumentInUseError('a document is open here: close all of them, and try again');
  }
  // What is in memory alone is gone by now.
  if (store !== undefined) await leave(name, () => removeStore(store));
}

function destroyCopies(
  of: { readonly document: string | undefined; readonly user: string },
  { folder, force, everywhere }: DestroyOptions,
): Promise<void> {
  const message = { ...of, force: force === true, everywhere: everywhere === true };
  return onDevice(folder, (device) => device.destroy(message));
}

function checkSockets(webSocket: unknown, hasServer: boolean): void {
  if (webSocket !== undefined && typeof webSocket !== 'function') {
    throw new InvalidOptionError('webSocket has to be a class, as WebSocket of package ws is');
  }
  if (hasServer && !webSocket && typeof globalThis.WebSocket !== 'function') {
    throw new InvalidOptionError(
      `Node ${process.versions.node} has no WebSocket, which a server is reached by: ` +
        'give the option webSocket, as the class WebSocket of package ws, or use Node 22 or later',
    );
  }
}

function checkOptions<Options extends object>(options: Options): Options {
  if (Object(options) !== options) {
    throw new InvalidOptionError('the options have to be an object');
  }
  const unknown = Object.keys(options).find((name) => !NAMES.includes(name));
  if (unknown === undefined) return options;
  throw new InvalidOptionError(`there is no option ${unknown}: there are ${NAMES.join(', ')}`);
}
