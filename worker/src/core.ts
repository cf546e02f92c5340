/**
 * The SharedWorker that the core lives in: ports, sockets, locks and the clock.
 *
 * It decides nothing. What happens goes into the core, and the core calls `host` for what is to be
 * done. Everything that comes before the WebAssembly is there waits in order.
 */

import type { Bytes } from '../../js/dist/codec.js';
import type {
  DocumentName,
  FromTab,
  Hello,
  Reach,
  Ready,
  TabPort,
  ToTab,
  Unserved,
  UnservedKind,
  Use,
} from '../../js/dist/ports.js';
import * as core from '../wasm/core.js';
import { openBlocks } from './blocks.js';
import { lookEvery } from './look.js';
import { renewScripts } from './renew.js';
import { BUILD, compile, hold, transferOf, UNSERVED_KINDS } from './shared.js';
import { loadStore, StoreHost } from './store-host.js';

declare const self: SharedWorkerGlobalScope;

/** Held for as long as this worker is the core: the site has one store, and so one core. */
const CORE_LOCK = `tidelog-core:${BUILD}`;

/** Which of the workers at this address: tabs that are not answered ask for another one. */
const PLACE = self.name.split('-').at(-1)!;

/**
 * Held besides while this worker is the core: says what and where it is to tabs that look for one.
 * No other core ever holds it, not even one at this place, so it tells its tabs of its end.
 */
const LOCK = `${CORE_LOCK} ${kind()} ${location.href} ${PLACE} ${crypto.randomUUID()}`;

/**
 * The core of a newer release, or of a later build, names here the locks of those that are to give
 * way, as its tabs tell it once it works. All releases keep to this.
 */
const takeOver = new BroadcastChannel('tidelog-take-over');

/**
 * A core that misses a page server names its own lock here: one that this core has no way to, since
 * its tab is blocked, lets go of the store. All releases keep to this.
 */
const storeHolders = new BroadcastChannel('tidelog-missing');

/** Whoever has removed all data says so here, once they are gone: a core that lost them ends. */
const removed = new BroadcastChannel('tidelog-removed');

/** How long a core may take to notice that its data were removed. */
const REMOVED_MS = 10_000;

/** What a core dies of whose data were removed, or cleared by the browser. */
const CLEARED = 'the data of this site were cleared';

/** How long a tab may take to lend the core the page server that has the store. */
const MISSING_MS = 3_000;

/** How long a core that gives way waits: what it has asked the page server is done by then. */
const LAST_WORDS_MS = 500;

/** A page server that is not there after so long may take as long as a warm-up does. */
const WARM_UP_AFTER_MS = 10;

/** Between two looks at whether a core elsewhere has what this one waits for. */
const LOOK_MS = 50;

/** Looks at a core at our own place after which it is not about to end: four seconds. */
const LOOKS_MAX = 80;

/**
 * How long to wait before what was refused is asked for again, and, at first, before a store that
 * broke in this worker is opened anew.
 */
const AGAIN_MS = 500;

/** The longest such wait: a full device may have room again at any time. */
const AGAIN_MS_MAX = 8_000;

/** Tabs that are told at once to lend without their turn: one of them may be blocked as well. */
const LENT_AT_ONCE = 2;

/** Workers that are lent at a time, at most, if none of them says a word. */
const LENT_MAX = 8;

interface Tab {
  readonly number: number;
  /** Its own number for this core. */
  readonly core: number;
  readonly port: MessagePort;
  /** What it has lent: the page server in use, or one that waits for the store. */
  lent?: PageServer | undefined;
  /** Another page server came in place of what it lent, and nobody has said that this ended. */
  isReplaced?: boolean;
}

/**
 * A page server, in use or waiting for the store. Tabs lend it in every browser. Firefox lets a
 * SharedWorker start one by itself, but about once in a hundred times `new Worker` there never
 * returns, and such a core cannot be ended.
 */
interface PageServer {
  readonly number: number;
  /** Its tab's number for the worker; absent if it is here. */
  readonly worker?: number;
  readonly way: MessagePort;
  /** What it said last of the store before it was used. */
  word?: Ready | Unserved;
  /** Whether it has the store open. */
  ready?: boolean;
  /** Whether the data were cleared under it, so that what it has is the last copy. */
  hasLastCopy?: boolean;
}

