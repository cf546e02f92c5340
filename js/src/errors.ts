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
  /** The command that has failed. */
  readonly command?: CommandName;
  /** The workflow of a run. */
  readonly workflow?: string;
  /** Which run. */
  readonly id?: string;
  /** The step of a run that has failed, or the request. */
  readonly step?: string;
}

/** Which command. */
export interface CommandName {
  /** The name of the aggregate that it was sent to. */
  readonly aggregate: string;
  /** Which of those. */
  readonly stream: string;
  /** The name of its type. */
  readonly name: string;
  /** By what its sender, and no other command of that type and stream, is known. */
  readonly key: string;
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

  /** What `JSON.stringify` says of it, as of the error in a status. */
  toJSON(): object {
    const { name, code, message } = this;
    return Object.assign({ name, code, message }, this);
  }
}

/**
 * An argument of a mutation is missing, unknown or of another type. Nothing was changed.
 *
 * What to do: give what the message names, as the doctype declares it; `null` where an optional
 * one is left out.
 *
 * Outcome: none.
 */
export class MutationArgumentError extends TidelogError {
  override get code(): 'mutation-argument' {
    return 'mutation-argument';
  }
}

/**
 * The doctype has no mutation of that name.
 *
 * What to do: correct the name, or add the mutation to the doctype.
 *
 * Outcome: none.
 */
export class UnknownMutationError extends TidelogError {
  override get code(): 'unknown-mutation' {
    return 'unknown-mutation';
  }
}

/**
 * A mutation was rejected, here or by the server: its effect is gone.
 *
 * What to do: tell the user what `reason` says, and let them try something else.
 *
 * Outcome: none; unknown where `reason` says that nobody can tell.
 */
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

  override get code(): 'rejected' | 'key-reused' {
    return 'rejected';
  }
}

/**
 * A query wanted to write. Writing is what mutations are for.
 *
 * What to do: write a mutation into the doctype, and call it on `db.mutate`.
 *
 * Outcome: none.
 */
export class ReadOnlyError extends TidelogError {
  override get code(): 'read-only' {
    return 'read-only';
  }
}

/**
 * SQLite refused a query.
 *
 * What to do: look at the message, the SQL and the parameters.
 *
 * Outcome: none.
 */
export class QueryError extends TidelogError {
  override get code(): 'query' {
    return 'query';
  }
}

/**
 * A statement took more steps, pages or bytes than it may, or too much waits for the server.
 *
 * What to do: do less at once: read by an index, or change fewer rows; or let what waits reach the
 * server.
 *
 * Outcome: none.
 */
export class BudgetExceededError extends TidelogError {
  override get code(): 'budget-exceeded' {
    return 'budget-exceeded';
  }
}

/**
 * A transaction read more pages than can be held at once.
 *
 * What to do: read less in one statement, or by an index.
 *
 * Outcome: none.
 */
export class ReadSetTooLargeError extends TidelogError {
  override get code(): 'read-set-too-large' {
    return 'read-set-too-large';
  }
}

/**
 * The doctype cannot work: SQL that does not prepare, or whose result two runs could differ in, or
 * a schema that takes more than 8 MiB of each connection.
 *
 * What to do: correct the migration or the mutation that the message names.
 *
 * Outcome: none.
 */
export class DoctypeError extends TidelogError {
  override get code(): 'doctype' {
    return 'doctype';
  }
}

/**
 * Another doctype of that name is in use, and neither succeeds the other: their migrations part
 * where the message says.
 *
 * What to do: append migrations, and change none that was released. While developing, begin anew
 * as the message says.
 *
 * Outcome: none.
 */
export class DoctypeMismatchError extends TidelogError {
  override get code(): 'doctype-mismatch' {
    return 'doctype-mismatch';
  }
}

/**
 * The server has a document of that name already; the local one was left as it is.
 *
 * What to do: open the local one without a server, under another name, or `destroy` it to have the
 * server's.
 *
 * Outcome: none.
 */
export class DocumentExistsError extends TidelogError {
  override get code(): 'document-exists' {
    return 'document-exists';
  }
}

/**
 * The server has another document of that name now.
 *
 * What to do: nothing: the copy begins anew from the server by itself, and mutations without a
 * verdict are issued to it anew. What the document before had confirmed is gone.
 *
 * Outcome: none.
 */
export class DocumentReplacedError extends TidelogError {
  override get code(): 'document-replaced' {
    return 'document-replaced';
  }
}

