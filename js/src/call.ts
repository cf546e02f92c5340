/** What a tab knows of a call that has not had its last answer, and what its caller is told. */

import { NotDurableYetError, type TidelogError } from './errors.js';
import type { EntryId, Memo, ToCore } from './messages.js';
import type { DocumentName } from './ports.js';
import type { CallKind } from './step.js';
import { NEVER, pause } from './time.js';

/** One call. */
export interface Call {
  readonly kind: CallKind;
  readonly message: ToCore[CallKind];
  /** When it is given up; infinite once only the server can settle it. */
  until: number;
  /** Whether it was spared once, since the tab was suspended. */
  spared?: boolean;
  /** Cores that were handed it. */
  cores: number;
  /** Whether the present core was. */
  sent?: boolean;
  /** When a core was handed it last. */
  sentAt: number;
  /** Cores that died soon after, one after another and since the last answer. */
  deaths: number;
  /** As what a mutation is durable. */
  durable?: EntryId;
  /** How its document stood when the first core was handed it. */
  memo?: Memo | undefined;
  /** When a live query that failed for a passing reason is tried again, and how often it was. */
  againAt: number;
  tries: number;
}

/** A call that nobody was handed yet, and that is given up at `until`. */
export function newCall(kind: CallKind, message: ToCore[CallKind], until: number): Call {
  return {
    kind,
    message,
    until,
    cores: 0,
    sentAt: 0,
    deaths: 0,
    againAt: NEVER,
    tries: 0,
  };
}

/** What a deletion is of: the copy of a document, or all of a user's. */
export type Doomed = Pick<ToCore['destroy'], 'document' | 'user'>;

/** Whether a copy is among those that a deletion is of. */
export const isAmong = (doomed: Partial<Doomed>, it: DocumentName): boolean =>
  doomed.user === it.user && (doomed.document ?? it.document) === it.document;

/** Whether two ids are the same. */
export const isSame = (a: Uint8Array, b: Uint8Array): boolean =>
  a.every((byte, at) => byte === b[at]);

/** Whether it is a mutation that is not on the disk, and that nobody was told is late. */
export const isOnItsWay = ({ kind, until }: Call): boolean => kind === 'mutate' && until < NEVER;

/** Whether it is answered again and again, until it is given up. */
export const isLasting = ({ kind }: Call): boolean => /watch|handle/.test(kind);

/** Whether its caller waits on where that fails for a passing reason. */
export const waitsOn = ({ kind }: Call): boolean => /events|outcome|complete|records/.test(kind);

/** Whether what failed so can be had later, by asking again. */
export const isPassing = ({ code }: TidelogError): boolean =>
  /^(storage|engine|document-closed)/.test(code);

/** A live query has failed: it is tried again if that can help. */
export function tryLater(call: Call, error: TidelogError, now: number): void {
  if (!isPassing(error)) return;
  call.sent = false;
  call.againAt = now + pause(call.tries++);
}

/**
 * The last that the caller is told. Whoever asked must not ask anew while something may still come
 * of it: `none` is said where no core was handed the call, or where one core has had it and says
 * so. A second one knows what became of a mutation, and nothing of a deletion.
 */
export function asTold(
  { kind, cores }: Call,
  error: TidelogError,
  isAnswer: boolean,
): TidelogError {
  const knows = cores < 2 || (kind === 'mutate' && !isPassing(error));
  const isKnown = isAnswer && knows;
  const mayBeDone = (kind === 'mutate' || kind === 'destroy') && cores > 0 && !isKnown;
  if (!mayBeDone) return error;
  const Class = error.constructor as new (message: string, details: object) => TidelogError;
  return new Class(error.message, { ...error, outcome: 'unknown' });
}

/** What the caller of a mutation is told that takes its time. */
export function late({ message }: Call): TidelogError {
  const { name } = message as ToCore['mutate'];
  return new NotDurableYetError(`${name} is not on disk after 10 seconds; it may still become so`, {
    outcome: 'unknown',
  });
}
