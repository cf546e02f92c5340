/** Beginning a document anew while an app is developed. */

import type { Database } from './database.js';
import type { Mutations } from './doctype.js';
import { DoctypeMismatchError } from './errors.js';

/** What is done while an app is developed: `dev` of {@link open}. */
export interface DevOptions {
  /**
   * What to do where a migration was edited that the document has seen, here or on its server:
   * `reset` begins it anew, **without what was in it**, on this device, and on the server, which
   * has to be there, and started with `--dev`; `error` fails with `DoctypeMismatchError`, as
   * where nothing is said.
   */
  readonly onMigrationEdited: 'reset' | 'error';
}

/**
 * Milliseconds behind an open in which the server's word of another doctype is taken for an edited
 * migration. Later it is the page that is old.
 */
const EDITED_MS = 10_000;

/** What {@link openAnew} does, and does again. */
interface Steps<Defined extends Mutations> {
  readonly document: string;
  /** Absent for a local document. */
  readonly server: string | URL | undefined;
  open(): Promise<Database<Defined>>;
  destroy(): Promise<void>;
}

/** Opens a document; first begins it anew where a migration was edited. */
export async function openAnew<Defined extends Mutations>(
  steps: Steps<Defined>,
): Promise<Database<Defined>> {
  const db = await steps.open().catch(async (error) => {
    if (!(error instanceof DoctypeMismatchError)) throw error;
    // First there: where that server is none for development, nothing is lost here.
    if (!(await deleteThere(steps))) throw error;
    console.warn(`tidelog: ${steps.document} begins anew: ${error.message}`);
    await steps.destroy();
    return steps.open();
  });
  const openedAt = performance.now();
  const stop = db.on('error', async ({ code, message }) => {
    if (code !== 'doctype-mismatch' || performance.now() > openedAt + EDITED_MS) return;
    stop();
    console.warn(`tidelog: ${steps.document} begins anew on its server: ${message}`);
    if (!(await deleteThere(steps))) return;
    // It asks again by itself, only not at once.
    db.disconnect();
    db.connect();
  });
  return db;
}

/** Says whether its server, if there is one, does not have the document. */
async function deleteThere({ document, server }: Steps<Mutations>): Promise<boolean> {
  if (server === undefined) return true;
  const address = String(server).replace(/^ws/i, 'http').replace(/\/+$/, '');
  const url = `${address}/v1/documents/${encodeURIComponent(document)}`;
  const failed = (why: unknown): boolean => {
    const way = 'start it with --dev, and let the page connect to it over http too';
    console.warn(`tidelog: ${address} has not deleted ${document} (${why}): ${way}`);
    return false;
  };
  return fetch(url, { method: 'DELETE' }).then(
    ({ ok, status }) => ok || status === 404 || failed(status),
    failed,
  );
}