/**
 * The server no longer has the document; the local copy is kept.
 *
 * What to do: ask whoever runs the server; `export` what is here, or `destroy` it.
 *
 * Outcome: none.
 */
export class DocumentMissingError extends TidelogError {
  override get code(): 'document-missing' {
    return 'document-missing';
  }
}

/**
 * The server did not answer in time. Nothing was changed.
 *
 * What to do: try again once there is a network; a document that is open is tried by itself.
 *
 * Outcome: none.
 */
export class ServerUnreachableError extends TidelogError {
  override get code(): 'server-unreachable' {
    return 'server-unreachable';
  }
}

/**
 * The server speaks another version of the protocol, or broke it.
 *
 * What to do: update whichever is older, the app or the server.
 *
 * Outcome: none.
 */
export class ProtocolError extends TidelogError {
  override get code(): 'protocol' {
    return 'protocol';
  }
}

/**
 * The server refused access: to this user, or to pages of this origin; or this user may only read
 * the document, by `db.status.access`, and tried to change it, or may only `send` commands to it,
 * and tried to change it otherwise; or the copy is another user's than the token.
 *
 * What to do: look at the token and the rights of its user: log in anew. An app whose token was
 * refused is asked for another one after some seconds, then ever more rarely, up to five minutes:
 * call `db.connect()` once somebody has logged in. Each user of a device has copies of their own by
 * the option `user`. A server for development serves pages of its own machine: open the page at
 * `http://localhost`.
 *
 * Outcome: none.
 */
export class AccessError extends TidelogError {
  override get code(): 'access' {
    return 'access';
  }
}

/**
 * Mutations are still without a verdict.
 *
 * What to do: wait for `sync()` first, or use `force`, which loses them.
 *
 * Outcome: none.
 */
export class PendingError extends TidelogError {
  override get code(): 'pending' {
    return 'pending';
  }
}

/**
 * Not on disk after the time that a call may take. It may still become so.
 *
 * What to do: do not issue it again: `status.error` says what is wrong, and queries show whether
 * it is there.
 *
 * Outcome: unknown.
 */
export class NotDurableYetError extends TidelogError {
  override get code(): 'not-durable-yet' {
    return 'not-durable-yet';
  }
}

/**
 * The device has no more room.
 *
 * What to do: ask the user to make room; what waits is written by itself then.
 *
 * Outcome: none.
 */
export class StorageFullError extends TidelogError {
  override get code(): 'storage-full' {
    return 'storage-full';
  }
}

/**
 * The device failed, its data were cleared, or this window has no storage.
 *
 * What to do: what the message says: it goes away by itself, or with the page loaded anew, or with
 * `destroyAll()`.
 *
 * Outcome: none or unknown.
 */
export class StorageError extends TidelogError {
  override get code(): 'storage' {
    return 'storage';
  }
}

/**
 * The document was closed.
 *
 * What to do: open it again.
 *
 * Outcome: none; unknown where it was closed amid the call.
 */
export class DocumentClosedError extends TidelogError {
  override get code(): 'document-closed' {
    return 'document-closed';
  }
}

/**
 * The stored data are of a newer release. They were left untouched.
 *
 * What to do: load the newer app.
 *
 * Outcome: none.
 */
export class NewerFormatError extends TidelogError {
  override get code(): 'newer-format' {
    return 'newer-format';
  }
}

/**
 * The document's id or an option cannot be used.
 *
 * What to do: correct what the message names.
 *
 * Outcome: none.
 */
export class InvalidOptionError extends TidelogError {
  override get code(): 'invalid-option' {
    return 'invalid-option';
  }
}

/**
 * The engine stopped or could not be started.
 *
 * What to do: what the message says: a secure origin, a browser that has what is missing, the
 * workers' files at their address, or to load the page anew.
 *
 * Outcome: none or unknown.
 */
export class EngineError extends TidelogError {
  override get code(): 'engine' {
    return 'engine';
  }
}

/**
 * The document is open in a tab, or is being handed over to its server. It was not deleted.
 *
 * What to do: close it, in every tab, or `destroy` it `{ everywhere: true }`; where that was asked,
 * a tab did not answer: it may be asleep.
 *
 * Outcome: none.
 */
export class DocumentInUseError extends TidelogError {
  override get code(): 'document-in-use' {
    return 'document-in-use';
  }
}

