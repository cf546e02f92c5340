/** What a tab knows of a document that it has open, and what it tells the next core of it. */

import type { TidelogError } from './errors.js';
import type { EntryId, Memo, ToCore } from './messages.js';
import type { Status } from './status.js';
import { NEVER } from './time.js';

/** One document. */
export interface Document {
  readonly open: Omit<ToCore['open'], 'call'>;
  /**
   * Whether the present core has it open. Calls are held back until it has. One that is `waiting`
   * is to be opened again, and has not had its turn.
   */
  state: 'open' | 'waiting' | 'opening' | 'shut';
  /** The call by which the present core was asked to open it again. */
  call: number;
  /** When it was asked that. */
  askedAt: number;
  /** Until when nothing else is asked of that core. */
  aloneUntil: number;
  /** Whether that core has begun to hand it over to its server as it opens it. */
  isHandingOver?: boolean;
  /** Cores that died soon after they were asked that, one after another. */
  deaths: number;
  /** When the last of them died. */
  diedAt: number;
  /** How many of them named it with their last words: that it was opened clears it only of the
   * others. */
  named: number;
  /** Whether it was opened well since the first of those. */
  opensWell?: boolean;
  /** Whether it is given up, which the next core is not to open. */
  isDeadly?: boolean;
  /** Why it could not. */
  error?: TidelogError | undefined;
  againAt: number;
  tries: number;
  /** What the next core is told. */
  memo: Memo;
  /** Whether this device decides, so that what is on its disk is confirmed as well. */
  isLocal: boolean;
  listens?: boolean;
  /** How it is present, once the app has asked who is. */
  presence?: ToCore['presence'];
  /** Its close, once the present core has answered it, and the mutations that it waits for. */
  closing?: { readonly call: number; readonly awaits: Set<number> } | undefined;
  /** The youngest mutation that was told to be durable: its call, and as what. */
  durable?: { readonly call: number; readonly entry: EntryId } | undefined;
}

/** What a core says of how a document stands. */
export interface Standing {
  readonly status: Status;
  readonly memo: Memo;
}

/** A document that a core has just opened, which was asked for at `askedAt`. */
export function newDocument(
  open: Document['open'],
  askedAt: number,
  { status, memo }: Standing,
): Document {
  return {
    open,
    state: 'open',
    call: 0,
    askedAt,
    aloneUntil: 0,
    deaths: 0,
    diedAt: 0,
    named: 0,
    againAt: NEVER,
    tries: 0,
    memo,
    isLocal: status.connection === 'local',
  };
}

/** A core has told how the document stands: of the server holds what was said last in any tab. */
export function note(document: Document, { status, memo }: Standing): void {
  document.isLocal = status.connection === 'local';
  document.memo = { ...memo, word: Math.max(memo.word, document.memo.word) };
}

/**
 * What an app says of the server, as a number: when it is said, in half milliseconds since 1970;
 * even to go to the server, odd to stay away. So of what two tabs say, either not knowing of the
 * other, the later word is the higher one.
 */
export function wordOnServer(connected: boolean, now: number): number {
  return 2 * Math.max(0, Math.floor(now)) + (connected ? 0 : 1);
}

/** The app has said something about the document: the same as the core is to be told. */
export function remember(document: Document, kind: keyof ToCore, message: object): object {
  if (kind === 'listenRejections') document.listens = true;
  if (kind === 'presence') document.presence = message as ToCore['presence'];
  if (kind !== 'setConnected') return message;
  const { handle, word: said } = message as ToCore['setConnected'];
  // A clock that was set back takes no word back.
  const next = document.memo.word + 1;
  const word = Math.max(said, next % 2 === said % 2 ? next : next + 1);
  document.memo = { ...document.memo, word };
  return { handle, word };
}

/**
 * Whether the present core is told this of the document now. What is not is said when it is open
 * again, or need not be.
 */
export function isToldNow(document: Document | undefined, kind: keyof ToCore): boolean {
  return document?.state === 'open' || (document?.state === 'opening' && kind === 'setConnected');
}
