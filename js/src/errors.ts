/** What can go wrong, one class a kind. The order is that of `ErrorCode` in crate `types`. */

import type { Reader } from './codec.js';

/**
 * Whether a failed call left something behind: `none` if nothing was recorded or deleted. With
 * `unknown` a mutation may be visible, and may yet become durable and confirmed, so that it must
 * not be issued again, or it was lost with data that were cleared; and a deletion may have been
 * done.
 */
export type Outcome = 'none' | 'unknown';

/** What an error knows beside its message. */
export interface ErrorDetails {
  /** See {@link Outcome}; `none` where it is absent. */
  readonly outcome?: Outcome;
  /** The mutation that was rejected. */
  readonly mutation?: string;
  /** Why it was rejected. */
  readonly reason?: string;
}

/** Every error of this package. `code` is stable and tells the classes apart. */
export abstract class TidelogError extends Error {
  /** The kind of error, the same in every release. */
  abstract get code(): string;
  /** Whether the call left something behind. */
  readonly outcome: Outcome;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message);
    this.outcome = details.outcome ?? 'none';
  }

  /** The name of the class, also where a bundler has shortened it. */
  override get name(): string {
    return `${this.code.replace(/(?:^|-)./g, (it) => it.slice(-1).toUpperCase())}Error`;
  }
}

/** An argument of a mutation is missing, unknown or of another type. Nothing was changed. */
export class MutationArgumentError extends TidelogError {
  override get code(): 'mutation-argument' {
    return 'mutation-argument';
  }
}

/** The doctype has no mutation of that name. */
export class UnknownMutationError extends TidelogError {
  override get code(): 'unknown-mutation' {
    return 'unknown-mutation';
  }
}

/** A mutation was rejected, here or by the server: its effect is gone. */
export class RejectedError extends TidelogError {
  /** The mutation's name. */
  readonly mutation: string;
  /** What `reject(reason)` said, or which constraint failed. */
  readonly reason: string;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details);
    this.mutation = details.mutation ?? '';
    this.reason = details.reason ?? message;
  }

  override get code(): 'rejected' {
    return 'rejected';
  }
}

/** A query wanted to write. Writing is what mutations are for. */
export class ReadOnlyError extends TidelogError {
  override get code(): 'read-only' {
    return 'read-only';
  }
}

/** SQLite refused a query: look at its message, the SQL and the parameters. */
export class QueryError extends TidelogError {
  override get code(): 'query' {
    return 'query';
  }
}

/** A statement took more steps, pages or bytes than it may, or too much waits for the server. */
export class BudgetExceededError extends TidelogError {
  override get code(): 'budget-exceeded' {
    return 'budget-exceeded';
  }
}

/** A transaction read more pages than can be held at once: read less in one statement. */
export class ReadSetTooLargeError extends TidelogError {
  override get code(): 'read-set-too-large' {
    return 'read-set-too-large';
  }
}

/**
 * The doctype cannot work: SQL that does not prepare, or whose result two runs could differ in, or
 * a schema that takes more than 8 MiB of each connection.
 */
export class DoctypeError extends TidelogError {
  override get code(): 'doctype' {
    return 'doctype';
  }
}

/** Another doctype of that name is in use, and neither succeeds the other. */
export class DoctypeMismatchError extends TidelogError {
  override get code(): 'doctype-mismatch' {
    return 'doctype-mismatch';
  }
}

/** The server has a document of that name already; the local one was left as it is. */
export class DocumentExistsError extends TidelogError {
  override get code(): 'document-exists' {
    return 'document-exists';
  }
}

/** The server has another document of that name now. */
export class DocumentReplacedError extends TidelogError {
  override get code(): 'document-replaced' {
    return 'document-replaced';
  }
}

/** The server no longer has the document; the local copy is kept. */
export class DocumentMissingError extends TidelogError {
  override get code(): 'document-missing' {
    return 'document-missing';
  }
}

/** The server did not answer in time. Nothing was changed. */
export class ServerUnreachableError extends TidelogError {
  override get code(): 'server-unreachable' {
    return 'server-unreachable';
  }
}

/** The server speaks another version of the protocol, or broke it. */
export class ProtocolError extends TidelogError {
  override get code(): 'protocol' {
    return 'protocol';
  }
}

/** The server refused access: look at the token and the rights of its user. */
export class AccessError extends TidelogError {
  override get code(): 'access' {
    return 'access';
  }
}

/** Mutations are still without a verdict: sync first, or use force. */
export class PendingError extends TidelogError {
  override get code(): 'pending' {
    return 'pending';
  }
}

/** Not on disk after the time a call may take. It may still become so: do not issue it again. */
export class NotDurableYetError extends TidelogError {
  override get code(): 'not-durable-yet' {
    return 'not-durable-yet';
  }
}

/** The device has no more room. */
export class StorageFullError extends TidelogError {
  override get code(): 'storage-full' {
    return 'storage-full';
  }
}

/** The device failed, its data were cleared, or this window has no storage. */
export class StorageError extends TidelogError {
  override get code(): 'storage' {
    return 'storage';
  }
}

/** The document was closed. */
export class DocumentClosedError extends TidelogError {
  override get code(): 'document-closed' {
    return 'document-closed';
  }
}

/** The stored data are of a newer release: load the newer app. They were left untouched. */
export class NewerFormatError extends TidelogError {
  override get code(): 'newer-format' {
    return 'newer-format';
  }
}

/** The document's id or an option cannot be used. */
export class InvalidOptionError extends TidelogError {
  override get code(): 'invalid-option' {
    return 'invalid-option';
  }
}

/** The engine stopped or could not be started. */
export class EngineError extends TidelogError {
  override get code(): 'engine' {
    return 'engine';
  }
}

/** The answer is here, and could not be made into what the caller wants of it. */
export function noRoomFor(error: unknown): TidelogError {
  if (error instanceof TidelogError) return error;
  return new EngineError(`this page cannot take the answer (${error}): ask for less at once`);
}

/** The question could not be made into what travels. */
export function noRoomToSay(error: unknown): TidelogError {
  return new EngineError(`this page has no room to ask this (${error}): ask for less at once`);
}

/** A class of error, as the core names it by its place. */
type ErrorClass = new (message: string, details?: ErrorDetails) => TidelogError;

/** The classes in the order of `ErrorCode` in crate `types`. */
export const ERROR_CLASSES: readonly ErrorClass[] = [
  MutationArgumentError,
  UnknownMutationError,
  RejectedError,
  ReadOnlyError,
  QueryError,
  BudgetExceededError,
  ReadSetTooLargeError,
  DoctypeError,
  DoctypeMismatchError,
  DocumentExistsError,
  DocumentReplacedError,
  DocumentMissingError,
  ServerUnreachableError,
  ProtocolError,
  AccessError,
  PendingError,
  NotDurableYetError,
  StorageFullError,
  StorageError,
  DocumentClosedError,
  NewerFormatError,
  InvalidOptionError,
  EngineError,
];

/** Reads a `CallFailure`. */
export function readFailure(r: Reader): TidelogError {
  const Class = ERROR_CLASSES[r.u32()] ?? EngineError;
  const outcome = r.u32() ? 'unknown' : 'none';
  const message = r.text();
  const text = (): string => r.text();
  const mutation = r.option(text) ?? '';
  const reason = r.option(text) ?? message;
  return new Class(message, { outcome, mutation, reason });
}
