/**
 * A SQLite database in the browser: shared by every tab, offline, synced.
 *
 * Start with {@link doctype}, {@link mutation} and {@link open}.
 */

export type { Value } from './codec.js';
export { Database, type DatabaseEvents, type Mutate, type Rejection } from './database.js';
export { destroyAll } from './destroy-all.js';
export type { DevOptions } from './dev.js';
export {
  type ArgumentKind,
  type Arguments,
  type ArgumentType,
  type ArgumentValues,
  type Doctype,
  doctype,
  type IssuedArguments,
  type Mutation,
  type Mutations,
  mutation,
  type ParamTypes,
} from './doctype.js';
export {
  AccessError,
  ArchivedError,
  BudgetExceededError,
  CommandFailedError,
  type CommandName,
  DoctypeError,
  DoctypeMismatchError,
  DocumentClosedError,
  DocumentExistsError,
  DocumentInUseError,
  DocumentMissingError,
  DocumentReplacedError,
  EngineError,
  type ErrorDetails,
  InvalidOptionError,
  KeyReusedError,
  MutationArgumentError,
  NewerFormatError,
  NotDurableYetError,
  type Outcome,
  PendingError,
  ProtocolError,
  QueryError,
  ReadOnlyError,
  ReadSetTooLargeError,
  RejectedError,
  ServerUnreachableError,
  StepFailedError,
  StorageError,
  StorageFullError,
  TidelogError,
  UnknownEventError,
  UnknownMutationError,
  WorkflowCancelledError,
  WorkflowFailedError,
  WorkflowMismatchError,
} from './errors.js';
export { LiveQuery, type RowsListener } from './live-query.js';
export type { Param, Params } from './messages.js';
export {
  type DestroyAllOptions,
  type DestroyOptions,
  destroy,
  type OpenOptions,
  open,
} from './open.js';
export type { WorkerUrls } from './ports.js';
export { type Other, Presence } from './presence.js';
// As a star: what apps add to an interface is added to none that is exported by its name.
export type * from './queries.js';
export type { Confirmation, Durability, Receipt } from './receipt.js';
export type { Row } from './rows.js';
export { type Abortable, type Asking, type Query, sql } from './sql.js';
export type { Status } from './status.js';
