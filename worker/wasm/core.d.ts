/** Made by `cargo xtask wasm` of what crate `browser` exports. */

/** What the core wants done. The shell does it and decides nothing. */
export interface Host {
  toTab(tab: number, messages: Uint8Array<ArrayBuffer>): void;
  toPageServer(server: number, requests: Uint8Array<ArrayBuffer>): void;
  openSocket(socket: number, url: string): void;
  toServer(socket: number, message: Uint8Array<ArrayBuffer>): void;
  closeSocket(socket: number): void;
  wakeAt(ms: number): void;
  culprit(document: string, user: string): void;
}

/**
 * What is wrong with a doctype, as a core finds before it opens a document of it; nothing if that
 * is right.
 *
 * `doctype` is encoded as in messages.
 */
export function checkDoctype(doctype: Uint8Array | number[]): string | undefined;

/**
 * Whether the data of this site were cleared under this core, which can keep nothing more.
 */
export function isLost(): boolean;

/**
 * Tells the host of which document the core died in a step, if that was at work on one.
 */
export function nameCulprit(host: Host): void;

/**
 * A page server cannot serve or go on; `kind` is the number of an [`UnservedKind`].
 */
export function pageServerFailed(
  now_ms: number,
  server: number,
  kind: number,
  reason: Uint8Array | number[],
): void;

/**
 * A page server is gone.
 */
export function pageServerGone(now_ms: number, server: number): void;

/**
 * A page server is at hand, whose files can be lost by a power cut until `settled_at_ms`.
 */
export function pageServerLent(
  now_ms: number,
  server: number,
  settled_at_ms: number,
  in_blocks: boolean,
): void;

/**
 * A page server sent a list of replies.
 */
export function pageServerReplies(
  now_ms: number,
  server: number,
  replies: Uint8Array | number[],
): void;

/**
 * A socket is closed, or could not be connected.
 */
export function socketClosed(now_ms: number, socket: number): void;

/**
 * A socket brought a message.
 */
export function socketMessage(now_ms: number, socket: number, message: Uint8Array | number[]): void;

/**
 * A socket is connected.
 */
export function socketOpened(now_ms: number, socket: number): void;

/**
 * Starts the core of this worker.
 *
 * # Panics
 *
 * Unless `seed` has 32 bytes.
 */
export function start(seed: Uint8Array | number[], host: Host): void;

/**
 * A tab is gone.
 */
export function tabClosed(now_ms: number, tab: number): void;

/**
 * A tab sent a list of messages. Says whether it can be read.
 */
export function tabMessages(now_ms: number, tab: number, messages: Uint8Array | number[]): boolean;

/**
 * A tab has a port to the page server.
 */
export function tabReached(now_ms: number, tab: number, server: number): void;

/**
 * The time has come that [`Effect::WakeAt`] asked for.
 */
export function wake(now_ms: number): void;

/**
 * Uses a wait for the disk: see [`tidelog_client::warm_up`].
 */
export function warmUp(): void;

export function initSync(options: { module: WebAssembly.Module }): unknown;

/** The build that this is of, as `xtask/build.rs` added it. */
export const BUILD: string;
