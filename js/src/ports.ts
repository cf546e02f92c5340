/** What travels on the ports between tabs, core and page server beside lists of messages. */

import type { Bytes } from './codec.js';

/** Where the files of the workers are, if not beside this package's own modules. */
export interface WorkerUrls {
  /** `dist/worker/worker.js` of this package. */
  readonly workerUrl?: string | URL | undefined;
  /** `dist/wasm/core_bg.wasm` of this package. */
  readonly coreWasmUrl?: string | URL | undefined;
  /** `dist/wasm/page_server_bg.wasm` of this package. */
  readonly pageServerWasmUrl?: string | URL | undefined;
}

/** The same, as whole addresses. */
export type WorkerPlaces = { readonly [Name in keyof WorkerUrls]: string | undefined };

/** The first message of a tab on its port. A later one of the same tab replaces that port. */
export interface Hello {
  readonly type: 'hello';
  /** Name of a Web Lock that the tab holds for as long as it lives. */
  readonly lock: string;
  /** The tab's number for this core. A lower one than before is heard late, and is ignored. */
  readonly core: number;
  /** Whether no core has welcomed the page yet: it has just been loaded, and has nothing open. */
  readonly isNew: boolean;
  /** The tab's build. A worker of another one answers `otherBuild`: all releases keep to this. */
  readonly build: string;
  /** The files of the workers, where they are not in their places. */
  readonly urls: WorkerPlaces;
}

/** What a tab says of other releases and builds, once the core has welcomed it. */
export interface TakeOver {
  readonly type: 'takeOver';
  /** Locks of the cores that have to give way: others, or this one. */
  readonly locks: readonly string[];
}

/**
 * A tab lends a page server, which has the store or waits for it: the other end of this port is in
 * its worker.
 */
export interface Lend {
  readonly type: 'lend';
  /** The tab's own number for its worker, which is lent again when the tab says hello again. */
  readonly worker: number;
  readonly port: MessagePort;
}

/** A tab cannot lend: its page server's script did not load. */
export interface LendFailed {
  readonly type: 'lendFailed';
  readonly reason: string;
}

/** What a tab has lent has ended. */
export interface LendEnded {
  readonly type: 'lendEnded';
  /** Why, if it failed: what it said itself may come later, and is not heard any more then. */
  readonly why?: Unserved | undefined;
}

/** What the core asks of a tab, and, with the port, its answer: a way past the core. */
export interface Reach {
  readonly type: 'reach';
  /** The page server that the port is for. */
  readonly server: number;
  /** On it come lists of messages, as they do from the core. */
  readonly port?: MessagePort;
}

/** A document, as it is opened and destroyed. */
export interface DocumentName {
  readonly document: string;
  readonly user: string;
}

/** All that a tab says to the core. */
export type FromTab = Bytes | Hello | TakeOver | Lend | LendFailed | LendEnded | Reach;

/** All that the core says to a tab. */
export type ToTab =
  | Bytes
  | Reach
  /** The core works and holds this lock, which no other core ever does. It names the build. */
  | { readonly type: 'welcome'; readonly lock: string }
  /** What came in place of its page server has ended: it lends again, if that still serves. */
  | { readonly type: 'lendAgain' }
  /** No tab has lent anything, as whose turn that is may be blocked: it waits for none. */
  | { readonly type: 'lendNow' }
  /** A list of messages could not be read: the tab was left, and asks all of it anew. */
  | { readonly type: 'unread' }
  /** A core of another release takes over the store. */
  | { readonly type: 'replaced' }
  /** The script at this address is of another build than the tab, which it takes nothing from. */
  | { readonly type: 'otherBuild' }
  /** The core was given the lock that the tab has: who hears this lives, with other locks. */
  | { readonly type: 'apart' }
  /** Another core is at work, to which the tab shall go. */
  | { readonly type: 'elsewhere' }
  /** The core cannot go on. It was at work on this document when it failed, if on any. */
  | {
      readonly type: 'died';
      readonly reason: string;
      readonly culprit: DocumentName | undefined;
    };

/** What a page server's worker is told first: to load what it needs, and to wait in line. */
export interface Prepare {
  readonly type: 'prepare';
  /** The tab's build. A worker of another one is `unloaded`: all releases keep to this. */
  readonly build: string;
  /** Where its WebAssembly is, if not in its place. */
  readonly wasm: string | undefined;
}

/** What a page server's worker is told as it is started, and again when a new core wants it. */
export interface Serve {
  readonly type: 'serve';
  /** The way to the core. */
  readonly port: MessagePort;
}

/** What a page server's worker tells who started it. */
export type FromPageServer =
  /** It waits for the store; it has it. */
  | { readonly type: 'loaded' | 'serves' }
  /** Another worker should take its place, as it has told the core, where it failed. */
  | { readonly type: 'broke'; readonly why?: Unserved | undefined }
  /** It cannot load what it needs. */
  | { readonly type: 'unloaded'; readonly reason: string };

/**
 * What a core first says to a page server, which it uses for as long as that has the store; and
 * last, where it goes over to another one.
 */
export interface Use {
  readonly type: 'use';
  /** The core's own lock; absent where it uses this page server no more. */
  readonly lock?: string;
}

/** The core tells a page server how to reach a tab; without a port, that the tab is gone. */
export interface TabPort {
  readonly type: 'tab';
  readonly tab: number;
  readonly port?: MessagePort;
}

/** A page server has the store open: whatever a core used before has ended. */
export interface Ready {
  readonly type: 'ready';
  /** Until when a power cut could still lose its files, milliseconds since the epoch. */
  readonly settledAt: number;
  /** Whether it keeps the store in IndexedDB, and not in files. */
  readonly inBlocks: boolean;
}

/**
 * Why a page server does not serve; see `UnservedKind` in crate `types`. With `no-files` the core's
 * worker keeps the store elsewhere.
 */
export type UnservedKind =
  | 'newer-format'
  | 'unavailable'
  | 'damaged'
  | 'full'
  | 'lost'
  | 'no-files';

/** Why a page server cannot serve or go on. */
export interface Unserved {
  readonly type: 'failed';
  readonly kind: UnservedKind;
  readonly reason: string;
}

/** Hands over large messages without copying them; small ones are copied faster. */
export function transferOf(bytes: Bytes): Bytes['buffer'][] {
  return bytes.length > 65536 ? [bytes.buffer] : [];
}
