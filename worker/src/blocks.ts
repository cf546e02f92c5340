/** The store in IndexedDB, for windows without files. Crate `browser`'s `FORMAT.md` draws it. */

import * as store from '../wasm/page_server.js';
import { hold, settledAt } from './shared.js';
import { type Keep, Unopened } from './store-host.js';

const VERSION = 1;

/** Held by the worker that has the store. Shared by all releases, since they share the data. */
const LOCK = 'tidelog-blocks';

/** When the database was made, milliseconds since the epoch. */
const MADE = 'made';

let held: Promise<void> | undefined;

/** A connection to a database that cannot be used, for the sake of what it hears. */
let listening: IDBDatabase | undefined;

/**
 * Opens the database, which is made at first use. Waits for as long as another worker has it.
 *
 * `lost` is called when somebody deletes it, also where there is no store to be had of it.
 */
export async function openBlocks(lost: () => void): Promise<Keep> {
  held ??= hold(LOCK);
  try {
    await held;
  } catch (error) {
    // Whoever tries again asks for it again.
    held = undefined;
    throw error;
  }
  const opening = indexedDB.open('tidelog', VERSION);
  opening.onupgradeneeded = () => {
    opening.result.createObjectStore('blocks').put(Date.now(), MADE);
  };
  const database = await result(opening).catch((error) => {
    if (error.name !== 'VersionError') throw error;
    listen(lost);
    throw new Unopened('newer-format', error);
  });
  closeWhenDeleted(database, lost);
  const made = database.transaction('blocks').objectStore('blocks').get(MADE);
  return {
    inBlocks: true,
    settledAt: settledAt(await result(made)),
    // The database says itself when it is cleared.
    isThere: async () => true,
    open(host) {
      const failed = (kind: number, reason: string): void => {
        host.failed(kind, reason);
        // Its disks close the database.
        listen(lost);
      };
      store.openBlocks(database, { ...host, failed });
    },
  };
}

/** Hears of the end of a database in which no store is open, whatever its version is. */
function listen(lost: () => void): void {
  listening?.close();
  const opening = indexedDB.open('tidelog');
  // It is gone already, and is not to be made like this.
  opening.onupgradeneeded = () => opening.transaction!.abort();
  opening.onerror = lost;
  opening.onsuccess = () => {
    listening = opening.result;
    closeWhenDeleted(listening, lost);
  };
}

function closeWhenDeleted(database: IDBDatabase, lost: () => void): void {
  database.onclose = lost;
  database.onversionchange = () => {
    database.close();
    lost();
  };
}

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
