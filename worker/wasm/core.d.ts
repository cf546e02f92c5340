/** What crate `browser` exports with its feature `core`; made by wasm-bindgen into js/dist/wasm. */

/** What the core wants done. The shell does it and decides nothing. */
export interface Host {
  toTab(tab: number, messages: Uint8Array<ArrayBuffer>): void;
  toPageServer(server: number, requests: Uint8Array<ArrayBuffer>): void;
  openSocket(socket: number, url: string): void;
  toServer(socket: number, message: Uint8Array<ArrayBuffer>): void;
  closeSocket(socket: number): void;
  wakeAt(ms: number): void;
}

export function initSync(options: { module: WebAssembly.Module }): unknown;

/** Starts the core; each function below is one step of it, and calls the host. */
export function start(seed: Uint8Array, host: Host): void;
export function warmUp(): void;
export function tabMessages(nowMs: number, tab: number, messages: Uint8Array): void;
export function tabClosed(nowMs: number, tab: number): void;
export function pageServerLent(
  nowMs: number,
  server: number,
  settledAtMs: number,
  inBlocks: boolean,
): void;
export function tabReached(nowMs: number, tab: number, server: number): void;
export function pageServerReplies(nowMs: number, server: number, replies: Uint8Array): void;
export function pageServerGone(nowMs: number, server: number): void;
export function pageServerFailed(
  nowMs: number,
  server: number,
  kind: number,
  reason: Uint8Array,
): void;
export function socketOpened(nowMs: number, socket: number): void;
export function socketMessage(nowMs: number, socket: number, message: Uint8Array): void;
export function socketClosed(nowMs: number, socket: number): void;
export function wake(nowMs: number): void;

/** Whether the data of this site were cleared under this core, which can keep nothing more. */
export function isLost(): boolean;