const tabs = new Map<number, Tab>();
const tabsByLock = new Map<string, Tab>();
/** Undefined where the address was no good. */
const sockets = new Map<number, WebSocket | undefined>();
/** Whether the core is at work. */
let works = false;
let started = false;
/** Done once the server was asked for the present scripts. */
let renewing: Promise<void> | undefined;
/** Whether a core of another release was promised the store. */
let isGivingWay = false;
/** The page server in use. */
let pageServer: PageServer | undefined;
/** Ends the wait for one. */
let missing: ReturnType<typeof setTimeout> | undefined;
/** Whether this worker serves the store itself. */
let servesHere = false;
let pauseMs = AGAIN_MS;
let wasmUrl: string | undefined;
/** Has the core warm up, once. */
let warmUp: ReturnType<typeof setTimeout> | undefined;
let isWarm = false;
let lastNumber = 0;
let alarm: ReturnType<typeof setTimeout> | undefined;
let alarmAt = Number.POSITIVE_INFINITY;
/** Until when it may turn out that somebody has removed the data of this core. */
let removedUntil = 0;
/** The document that the core died of, once that is known. */
let culprit: DocumentName | undefined;
/** What came before there was a core. */
let early: { readonly tab: Tab; readonly message: FromTab }[] = [];

/** Milliseconds since the epoch; unlike the wall clock it never goes back. */
const now = (): number => performance.timeOrigin + performance.now();

const host: core.Host = {
  toTab: (tab, messages) => tabs.get(tab)?.port.postMessage(messages, transferOf(messages)),
  toPageServer(server, requests) {
    if (server === pageServer?.number) {
      pageServer.way.postMessage(requests, transferOf(requests));
    }
  },
  openSocket,
  toServer(socket, message) {
    const open = sockets.get(socket);
    if (open?.readyState === WebSocket.OPEN) open.send(message);
  },
  closeSocket(socket) {
    const open = sockets.get(socket);
    sockets.delete(socket);
    open?.close();
  },
  // One that comes too early is harmless, and cheaper than setting it anew in every step.
  wakeAt(ms) {
    if (ms >= alarmAt) return;
    clearTimeout(alarm);
    alarmAt = ms;
    alarm = setTimeout(wake, Math.min(ms - now(), 2 ** 31 - 1));
  },
  culprit(document, user) {
    culprit = { document, user };
  },
};

/** What bundlers made of this worker: whoever joins it has to ask for the same. */
function kind(): WorkerType {
  try {
    // Without arguments it does nothing, but modules may not call it: in Firefox they may.
    importScripts();
    return 'classic';
  } catch {
    return 'module';
  }
}

/** Makes the core of this worker. */
export function runCore(): void {
  self.addEventListener('error', ({ error }) => {
    // One without an error tells of no throw: browsers have told so of a request that failed.
    if (error) uncaught(error);
  });
  self.addEventListener('unhandledrejection', ({ reason }) => uncaught(reason));
  self.onconnect = ({ ports: [port] }) => {
    let tab: Tab | undefined;
    port.onmessageerror = missed;
    port.onmessage = ({ data }: MessageEvent<FromTab>) => {
      if (tab) receive(tab, data);
      else if ('type' in data && data.type === 'hello') {
        if (data.build === BUILD) tab = greet(port, data);
        else refuse(port);
      }
    };
  };
}

/**
 * The tab found this script where that of its own build was. Nothing was started for it, so no tab
 * of this build has to wait for what it keeps alive; if it asks again, the address is read anew,
 * and not from a cache that has kept this script over a deployment.
 */
function refuse(port: MessagePort): void {
  port.postMessage({ type: 'otherBuild' } satisfies ToTab);
  renewing ??= renewScripts();
  void renewing.then(() => started || self.close());
}

function greet(port: MessagePort, { lock, core, isNew, urls }: Hello): Tab | undefined {
  const before = tabsByLock.get(lock);
  // The tab has left this port for the newer one.
  if (before && core < before.core) {
    port.close();
    return undefined;
  }
  const tab: Tab = { number: ++lastNumber, core, port };
  if (before) {
    left(before);
    if (isLastCopyOf(before)) tab.lent = before.lent;
  }
  tabsByLock.set(lock, tab);
  tabs.set(tab.number, tab);
  if (!started) {
    started = true;
    start(urls).catch((error) => die(`the core could not be started: ${error}`));
  }
  if (works) welcome(tab);
  // Whoever loads a page now has been told, and wants to begin anew. Whoever only comes back does
  // not, but can open nothing here: it is kept waiting for those who still read the last copy.
  const isRead = tabs.size > 1 && pageServer?.hasLastCopy;
  if (isLost() && (isNew || !isRead)) die(CLEARED);
  if (!before) awaitEnd(lock);
  return tab;
}

