/** What both workers need. */

/** Why a page server does not serve: these count the variants of `PageServerFailure`. */
export const NEWER_FORMAT = 0;
export const UNAVAILABLE = 1;
export const FULL = 3;
export const LOST = 4;
/** The browser gives this window no files: the core's worker keeps the store elsewhere. */
export const NO_FILES = 5;

/**
 * Chromium never syncs the names of files: a power cut that comes sooner than this after they were
 * made can lose them, flushed bytes and all.
 */
const SETTLING_MS = 45_000;

/** Until when a power cut could lose what was made at `madeAt`; both milliseconds. */
export function settledAt(madeAt: number): number {
  return 'userAgentData' in navigator ? madeAt + SETTLING_MS : 0;
}

/** Hands over large messages without copying them; small ones are copied faster. */
export function transferOf(bytes: Uint8Array<ArrayBuffer>): Transferable[] {
  return bytes.length > 65536 ? [bytes.buffer] : [];
}

/** Resolves when the lock is held, which it then is for as long as this worker lives. */
export function hold(name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    navigator.locks
      .request(name, () => {
        resolve();
        return new Promise<never>(() => {});
      })
      .catch(reject);
  });
}

/** Loads WebAssembly, compiling while it arrives wherever the server names its type. */
export async function compile(url: string | URL): Promise<WebAssembly.Module> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}: ${url}`);
  return response.headers.get('content-type') === 'application/wasm'
    ? WebAssembly.compileStreaming(response)
    : WebAssembly.compile(await response.arrayBuffer());
}
