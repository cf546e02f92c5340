/** Beginning anew, whatever state the store is in. */

import { StorageError } from './errors.js';

/** Between two tries to remove what somebody still has open. */
const AGAIN_MS = 100;

/** Tries after which it is given up. */
const TRIES_MAX = 90;

/** The same in time, also where the browser does not answer: just under ten seconds. */
const GIVEN_UP_MS = AGAIN_MS * TRIES_MAX;

const HELD = 'another tab holds on to the data: close it, and try again';

/**
 * Deletes everything that Tidelog keeps on this device for this site: every document of every user,
 * and what the server has not seen yet. It needs no working engine, so it is the way out where the
 * data are damaged, or of a newer format.
 *
 * Documents that are open are of no use any more, and say so by a `StorageError`. Load the page
 * anew in every tab, and `open` begins anew; with a server, documents come back from there.
 */
export async function destroyAll(): Promise<void> {
  await inTime(removeFiles());
  await inTime(removeBlocks());
}

/** Whoever has something open is asked to close it, which a worker that is frozen does not hear. */
function inTime(removing: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    removing.then(resolve, reject);
    setTimeout(() => reject(new StorageError(HELD)), GIVEN_UP_MS);
  });
}

async function removeFiles(): Promise<void> {
  // Before the files go, whoever has them must let go of them.
  const holders = new BroadcastChannel('tidelog-destroy');
  try {
    for (let tries = 0; !(await isRemoved()); tries += 1) {
      if (tries === TRIES_MAX) {
        throw new StorageError(HELD);
      }
      holders.postMessage(null);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  } finally {
    holders.close();
  }
}

function removeBlocks(): Promise<void> {
  return new Promise((resolve, reject) => {
    try {
      const deleting = indexedDB.deleteDatabase('tidelog');
      deleting.onsuccess = () => resolve();
      deleting.onerror = () => reject(unremoved(deleting.error));
    } catch (error) {
      if ((error as Error).name === 'SecurityError') resolve();
      else reject(unremoved(error));
    }
  });
}

function unremoved(error: unknown): StorageError {
  return new StorageError(`the data could not be removed (${error}): try again`);
}

/** Removes the files; false if somebody has them open. */
async function isRemoved(): Promise<boolean> {
  try {
    const root = await navigator.storage.getDirectory();
    await root.removeEntry('tidelog', { recursive: true });
  } catch (error) {
    const { name } = error as Error;
    if (name === 'NoModificationAllowedError') return false;
    // There are none, or this window is given none.
    if (!/^(NotFound|Security|Type|NotSupported)Error$/.test(name)) {
      throw unremoved(error);
    }
  }
  return true;
}
