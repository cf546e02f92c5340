/** Steps of a run: tried until they come to something, or have failed. */

import { isA, reasonOf } from './attempts.js';
import type { TabHost } from './tab-host.js';

/** Limits of crate `types`. */
const RECORD_SIZE_MAX = 256 * 1024;
const REASON_SIZE_MAX = 4_096;
const COMMAND_BACKOFF_MS = 1_000;
const COMMAND_BACKOFF_MS_MAX = 300_000;

/** How deep what is recorded may be: what SQLite takes for JSON. */
const DEPTH_MAX = 1_000;

/** What cannot be recorded, however often it is tried. */
export class UnkeepableError extends TypeError {}

/** How something is tried. */
export interface Trying {
  /** One try: resolves to what is to be recorded. */
  readonly once: (signal: AbortSignal) => unknown;
  readonly retries: number;
  /** Milliseconds; 0 for as long as it likes. */
  readonly timeout: number;
  /** Aborted once nobody wants to know any more. */
  readonly signal: AbortSignal;
  /** Calls that then. @returns calls it off. */
  whenOver(leave: () => void): () => void;
  readonly host: TabHost;
  /** Tells the app what was thrown. */
  tell(error: unknown): void;
}

/** What came of it: JSON, or why nothing did. Undefined where nobody wants to know. */
export type Tried = { readonly result: string } | { readonly reason: string } | undefined;

/** Tries until something comes of it, or the last retry has failed. */
export async function tryOften(trying: Trying): Promise<Tried> {
  const { signal, retries, tell } = trying;
  for (let failures = 0; ; failures += 1) {
    try {
      const result = jsonOfResult(await tryOnce(trying));
      return signal.aborted ? undefined : { result };
    } catch (error) {
      if (signal.aborted) return undefined;
      tell(error);
      if (failures >= retries || isA(error, UnkeepableError)) {
        return { reason: shortened(reasonOf(error)) };
      }
    }
    await pause(trying, Math.min(COMMAND_BACKOFF_MS * 2 ** failures, COMMAND_BACKOFF_MS_MAX));
    if (signal.aborted) return undefined;
  }
}

/** Resolves after that time, or once nobody waits any more. */
function pause({ host, whenOver }: Trying, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      callOff();
      stay();
      resolve();
    };
    const callOff = host.wakeIn(ms, end);
    const stay = whenOver(end);
  });
}

function tryOnce({ once, timeout, signal, host, whenOver }: Trying): Promise<unknown> {
  const own = new AbortController();
  return new Promise((resolve, reject) => {
    const end = (): void => {
      callOff();
      stay();
    };
    const giveUp = (reason: unknown): void => {
      end();
      own.abort(reason);
      reject(reason);
    };
    const late = (): void => giveUp(new Error('it has taken too long'));
    const callOff = timeout > 0 ? host.wakeIn(timeout, late) : () => {};
    const stay = whenOver(() => giveUp(signal.reason));
    // What it throws at once is a rejection as well.
    const tried = new Promise((started) => started(once(own.signal)));
    tried.finally(end).then(resolve, reject);
  });
}

/** What is recorded of a value. */
export function jsonOfResult(value: unknown): string {
  let json: string | undefined;
  try {
    json = JSON.stringify(value);
  } catch (error) {
    throw new UnkeepableError(`it comes to what JSON does not take: ${reasonOf(error)}`);
  }
  // As undefined and functions are.
  json ??= 'null';
  if (sizeOf(json) > RECORD_SIZE_MAX) {
    throw new UnkeepableError(`it comes to more than ${RECORD_SIZE_MAX} bytes of JSON: keep less`);
  }
  if (depthOf(json) > DEPTH_MAX) {
    throw new UnkeepableError(`it comes to JSON that is deeper than ${DEPTH_MAX}`);
  }
  return json;
}

/** How deep the arrays and objects of JSON are. */
function depthOf(json: string): number {
  let [depth, deepest] = [0, 0];
  for (const [sign] of json.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}]/g)) {
    if (sign === '[' || sign === '{') depth += 1;
    else if (sign === ']' || sign === '}') depth -= 1;
    deepest = Math.max(deepest, depth);
  }
  return deepest;
}

/** Bytes of a text in UTF-8. */
export const sizeOf = (text: string): number => new TextEncoder().encode(text).length;

/** As it is recorded: each attempt is told the same. */
export function shortened(reason: string): string {
  if (sizeOf(reason) <= REASON_SIZE_MAX) return reason;
  // At most three bytes each, and no half of a character at the end.
  const beginning = reason.slice(0, REASON_SIZE_MAX / 4).replace(/[\ud800-\udbff]$/, '');
  return `${beginning}…`;
}
