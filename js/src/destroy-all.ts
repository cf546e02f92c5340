/** Beginning anew, whatever state the store is in. */

import { StorageError } from './errors.js';
import { type DestroyAllOptions, destroyAllOf } from './open.js';

/** Between two tries to remove what somebody still has open. */
const AGAIN_MS = 100;

/** For how long cores are waited for that may have lost their data. */
const ENDS_MS = 1_000;

/** When it is given up, also where the browser does not answer: just under ten seconds. */
const GIVEN_UP_MS = 9_000;

const HELD = 'another tab holds on to the data: close it, and try again';

/** How far a removal has come. */
interface Removal {
  /** Whether something may be gone, or the browser may still remove it. */
  hasBegun: boolean;
  /** Whether its caller was told that it failed: nothing more is to be asked of the browser. */
  isGivenUp: boolean;
}

/**
 * Deletes everything that Tidelog keeps on this device for this site: every document of every user,
 * and what the server has not seen yet. It needs no working engine, so it is the way out where the
 * data are damaged, or of a newer format.
 *
 * Documents that are open, in any tab, begin anew: empty, or with what their server has. What was
 * pending of them rejects.
 *
 * Where it fails, `outcome` says whether everything is still there: it is `unknown` if a part may
 * be gone, or goes once whoever holds on to it lets go.
 *
 * @example
 * ```ts
 * await destroyAll();
 * const db = await open(todos, { document: 'groceries', server: 'wss://sync.example.org' });
 * ```
 */
export function destroyAll(): Promise<void>;
/**
 * Deletes the local copies of all documents of one user, as when that user logs out, and leaves
 * those of others. Refuses with `PendingError` while mutations of any of them are pending, and
 * where one cannot be read with the reason for that, unless `force` is set; and with
 * `DocumentInUseError` where a tab has one open, unless `everywhere` is: then all tabs close them
 * first, for which they have five seconds. Where it refuses, all of them are still there.
 *
 * A `user` keeps copies apart. It protects none of them: until they are deleted, whoever uses this
 * browser can read them.
 *
 * @example
 * ```ts
 * await db.sync(); // all that was issued is at the server
 * await destroyAll({ user: 'ada', everywhere: true });
 * ```
 */
export function destroyAll(options: DestroyAllOptions): Promise<void>;
export function destroyAll(...given: [] | [DestroyAllOptions]): Promise<void> {
  // Who means to name a user, and has none, does not mean everybody.
  const [options] = given;
  return given.length > 0 ? destroyAllOf(options as DestroyAllOptions) : destroyEverything();
}

function destroyEverything(): Promise<void> {
  const removal: Removal = { hasBegun: false, isGivenUp: false };
  return new Promise((resolve, reject) => {
    const giveUp = (message: string): void => {
      removal.isGivenUp = true;
      reject(new StorageError(message, { outcome: removal.hasBegun ? 'unknown' : 'none' }));
    };
    // Whoever has something open is asked to close it, which a worker that is frozen does not hear.
    const timer = setTimeout(() => giveUp(HELD), GIVEN_UP_MS);
    removeAll(removal)
      .finally(() => clearTimeout(timer))
      .then(resolve, (error) => giveUp(`the data could not be removed (${error}): try again`));
  });
}

async function removeAll(removal: Removal): Promise<void> {
  await removeFiles(removal);
  if (removal.isGivenUp) return;
  await removeBlocks(removal);
  await endCores();
}

/**
 * A core that has lost its data ends, and documents that are open go to the next one. What is asked
 * once that is told would else be refused by the one before.
 */
async function endCores(): Promise<void> {
  const before = await coreLocks();
  const cores = new BroadcastChannel('tidelog-removed');
  cores.postMessage(null);
  cores.close();
  // One that had nothing yet stays.
  for (let waited = 0; before.length > 0 && waited < ENDS_MS; waited += AGAIN_MS) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    const now = await coreLocks();
    if (!before.some((lock) => now.includes(lock))) return;
  }
}

/** The locks of cores: each has one of its own. */
async function coreLocks(): Promise<readonly string[]> {
  // Where that cannot be asked there was no core either.
  const { held = [] } = (await navigator.locks?.query().catch(() => undefined)) ?? {};
  return held.flatMap(({ name = '' }) => (/^tidelog-core:\S* /.test(name) ? name : []));
}

async function removeFiles(removal: Removal): Promise<void> {
  // Before the files go, whoever has them must let go of them.
  const holders = new BroadcastChannel('tidelog-destroy');
  try {
    while (!(await areRemoved(removal)) && !removal.isGivenUp) {
      holders.postMessage(null);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  } finally {
    holders.close();
  }
}

function removeBlocks(removal: Removal): Promise<void> {
  return new Promise((resolve, reject) => {
    try {
      const deleting = indexedDB.deleteDatabase('tidelog');
      // Nobody can take that back: it is carried out once nobody has the database open.
      removal.hasBegun = true;
      deleting.onsuccess = () => resolve();
      deleting.onerror = () => reject(deleting.error);
    } catch (error) {
      if ((error as Error).name === 'SecurityError') resolve();
      else reject(error);
    }
  });
}

/** Removes the files; false if somebody has them open, or if nobody waits for that any more. */
async function areRemoved(removal: Removal): Promise<boolean> {
  try {
    const root = await navigator.storage.getDirectory();
    if (removal.isGivenUp) return false;
    removal.hasBegun = true;
    await root.removeEntry('tidelog', { recursive: true });
  } catch (error) {
    const { name } = error as Error;
    const isHeld = name === 'NoModificationAllowedError';
    // There are none, or this window is given none.
    const isNone = /^(NotFound|Security|Type|NotSupported)Error$/.test(name);
    if (!isHeld && !isNone) throw error;
    removal.hasBegun = false;
    return isNone;
  }
  return true;
}
