/** Made by `cargo xtask wasm` of what crate `browser` exports. */

/** Who hands over what the page server answers. */
export interface ReplyHost {
  /** The store is open. */
  opened(): void;
  /** It cannot be opened, or cannot go on. `kind` is a place in `UNSERVED_KINDS`. */
  failed(kind: number, reason: string): void;
  /** A flush has ended later than it was asked for: `proceed` has something to do. */
  flushed(): void;
  reply(owner: number, replies: Uint8Array<ArrayBuffer>): void;
  /** Tells a tab of that owner a list of messages. */
  tell(owner: number, tab: number, messages: Uint8Array<ArrayBuffer>): void;
}

/**
 * Lets go of the files.
 */
export function close(): void;

/**
 * The data of this site were cleared: from now on what is to be appended fails.
 */
export function lose(): void;

/**
 * Opens the store in this database. The host is told whether that went well.
 */
export function openBlocks(database: IDBDatabase, host: ReplyHost): void;

/**
 * Opens the store in the files behind these handles. The host is told whether that went well.
 *
 * The spare file is there and not open: nothing is ever written to it, and a tab that takes the
 * store over waits for every file that one worker closes and another one opens.
 */
export function openFiles(
  log_a: FileSystemSyncAccessHandle,
  log_b: FileSystemSyncAccessHandle,
  pages: FileSystemSyncAccessHandle,
  host: ReplyHost,
): void;

/**
 * Goes on with what is left. Gives a [`Left`].
 */
export function proceed(): number;

/**
 * Nobody has asked for anything for a while. Gives a [`Left`].
 */
export function rest(): number;

/**
 * Serves a list of requests, flushing once for all of them. Gives a [`Left`].
 */
export function serve(owner: number, requests: Uint8Array | number[]): number;

/**
 * Opens a store in memory and is served by it, as the first core is by the store in the files.
 *
 * A browser compiles a function of a WebAssembly module when it is first called, and optimizes it
 * when it was called often. A tab that takes the page server over waits for none of that. The host
 * is told what concerns nobody.
 */
export function warmUpStore(host: ReplyHost): void;

export function initSync(options: { module: WebAssembly.Module }): unknown;

/** The build that this is of, as `xtask/build.rs` added it. */
export const BUILD: string;