/**
 * A tab whose end nobody notices would keep for ever what it has open. One that lives nevertheless
 * has its lock among others than ours: Chromium gives whoever comes after the data of a site were
 * cleared new locks, and those of before do not know them.
 */
function awaitEnd(lock: string): void {
  const ended = (): void => {
    const last = tabsByLock.get(lock);
    tabsByLock.delete(lock);
    if (!last) return;
    last.port.postMessage({ type: 'apart' } satisfies ToTab);
    gone(last);
  };
  navigator.locks.request(lock, ended).catch(() => setTimeout(() => awaitEnd(lock), AGAIN_MS));
}

function welcome(tab: Tab): void {
  tab.port.postMessage({ type: 'welcome', lock: LOCK } satisfies ToTab);
  reach(tab);
}

/** Asks a tab for a way from the page server to it. */
function reach({ port }: Tab): void {
  if (!pageServer?.ready) return;
  port.postMessage({ type: 'reach', server: pageServer.number } satisfies Reach);
}

/** Whether the data were cleared under the core. */
function isLost(): boolean {
  return works && core.isLost();
}

/** Whether what this tab lent has the last copy of data that were cleared. */
function isLastCopyOf({ lent }: Tab): boolean {
  return !!pageServer?.hasLastCopy && pageServer === lent;
}

/** The tab has ended, and with it what it lent. */
function gone(tab: Tab): void {
  disconnect(tab);
  lendEnded(tab);
}

/** The tab is to say hello anew, and to lend anew, unless what it lent cannot be replaced. */
function left(tab: Tab): void {
  disconnect(tab);
  if (!isLastCopyOf(tab)) lendEnded(tab);
}

/** The tab has no more use of this port, which one end alone would keep. */
function disconnect({ number, port }: Tab): void {
  tabs.delete(number);
  port.close();
  early = early.filter(({ tab }) => tab.number !== number);
  step(core.tabClosed, number);
  pageServer?.way.postMessage({ type: 'tab', tab: number } satisfies TabPort);
}

/** Nobody knows what the tab asked, and what it says next may build on that. */
function unread(tab: Tab): void {
  tab.port.postMessage({ type: 'unread' } satisfies ToTab);
  left(tab);
}

/** Resolves when this worker is the core. If another one is, its tabs go there, and it ends. */
async function becomeCore(): Promise<void> {
  let looks = 0;
  let isWaiting = true;
  const isOver = ({ held = [] }: LockManagerSnapshot): boolean => {
    // Tabs share the lock of a core that died, if only to hear of it.
    const alone = held.filter(({ mode }) => mode === 'exclusive');
    const names = alone.map(({ name = '' }) => name.split(' '));
    const at = names.find(([lock, , url]) => lock === CORE_LOCK && url);
    if (!at || !isWaiting) return !isWaiting;
    // One at our own place may just have been left by all, and be about to end. If it is not,
    // then the address led others there, by a redirect, and our tab to this worker.
    const isHere = at[2] === location.href && at[3] === PLACE;
    const isElsewhere = !isHere || ++looks > LOOKS_MAX;
    if (isElsewhere) end({ type: 'elsewhere' });
    return isElsewhere;
  };
  const look = () => navigator.locks.query().catch(() => ({}) as LockManagerSnapshot);
  void lookEvery(LOOK_MS, look, isOver);
  await hold(CORE_LOCK);
  isWaiting = false;
  // Whoever finds the second lock may name the first at once.
  takeOver.onmessage = ({ data }: MessageEvent<string>) => {
    if (data === CORE_LOCK) giveWay();
  };
  await hold(LOCK);
  removed.onmessage = () => {
    removedUntil = performance.now() + REMOVED_MS;
    endIfRemoved();
  };
}

/** A core of another release takes over. What tabs ask from now on is lost, as if this one died. */
function giveWay(): void {
  if (isGivingWay) return;
  isGivingWay = true;
  setTimeout(() => end({ type: 'replaced' }), LAST_WORDS_MS);
}

async function start(urls: Hello['urls']): Promise<void> {
  const url = urls.coreWasmUrl ?? new URL('../wasm/core_bg.wasm', import.meta.url);
  const [module] = await Promise.all([compile(url, core.BUILD), becomeCore()]);
  core.initSync({ module });
  core.start(crypto.getRandomValues(new Uint8Array(32)), host);
  works = true;
  wasmUrl = urls.pageServerWasmUrl;
  tabs.forEach(welcome);
  const waiting = early;
  early = [];
  for (const { tab, message } of waiting) receive(tab, message);
  warmUpIn(pageServer?.ready ? 0 : WARM_UP_AFTER_MS);
  isWithout();
}

