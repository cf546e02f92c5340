/** What both workers need. */

import type { UnservedKind } from '../../js/dist/ports.js';

/** Tabs, cores and page servers of two builds do not talk. The build names itself here. */
export const BUILD = '0.1.0+00000000';

/** All kinds, as both modules number them: in the order of `UnservedKind` in crate `types`. */
export const UNSERVED_KINDS: readonly UnservedKind[] = [
  'newer-format',
  'unavailable',
  'damaged',
  'full',
  'lost',
  'no-files',
];

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

/** Resolves when the lock is held, to what lets go of it; otherwise the worker's end does. */
export function hold(name: string): Promise<() => void> {
  return new Promise((resolve, reject) => {
    const held = () => new Promise<void>(resolve);
    navigator.locks.request(name, held).catch(reject);
  });
}

/**
 * How long WebAssembly may take to arrive: a megabyte, over a slow line. A browser would wait for
 * ever for a line that is dead, and all tabs for whoever has the place of the core.
 */
const ARRIVAL_MS = 120_000;

/** The custom section in which a module names its build, as `xtask/build.rs` wrote it. */
const BUILD_SECTION = 'tidelog-build';

/** Why a worker cannot begin: after a deployment some of its files came from a cache. */
const TWO_BUILDS = 'these files are of two releases of the app: load this page anew';

/**
 * Loads WebAssembly, compiling while it arrives where the server names its type.
 *
 * It has to be of the build of this script, as have the bindings by which that calls it: they say
 * of which they are. Where another module comes, a cache may have kept it, and the server is asked
 * whether it has changed; whoever tries again after that pauses. Bindings are loaded with the
 * script, and so only by another worker, which finds them in the cache: there they are made new.
 */
export async function compile(url: string | URL, bindings: string): Promise<WebAssembly.Module> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error(`${url} does not arrive`)), ARRIVAL_MS);
  try {
    if (!isOurs(bindings)) {
      await renewBindings(String(url), late.signal);
      throw new Error(`${TWO_BUILDS} (not all scripts are of ${BUILD})`);
    }
    for (const cache of ['default', 'no-cache'] as const) {
      const module = await load(url, { cache, signal: late.signal });
      const names = WebAssembly.Module.customSections(module, BUILD_SECTION);
      if (names.some((name) => isOurs(`+${new TextDecoder().decode(name)}`))) return module;
    }
    throw new Error(`${TWO_BUILDS} (${url} is not of ${BUILD})`);
  } finally {
    clearTimeout(timer);
  }
}

async function load(url: string | URL, how: RequestInit): Promise<WebAssembly.Module> {
  const response = await fetch(url, how);
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}: ${url}`);
  return response.headers.get('content-type') === 'application/wasm'
    ? WebAssembly.compileStreaming(response)
    : WebAssembly.compile(await response.arrayBuffer());
}

/** Asks the server for the bindings beside a module, where they are a file of their own. */
async function renewBindings(module: string, signal: AbortSignal): Promise<void> {
  const bindings = module.replace(/_bg\.wasm$/, '.js');
  if (bindings === module) return;
  try {
    const response = await fetch(bindings, { cache: 'no-cache', signal });
    await response.arrayBuffer();
  } catch {
    // Whoever begins anew asks again.
  }
}

/** An older build may have named none. */
function isOurs(build: string | undefined): boolean {
  return build !== undefined && BUILD.endsWith(build);
}