/**
 * A command was sent by a key that stands for another one: the same command was sent to that stream
 * before, with other arguments. It is a `RejectedError` too.
 *
 * What to do: give each thing that is to be done a key of its own, which it keeps when it is sent
 * again; or none, and one is drawn.
 *
 * Outcome: none.
 */
export class KeyReusedError extends RejectedError {
  override get code(): 'key-reused' {
    return 'key-reused';
  }
}

/**
 * A command has failed: its handler said so, it broke a rule, or its last retry failed.
 *
 * What to do: tell the user what `reason` says; `command` says which it was.
 *
 * Outcome: none; unknown where `reason` says that it was forgotten.
 */
export class CommandFailedError extends TidelogError {
  /** Which command. */
  readonly command: CommandName;
  /** What its handler said, which rule was broken, or what its last attempt has thrown. */
  readonly reason: string;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details);
    this.command = details.command ?? { aggregate: '', stream: '', name: '', key: '' };
    this.reason = details.reason ?? message;
  }

  override get code(): 'command-failed' {
    return 'command-failed';
  }
}

/**
 * A handler came to an event of a type that its aggregate does not have: its command has failed for
 * good, as it would come to the same each time. Or a newer release has recorded an event that this
 * one does not know: the command is left to other handlers, and waits for one that knows the event.
 *
 * What to do: correct the type, of which the message names those that there are, or add it to the
 * stream; load the newer release.
 *
 * Outcome: none.
 */
export class UnknownEventError extends TidelogError {
  override get code(): 'unknown-event' {
    return 'unknown-event';
  }
}

/**
 * A run of a workflow has failed: its code said so by `fail()`, or let an error out, as that of a
 * step.
 *
 * What to do: tell the user what `reason` says; `workflow` and `id` say which run it was.
 *
 * Outcome: none; unknown where `reason` says that it was forgotten.
 */
export class WorkflowFailedError extends TidelogError {
  /** The workflow's name. */
  readonly workflow: string;
  /** Which run of it. */
  readonly id: string;
  /** What its code said, or what that let out. */
  readonly reason: string;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details);
    this.workflow = details.workflow ?? '';
    this.id = details.id ?? '';
    this.reason = details.reason ?? message;
  }

  override get code(): 'workflow-failed' | 'workflow-cancelled' {
    return 'workflow-failed';
  }
}

/**
 * A run of a workflow was cancelled, by `db.cancel`. Whoever waits for the run is told so, and so
 * is its code, once, where it would have gone on. It is a `WorkflowFailedError` too.
 *
 * What to do: in the code of a workflow, put right what was done so far, and throw it on; elsewhere
 * nothing.
 *
 * Outcome: none.
 */
export class WorkflowCancelledError extends WorkflowFailedError {
  override get code(): 'workflow-cancelled' {
    return 'workflow-cancelled';
  }
}

/**
 * The code of a workflow does something else by a name than what the run remembers by it. The run
 * waits until there is code that fits.
 *
 * What to do: give what is new a name of its own, or the workflow another version, and keep the
 * code of the one before for the runs that have begun by it.
 *
 * Outcome: none.
 */
export class WorkflowMismatchError extends TidelogError {
  /** The workflow's name. */
  readonly workflow: string;
  /** Which run of it. */
  readonly id: string;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details);
    this.workflow = details.workflow ?? '';
    this.id = details.id ?? '';
  }

  override get code(): 'workflow-mismatch' {
    return 'workflow-mismatch';
  }
}

/**
 * A step of a workflow has failed, or a request: its last retry did, or what it came to cannot be
 * recorded. Each time that the run goes on it is thrown there again.
 *
 * What to do: catch it in the code of the workflow and do something else, or let it out: then the
 * run has failed.
 *
 * Outcome: none.
 */
export class StepFailedError extends TidelogError {
  /** Its name. */
  readonly step: string;
  /** What the last try has thrown. */
  readonly reason: string;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details);
    this.step = details.step ?? '';
    this.reason = details.reason ?? message;
  }

  override get code(): 'step-failed' {
    return 'step-failed';
  }
}

/**
 * Events that are wanted have left the document for its archive, which is at the server, and they
 * are not to be had from there now. The message says why.
 *
 * What to do: ask again once the device is online, or ask for later ones, by `after`.
 *
 * Outcome: none.
 */
export class ArchivedError extends TidelogError {
  override get code(): 'archived' {
    return 'archived';
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
  DocumentInUseError,
  ArchivedError,
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
