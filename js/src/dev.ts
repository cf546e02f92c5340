/** Beginning a document anew while an app is developed. */

import type { Database } from './database.js';
import type { Mutations } from './doctype.js';
import { DoctypeMismatchError, DocumentClosedError, type TidelogError } from './errors.js';

/** What is done while an app is developed: `dev` of {@link open}. */
export interface DevOptions {
  /**
   * What to do where a migration was edited that the document has seen, here or on its server:
   * `reset` begins it anew, **without what was in it**, on this device, and on the server, which
   * has to be there, and started with `--dev`; `error` fails with `DoctypeMismatchError`, as
   * where nothing is said. In what Vite or webpack builds for users it is as `error` in any case.
   */
  readonly onMigrationEdited: 'reset' | 'error';
}

/** Milliseconds in which a server says whether it takes the app's doctype; it may be away. */
const TAKES_MS = 3_000;
/** Milliseconds in which a server answers. */
const ANSWER_MS = 5_000;
/** Milliseconds in which a server that has just come is tried again and reached. */
const NEXT_TRY_MS = 5_000;

/** What {@link openAnew} does, and does again. */
interface Steps<Defined extends Mutations> {
  readonly document: string;
  /** Absent for a local document. */
  readonly server: string | URL | undefined;
  open(): Promise<Database<Defined>>;
  /** Closes the document in all tabs, and deletes what is here of it. */
  destroy(): Promise<void>;
}

/**
 * What came of an open: the document, or which copy has seen a migration that was edited; or it was
 * `closed`, as another tab begins it anew.
 */
interface Opened<Defined extends Mutations> {
  readonly db?: Database<Defined>;
  readonly edited?: 'here' | 'there' | 'closed';
  readonly error?: TidelogError;
}

/** Opens a document; first begins it anew where a migration was edited. */
export async function openAnew<Defined extends Mutations>(
  steps: Steps<Defined>,
): Promise<Database<Defined>> {
  const { db, edited } = await tryToOpen(steps);
  if (db && !edited) return db;
  await db?.close();
  // Of two tabs, or components, one begins it anew, and the other one finds that done.
  const name = `tidelog-begin-anew ${steps.document}`;
  return navigator.locks.request(name, async () => {
    let opened = await tryToOpen(steps);
    // What its server has may be of this release already.
    if (opened.edited === 'here') opened = await beginAnew(steps, opened);
    if (opened.edited === 'there') opened = await beginAnew(steps, opened);
    if (opened.db) return opened.db;
    throw opened.error;
  });
}

async function tryToOpen<Defined extends Mutations>(
  steps: Steps<Defined>,
): Promise<Opened<Defined>> {
  let db: Database<Defined> | undefined;
  try {
    db = await steps.open();
    if (steps.server !== undefined) await isTaken(db);
    return { db };
  } catch (error) {
    if (db && error instanceof DocumentClosedError) return { error, edited: 'closed' };
    const isEdited = error instanceof DoctypeMismatchError && saysEdited(error, steps.document);
    if (isEdited) return db ? { db, error, edited: 'there' } : { error, edited: 'here' };
    if (db) return { db };
    throw error;
  }
}

/** Whether it is by a migration that two releases differ, and not by the kind of document. */
function saysEdited({ message }: TidelogError, document: string): boolean {
  const said = message.replaceAll(document, '');
  return /\bmigration \d+ of |has migrated it otherwise/.test(said);
}

/** Waits until the server has taken the doctype, or is not there; fails if it has another one. */
async function isTaken(db: Database<Mutations>): Promise<void> {
  const away = new AbortController();
  const { signal } = away;
  const timer = setTimeout(() => away.abort(), TAKES_MS);
  const stop = db.on('status', ({ connection, error }) => {
    // It may be why the server is left: that it refused the doctype. The call is told so later.
    if (connection === 'offline') away.abort(error ?? undefined);
  });
  try {
    await db.sync({ signal });
  } finally {
    clearTimeout(timer);
    stop();
  }
}

/** Lets go of what is here, unless its server is none for development, or is away. */
async function beginAnew<Defined extends Mutations>(
  steps: Steps<Defined>,
  opened: Opened<Defined>,
): Promise<Opened<Defined>> {
  const { document } = steps;
  if (!(await isAllowed(steps, 'GET'))) return opened;
  const isThere = opened.edited === 'there';
  const where = isThere ? 'here and on its server' : 'here';
  console.warn(`tidelog: ${document} begins anew ${where}: ${opened.error?.message}`);
  // First here: what is gone there is not made anew by a copy that is still of it.
  await steps.destroy();
  if (isThere) await isAllowed(steps, 'DELETE');
  return tryToOpen(steps);
}

/** Says whether its server, if there is one, lets everybody ask that of the document. */
async function isAllowed(
  { document, server }: Steps<Mutations>,
  method: 'GET' | 'DELETE',
): Promise<boolean> {
  if (server === undefined) return true;
  const address = addressOf(server);
  const url = `${address}/v1/documents/${encodeURIComponent(document)}`;
  try {
    const answer = await fetch(url, { method, signal: AbortSignal.timeout(ANSWER_MS) });
    // Whoever stands before the server may say the same of what it does not know.
    const text = await answer.text();
    const isMissing = answer.status === 404 && text === 'no such document\n';
    const isDone = method === 'DELETE' ? answer.status === 204 : isDescription(text, document);
    if (isMissing || isDone) return true;
    throw new Error(`${answer.status}`);
  } catch (why) {
    const way = 'start it with --dev, and let the page connect to it over http too';
    console.warn(`tidelog: ${address} does not let ${document} begin anew (${why}): ${way}`);
    return false;
  }
}

/** Says on the console what is at the address of a server that is not reached. */
export async function sayWhoAnswers(
  db: Pick<Database, 'status'>,
  server: string | URL,
): Promise<void> {
  const address = addressOf(server);
  const asked = { mode: 'no-cors', cache: 'no-store' } as const;
  const signal = AbortSignal.timeout(ANSWER_MS);
  // Whatever it says, which other origins may not read: a WebSocket does not even tell that.
  const isThere = await fetch(`${address}/healthz`, { ...asked, signal }).then(
    () => true,
    () => false,
  );
  // One that has just begun answers before the document tries it again.
  if (isThere) await new Promise((resolve) => setTimeout(resolve, NEXT_TRY_MS));
  if (db.status.error?.code !== 'server-unreachable') return;
  const found = isThere
    ? `${address} answers, but not as a Tidelog server does: it is another server, or a proxy ` +
      'that passes no WebSocket on'
    : `nothing answers at ${address}: start the server (npx tidelog serve), or correct the address`;
  console.warn(`tidelog: ${found}. Until then what is done is kept on this device.`);
}

/** Of what it answers beside WebSockets. */
const addressOf = (server: string | URL): string =>
  String(server).replace(/^ws/i, 'http').replace(/\/+$/, '');

function isDescription(text: string, document: string): boolean {
  try {
    return JSON.parse(text).document === document;
  } catch {
    return false;
  }
}