/**
 * Uses a wait for the disk: what comes from there needs what a warm-up compiles. Best is that for
 * the first answer, whose question does not wait for a warm-up then.
 */
function warmUpIn(ms: number): void {
  clearTimeout(warmUp);
  if (isWarm) return;
  warmUp = setTimeout(() => {
    isWarm = true;
    if (works) core.warmUp();
  }, ms);
}

/** There is no page server to use: one that should be there by now is missed until it is. */
function isWithout(misses = 0): void {
  clearTimeout(missing);
  missing = setTimeout(() => {
    // What was cleared under this core, or another one is to have, is asked of none any more.
    if (!works || pageServer || isLost() || isGivingWay) return;
    const isInLine = lent().length > 0;
    // Whatever an earlier core used has the store, and another one waits for that.
    if (isInLine) storeHolders.postMessage(LOCK);
    // Or none waits, or its tab is blocked while it loads, or the tab whose turn it is to lend.
    if (!isInLine || misses > 0) lendNow(misses);
    isWithout(misses + 1);
  }, MISSING_MS);
}

/** Has tabs that lend nothing do so without their turn: the next few each time, to load little. */
function lendNow(misses: number): void {
  // So many would not be blocked: whichever has the store takes its time to open it.
  if (lent().length >= LENT_MAX) return;
  const idle = [...tabs.values()].filter((tab) => !tab.lent).reverse();
  for (let nth = 0; nth < Math.min(LENT_AT_ONCE, idle.length); nth++) {
    const tab = idle[(misses * LENT_AT_ONCE + nth) % idle.length]!;
    tab.port.postMessage({ type: 'lendNow' } satisfies ToTab);
  }
}

function receive(tab: Tab, message: FromTab): void {
  if (tabs.get(tab.number) !== tab || isGivingWay) return;
  if (!works) early.push({ tab, message });
  else if (message instanceof Uint8Array) {
    if (step(core.tabMessages, tab.number, message) === false) unread(tab);
  } else if (message.type === 'lend') {
    const { worker, port } = message;
    const isInUse = isLastCopyOf(tab) && pageServer!.worker === worker;
    if (servesHere || isInUse) port.close();
    else lend(tab, { number: ++lastNumber, worker, way: port });
  } else if (message.type === 'reach' && message.server === pageServer?.number) {
    const port = message.port!;
    pageServer.way.postMessage({ type: 'tab', tab: tab.number, port } satisfies TabPort, [port]);
    step(core.tabReached, tab.number, message.server);
  } else if (message.type === 'takeOver') {
    for (const lock of message.locks) {
      if (lock === CORE_LOCK) giveWay();
      else takeOver.postMessage(lock);
    }
  } else if (message.type === 'lendEnded') {
    lendEnded(tab, message.why);
  } else if (message.type === 'lendFailed' && !pageServer && lent().length === 0) {
    // Whoever waits is told; other tabs are next in line.
    failed({ number: ++lastNumber }, 'unavailable', message.reason);
  }
}

/** What tabs have lent. */
function lent(): PageServer[] {
  return [...tabs.values()].flatMap(({ lent }) => lent ?? []);
}

/** What this tab lends from now on comes in place of what it lent before. */
function lend(tab: Tab, server: PageServer): void {
  lendEnded(tab);
  tab.lent = server;
  meet(server);
}

/** What this tab lent has ended, and perhaps why. */
function lendEnded(tab: Tab, why?: Unserved): void {
  const server = tab.lent;
  tab.lent = undefined;
  tab.isReplaced = false;
  if (!server) return;
  server.way.close();
  // It had the store when it failed, though its own word of that may come later.
  if (why && server !== pageServer) hasStore(server);
  if (server !== pageServer) return;
  pageServer = undefined;
  if (why) failed(server, why.kind, why.reason);
  step(core.pageServerGone, server.number);
  isWithout();
  const next = lent().find(({ word }) => word);
  if (next) use(next);
  // It may have spoken late, and one that it replaced may have the store.
  for (const other of tabs.values()) {
    if (other.isReplaced) other.port.postMessage({ type: 'lendAgain' } satisfies ToTab);
    other.isReplaced = false;
  }
}

