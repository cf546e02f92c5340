/** Listening to a server that says which documents have work: `GET /v1/due`. */

import { setTimeout as pause } from 'node:timers/promises';
import type { GetToken } from '../connection.js';
import { TidelogError } from '../errors.js';

/** The server says something every ten seconds: after so much silence it is asked anew. */
const SILENCE_MS_MAX = 25_000;

/** After which time it is asked again, and the longest. */
const BACKOFF_MS = 250;
const BACKOFF_MS_MAX = 10_000;

/** An answer that has lasted so long was a server's, though it had nothing to tell. */
const LASTED_MS = 15_000;

/** A document that has work, or that was told and has none any more. */
export interface DueLine {
  readonly document: string;
  /** The names of aggregates and workflows, of none once others have done it; null where it may be
   * any. */
  readonly due: readonly string[] | null;
}

/** Characters of an answer that are told where it is none. */
const SAID_LENGTH_MAX = 200;

/** Characters of a line, of which a server's has fewer: there is no document whose has more. */
const LINE_LENGTH_MAX = 1024 * 1024;

/** Why a server says nothing of what is due: it refuses, or another one answers for it. */
export class DueRefusedError extends TidelogError {
  override get code(): 'due-refused' {
    return 'due-refused';
  }

  /** The status of its answer. */
  readonly status: number;

  constructor(status: number, said: string) {
    const shortened = said.trim().slice(0, SAID_LENGTH_MAX);
    super(`the server does not say which documents have work: ${status} ${shortened}`);
    this.status = status;
  }
}

/**
 * What the server says, for as long as the signal lets it: where it is away it is asked again,
 * later each time, until it has told of a document, or was there for a while. `onError` is told of
 * each time that it refuses, or answers as no Tidelog server does, and the first that it is away.
 */
export async function* dueLines(
  server: string,
  documents: string,
  getToken: GetToken | undefined,
  signal: AbortSignal,
  onError: (error: unknown) => void,
): AsyncGenerator<DueLine> {
  const address = new URL(`${server.replace(/^ws/i, 'http')}/v1/due`);
  address.searchParams.set('documents', documents);
  let tries = 0;
  while (!signal.aborted) {
    const askedAt = performance.now();
    try {
      for await (const line of linesOf(address, getToken, signal)) {
        tries = 0;
        yield line;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (tries === 0 || error instanceof DueRefusedError) onError(error);
    }
    if (performance.now() - askedAt >= LASTED_MS) tries = 0;
    const ms = Math.min(BACKOFF_MS * 2 ** tries, BACKOFF_MS_MAX);
    tries += 1;
    // Workers that were all let go at once come back one after another.
    await pause(ms * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {});
  }
}

/** The documents of one answer. */
async function* linesOf(
  address: URL,
  getToken: GetToken | undefined,
  signal: AbortSignal,
): AsyncGenerator<DueLine> {
  const end = new AbortController();
  const stop = (): void => end.abort(signal.reason);
  signal.addEventListener('abort', stop);
  const isSilent = (): void => end.abort(new Error('the server says nothing any more'));
  const timer = setTimeout(isSilent, SILENCE_MS_MAX);
  try {
    // The app may never say which token.
    const token = await Promise.race([getToken?.(), rejectionBy(end.signal)]);
    const headers: Record<string, string> = token ? { authorization: `Bearer ${token}` } : {};
    const answer = await fetch(address, { headers, signal: end.signal });
    if (!answer.ok || !answer.body)
      throw new DueRefusedError(answer.status, await beginningOf(answer));
    let rest = '';
    for await (const text of textsOf(answer)) {
      timer.refresh();
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      if (rest.length > LINE_LENGTH_MAX) throw new DueRefusedError(answer.status, rest);
      // Empty ones say that the server is there.
      for (const line of lines) if (line) yield dueOf(line, answer.status);
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
    // Whoever stops reading lets the connection go.
    end.abort();
  }
}

/** What an answer says, part by part. */
async function* textsOf({ body }: Response): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  for await (const bytes of (body ?? []) as unknown as AsyncIterable<Uint8Array>) {
    yield decoder.decode(bytes, { stream: true });
  }
}

/** How an answer begins: as much of it as is told, and some more. */
async function beginningOf(answer: Response): Promise<string> {
  let said = '';
  for await (const text of textsOf(answer)) {
    said += text;
    if (said.length > 4 * SAID_LENGTH_MAX) break;
  }
  return said;
}

/** What a line says. */
function dueOf(line: string, status: number): DueLine {
  try {
    const { document, due } = JSON.parse(line) as Record<keyof DueLine, unknown>;
    const isList = Array.isArray(due) && due.every((name) => typeof name === 'string');
    if (typeof document === 'string' && (due === null || isList)) return { document, due };
  } catch {
    // Whoever stands before the server may answer for it, in whichever way.
  }
  throw new DueRefusedError(status, line);
}

/** Rejects once it is aborted. */
function rejectionBy(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const leave = (): void => reject(signal.reason);
    if (signal.aborted) leave();
    else signal.addEventListener('abort', leave, { once: true });
  });
}
