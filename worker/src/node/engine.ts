/**
 * The thread in which a process of Node has its core and its page server.
 *
 * Both are the modules that a browser runs, and the page server is hosted by the same `StoreHost`,
 * in the core's own thread as in windows without files. What a browser's workers do beside that, to
 * find, lend and replace each other among tabs, has no counterpart: a process has one tab for each
 * folder, which starts this thread and ends it. So this is a shell of its own, and a small one.
 * Sockets are the tab's, since their class may be the app's. The thread that has the files holds
 * the folder's lock itself, so that the lock goes with the files.
 *
 * It decides nothing. What happens goes into the core, which calls `host` for what is to be done.
 */

import { readFileSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import type { Bytes } from '../../../js/dist/codec.js';
import type {
  EngineData,
  FromEngine,
  Refused,
  ToEngine,
} from '../../../js/dist/node/engine-messages.js';
import type { DocumentName, Ready, Unserved, UnservedKind, Use } from '../../../js/dist/ports.js';
import * as core from '../../wasm/core.js';
import * as store from '../../wasm/page_server.js';
import { lookEvery } from '../look.js';
import { transferOf, UNSERVED_KINDS } from '../shared.js';
import { StoreHost } from '../store-host.js';
import { isFull, openFolder, openMemory, removeFiles } from './keep.js';
import { InUse, lockFolder, type Release } from './lock.js';

/** The one tab. */
const TAB = 1;

/** At first, before a store that failed is opened anew. */
const AGAIN_MS = 500;

/** The longest such wait: a full device may have room again at any time. */
const AGAIN_MS_MAX = 8_000;

/** A store that worked for so long did not fail for the reason of those before it. */
const STEADY_MS = 60_000;

/** Between two looks at whether the files still exist, and misses that count. */
const LOOK_MS = 1_000;
const MISSES = 2;

const { folder, removes } = workerData as EngineData;

const sockets = new Set<number>();
let works = false;
let release: Release = () => {};
/** The page server in use, the way to it, and its number. */
let storeHost: StoreHost | undefined;
let way: MessagePort | undefined;
let server = 0;
/** Whether the files were there: they are not made once more. */
let hasBegun = false;
let pauseMs = AGAIN_MS;
let alarm: ReturnType<typeof setTimeout> | undefined;
let alarmAt = Number.POSITIVE_INFINITY;
/** The document that the core died of, once that is known. */
let culprit: DocumentName | undefined;
/** What came before there was a core. */
let early: ToEngine[] = [];

/** Milliseconds since the epoch; unlike the wall clock it never goes back. */
const now = (): number => performance.timeOrigin + performance.now();

/** What of a message is handed over. */
const largeOf = (message: FromEngine): ArrayBuffer[] =>
  message instanceof Uint8Array && transferOf(message).length > 0 ? [message.buffer] : [];

/** What the tab is told once all is done that has come by now. */
let untold: FromEngine[] = [];

function tell(message: FromEngine): void {
  if (untold.push(message) === 1) setImmediate(tellAll);
}

function tellAll(): void {
  const messages = untold;
  untold = [];
  if (messages.length > 0) parentPort!.postMessage(messages, messages.flatMap(largeOf));
}

const host: core.Host = {
  toTab: (_, messages) => tell(messages),
  toPageServer(to, requests) {
    if (to === server) way?.postMessage(requests, transferOf(requests));
  },
  openSocket(socket, url) {
    sockets.add(socket);
    tell({ type: 'openSocket', socket, url });
  },
  toServer: (socket, message) => tell({ type: 'toServer', socket, message }),
  closeSocket(socket) {
    sockets.delete(socket);
    tell({ type: 'closeSocket', socket });
  },
  // One that comes too early is harmless, and cheaper than setting it anew in every step.
  wakeAt(ms) {
    if (ms >= alarmAt) return;
    clearTimeout(alarm);
    alarmAt = ms;
    alarm = setTimeout(wake, Math.min(Math.max(ms - now(), 0), 2 ** 31 - 1));
  },
  culprit(document, user) {
    culprit = { document, user };
  },
};

process.on('uncaughtException', (error) => {
  const reason = `the engine failed: ${error}`;
  if (works) die(reason);
  else refuse('engine', reason);
});
parentPort!.on('message', (messages: ToEngine[]) => {
  for (const message of messages) {
    if (works) receive(message);
    else early.push(message);
  }
});
parentPort!.on('messageerror', () => die('a message did not get through to the engine'));
void start();

async function start(): Promise<void> {
  try {
    if (folder !== undefined) release = await lockFolder(folder);
    if (removes) {
      removeFiles(folder!);
      tell({ type: 'removed' });
      end();
      return;
    }
  } catch (error) {
    const kind = error instanceof InUse ? 'in-use' : isFull(error) ? 'full' : 'unavailable';
    refuse(kind, (error as Error).message);
    return;
  }
  try {
    core.initSync({ module: load('core') });
    store.initSync({ module: load('page_server') });
    core.start(crypto.getRandomValues(new Uint8Array(32)), host);
  } catch (error) {
    refuse('engine', `the engine could not be started: ${error}`);
    return;
  }
  works = true;
  tell({ type: 'ready' });
  const waiting = early;
  early = [];
  for (const message of waiting) receive(message);
  if (works) serve();
}

function refuse(kind: Refused['kind'], reason: string): void {
  tell({ type: 'refused', kind, reason });
  end();
}

function load(name: string): WebAssembly.Module {
  const url = new URL(`../../wasm/${name}_bg.wasm`, import.meta.url);
  return new WebAssembly.Module(readFileSync(url));
}

function receive(message: ToEngine): void {
  if (!works) return;
  if (message instanceof Uint8Array) {
    if (step(core.tabMessages, TAB, message) === false) die('a message could not be read');
  } else if (message.type === 'end') end();
  else if (sockets.has(message.socket)) {
    const { socket } = message;
    if (message.type === 'socketMessage') step(core.socketMessage, socket, message.message);
    else if (message.type === 'socketOpened') step(core.socketOpened, socket);
    else if (sockets.delete(socket)) step(core.socketClosed, socket);
  }
}

/** Opens the store, and opens it anew where it fails. */
function serve(): void {
  const since = performance.now();
  const { port1, port2 } = new MessageChannel();
  const number = ++server;
  const own = new StoreHost(() => {
    if (performance.now() - since > STEADY_MS) pauseMs = AGAIN_MS;
    setTimeout(again, pauseMs);
    pauseMs = Math.min(2 * pauseMs, AGAIN_MS_MAX);
  });
  const again = (): void => {
    try {
      step(core.pageServerGone, number);
      port1.close();
      own.close();
      if (works) serve();
    } catch (error) {
      die(`the store failed: ${error}`);
    }
  };
  storeHost = own;
  way = port1;
  port1.onmessageerror = () => die('a message did not get through to the engine');
  port1.onmessage = ({ data }: MessageEvent<Bytes | Ready | Unserved>) => {
    if (data instanceof Uint8Array) step(core.pageServerReplies, number, data);
    else if (data.type === 'ready') {
      step(core.pageServerLent, number, data.settledAt, data.inBlocks);
    } else failed(number, data);
  };
  own.serve(port2);
  // There is no other core whose word it could take for this one's.
  port1.postMessage({ type: 'use', lock: '' } satisfies Use);
  void own.start(folder === undefined ? openMemory() : openLooked(folder, own));
}

/** Opens the files, and looks from then on whether they are there: writing tells nothing. */
async function openLooked(at: string, own: StoreHost): ReturnType<typeof openFolder> {
  const kept = await openFolder(at, !hasBegun);
  hasBegun = true;
  let misses = 0;
  const areGone = (isThere: boolean): boolean => {
    misses = isThere ? 0 : misses + 1;
    return misses >= MISSES || storeHost !== own;
  };
  void lookEvery(LOOK_MS, kept.isThere, areGone).then(() => {
    if (storeHost === own) own.lost();
  });
  return kept;
}

function failed(number: number, { kind, reason }: { kind: UnservedKind; reason: string }): void {
  const place = UNSERVED_KINDS.indexOf(kind);
  step(core.pageServerFailed, number, place, new TextEncoder().encode(reason));
}

function wake(): void {
  alarmAt = Number.POSITIVE_INFINITY;
  step(core.wake);
}

/** One step of the core. Whatever it throws is its end. */
function step<Args extends unknown[], Result>(
  run: (nowMs: number, ...args: Args) => Result,
  ...args: Args
): Result | undefined {
  if (!works) return undefined;
  try {
    return run(now(), ...args);
  } catch (error) {
    try {
      core.nameCulprit(host);
    } catch {
      // Whatever has happened left nothing that can say so.
    }
    die(`the core failed: ${error}`);
    return undefined;
  }
}

/** The tab starts another thread. */
function die(reason: string): void {
  if (!works) return;
  tell({ type: 'died', reason, culprit });
  end();
}

/** Ends this thread: files first, then the lock on their folder. */
function end(): void {
  works = false;
  try {
    storeHost?.close();
  } catch {
    // A store that has died lets go of its files with this thread.
  }
  release();
  tellAll();
  process.exit();
}
