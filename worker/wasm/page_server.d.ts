/** What crate `browser` exports with its feature `page-server`; made by wasm-bindgen. */

/** Who hands over what the page server answers. */
export interface ReplyHost {
  /** The store is open. */
  opened(): void;
  /** It cannot be opened. `kind` is a place in `UNSERVED_KINDS`. */
  failed(kind: number, reason: string): void;
  /** A flush has ended later than it was asked for: `proceed` has something to do. */
  flushed(): void;
  reply(owner: number, replies: Uint8Array<ArrayBuffer>): void;
  /** Tells a tab of that owner a list of messages. */
  tell(owner: number, tab: number, messages: Uint8Array<ArrayBuffer>): void;
}

export function initSync(options: { module: WebAssembly.Module }): unknown;

/** Opens the store in these files, and tells the host whether that went well. */
export function openFiles(
  logA: FileSystemSyncAccessHandle,
  logB: FileSystemSyncAccessHandle,
  pages: FileSystemSyncAccessHandle,
  spare: FileSystemSyncAccessHandle,
  host: ReplyHost,
): void;

/** Opens the store in this database, and tells the host whether that went well. */
export function openBlocks(database: IDBDatabase, host: ReplyHost): void;

/** Serves a list of requests, flushing once for all of them. Says what is left. */
export function serve(owner: number, requests: Uint8Array): number;

/** Goes on with what is left. */
export function proceed(): number;

/** Nobody has asked for anything for a while. Says what is left. */
export function rest(): number;

/** The data of this site were cleared: from now on what is to be appended fails. */
export function lose(): void;

/** Lets go of the files. */
export function close(): void;