/** Listens to a page server, which says by itself when it has the store. */
function meet(server: PageServer): void {
  const { number, way } = server;
  way.onmessageerror = missed;
  way.onmessage = ({ data }: MessageEvent<Bytes | Ready | Unserved>) => {
    const isUsed = server === pageServer;
    if (data instanceof Uint8Array) {
      if (isUsed) step(core.pageServerReplies, number, data);
    } else if (isUsed) hear(server, data);
    else if (lent().includes(server)) {
      server.word = data;
      hasStore(server);
    }
  };
  way.postMessage({ type: 'use', lock: LOCK } satisfies Use);
}

/** It has the store. That the last copy of cleared data has ended only its own tab can say. */
function hasStore(server: PageServer): void {
  if (!pageServer?.hasLastCopy) use(server);
}

/** Goes over to this page server: the one before has ended. */
function use(server: PageServer): void {
  const before = pageServer;
  pageServer = server;
  if (before) {
    const lender = [...tabs.values()].find(({ lent }) => lent === before);
    if (lender) {
      lender.lent = undefined;
      lender.isReplaced = true;
    }
    // Should it be there after all, it is to let go as soon as it is missed.
    before.way.postMessage({ type: 'use' } satisfies Use);
    before.way.close();
    step(core.pageServerGone, before.number);
  }
  if (server.word) hear(server, server.word);
}

function hear(server: PageServer, word: Ready | Unserved): void {
  if (word.type === 'ready') {
    step(core.pageServerLent, server.number, word.settledAt, word.inBlocks);
    server.ready = true;
    warmUpIn(0);
    tabs.forEach(reach);
  } else if (word.kind === 'no-files') serveHere();
  else {
    server.hasLastCopy = word.kind === 'lost' && !isLost();
    failed(server, word.kind, word.reason);
  }
}

function failed({ number }: Pick<PageServer, 'number'>, kind: UnservedKind, reason: string): void {
  const place = UNSERVED_KINDS.indexOf(kind);
  step(core.pageServerFailed, number, place, new TextEncoder().encode(reason));
}

/** The browser gives no files to this window's workers: keeps the store in IndexedDB, here. */
function serveHere(): void {
  servesHere = true;
  for (const tab of tabs.values()) {
    tab.lent?.way.close();
    tab.lent = undefined;
  }
  const since = performance.now();
  const { port1, port2 } = new MessageChannel();
  const host = new StoreHost(() => {
    // One that worked for long has not failed for the reason of those before it.
    if (performance.now() - since > 60_000) pauseMs = AGAIN_MS;
    setTimeout(again, pauseMs);
    pauseMs = Math.min(2 * pauseMs, AGAIN_MS_MAX);
  });
  const again = (): void => {
    try {
      host.close();
      serveHere();
    } catch (error) {
      die(`the store failed: ${error}`);
    }
  };
  const server = { number: ++lastNumber, way: port1 };
  use(server);
  meet(server);
  host.serve(port2);
  const lost = (): void => host.lost();
  const closed = (isThere: Promise<boolean>): void => void host.closed(isThere);
  const aborted = (isThere: Promise<boolean>): void => void host.aborted(isThere);
  const opening = loadStore(wasmUrl).then(() => openBlocks(lost, closed, aborted));
  void host.start(opening);
}

function openSocket(number: number, url: string): void {
  const closed = (): void => {
    if (sockets.delete(number)) step(core.socketClosed, number);
  };
  let socket: WebSocket;
  try {
    socket = new WebSocket(url);
  } catch {
    sockets.set(number, undefined);
    setTimeout(closed);
    return;
  }
  sockets.set(number, socket);
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => step(core.socketOpened, number);
  socket.onclose = closed;
  socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
    if (!sockets.has(number)) return;
    if (typeof data === 'string') socket.close();
    else step(core.socketMessage, number, new Uint8Array(data));
  };
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
    const result = run(now(), ...args);
    endIfRemoved();
    return result;
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

/** Who had the data removed knows that they are gone, and goes on without them. */
function endIfRemoved(): void {
  if (performance.now() < removedUntil && isLost()) die(CLEARED);
}

/** Whatever was under way, as in a callback of the store's, stays half done. */
function uncaught(error: unknown): void {
  die(`the core failed: ${error}`);
}

/** What was said is lost, and nobody says it again but to another core. */
function missed(): void {
  die('a message did not get through to the core');
}

/** Ends this worker, so that the tabs start another one. */
function die(reason: string): void {
  end({ type: 'died', reason, culprit });
}

function end(last: ToTab): void {
  works = false;
  for (const { port } of tabs.values()) port.postMessage(last);
  self.close();
}
