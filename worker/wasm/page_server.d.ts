/** What crate `browser` exports with its feature `page-server`; made by wasm-bindgen. */

/** Who hands over what the page server answers. */
export interface ReplyHost {
  reply(owner: number, replies: Uint8Array<ArrayBuffer>): void;
  /** Tells a tab of that owner a list of messages. */
  tell(owner: number, tab: number, messages: Uint8Array<ArrayBuffer>): void;
  failed(isNewerFormat: boolean, reason: string): void;
}

export function initSync(options: { module: WebAssembly.Module }): unknown;

/** Opens the store, or calls `failed`. Says which. */
export function open(
  logA: FileSystemSyncAccessHandle,
  logB: FileSystemSyncAccessHandle,
  pages: FileSystemSyncAccessHandle,
  spare: FileSystemSyncAccessHandle,
  host: ReplyHost,
): boolean;

/** Serves a list of requests, flushing once for all of them. Says what is left. */
export function serve(owner: number, requests: Uint8Array): number;

/** Goes on with what is left. */
export function proceed(): number;

/** Lets go of the files. */
export function close(): void;
