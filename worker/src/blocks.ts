/** The store in IndexedDB, for windows without files. Crate `browser`'s `FORMAT.md` draws it. */

import * as store from '../wasm/page_server.js';
import { ANSWER_MS, inTime } from './in-time.js';
import { hold, settledAt, UNSERVED_KINDS } from './shared.js';
import { type Keep, Unopened } from './store-host.js';

const VERSION = 1;

/** Held by the worker that has the store. Shared by all releases, since they share the data. */
const LOCK = 'tidelog-blocks';

/** When the database was made, milliseconds since the epoch. */
const MADE = 'made';

let held: Promise<unknown> | undefined;

/** A connection to a database that cannot be used, for the sake of what it hears. */
let listening: IDBDatabase | undefined;

/**
 * Opens the database, which is made at first use. Waits for as long as another worker has it, but
 * not for a browser that does not answer.
 *
 * `lost` is called when somebody deletes it, also where there is no store to be had of it, and
 * `closed` as soon as the browser has closed it, with whether it is still there, which takes time;
 * `aborted` likewise, before the store hears that a transaction of its own came to nothing. All
 * that are under way do when the browser closes it, and only then it says so.
 */
export async function openBlocks(
  lost: () => void,
  closed: (isThere: Promise<boolean>) => void,
  aborted: (isThere: Promise<boolean>) => void,
): Promise<Keep> {
  held ??= hold(LOCK);
  try {
    await held;
  } catch (error) {
    // Whoever tries again asks for it again.
    held = undefined;
    throw error;
  }
  const opening = indexedDB.open('tidelog', VERSION);
  const database = await open(opening, (made) => {
    made.createObjectStore('blocks').put(Date.now(), MADE);
  }).catch((error) => {
    // Where it was being made, the request says only that this was broken off.
    const why = [error, opening.transaction?.error];
    if (why.some((it) => it?.name === 'QuotaExceededError')) throw new Unopened('full', error);
    if (error.name !== 'VersionError') throw error;
    listen(lost);
    throw new Unopened('newer-format', error);
  });
  closeWhenDeleted(database, lost);
  const madeAt = await whenMade(database);
  database.onclose = () => closed(isThere(madeAt));
  // On its way down to the transaction, where the store listens.
  database.addEventListener('abort', () => aborted(isThere(madeAt)), true);
  const loading = new Loading(database);
  return {
    inBlocks: true,
    settledAt: settledAt(madeAt),
    // The database says itself when it is cleared.
    isThere: async () => true,
    open(host) {
      const opened = (): void => {
        loading.end();
        host.opened();
      };
      const failed = (kind: number, reason: string): void => {
        loading.end();
        host.failed(kind, reason);
        // Its disks close the database.
        listen(lost);
      };
      loading.begin((reason) => failed(UNSERVED_KINDS.indexOf('unavailable'), reason));
      store.openBlocks(database, { ...host, opened, failed });
    },
    giveUp: () => loading.giveUp(),
  };
}

/** What a store reads as it opens, one request after another. Each is to be answered in time. */
class Loading {
  readonly #database: IDBDatabase;
  #state: 'due' | 'under way' | 'given up' | 'over' = 'due';
  #timer: ReturnType<typeof setTimeout> | undefined;
  #late = (_: string): void => {};

  constructor(database: IDBDatabase) {
    this.#database = database;
  }

  /** The store begins to read. `late` is told once that it was given up. */
  begin(late: (reason: string) => void): void {
    this.#state = 'under way';
    this.#late = late;
    // On their way down to the request, where the store listens.
    for (const type of ['success', 'error']) {
      this.#database.addEventListener(type, this.#hear, true);
    }
    this.#wait();
  }

  /** The store is open, or has said why it is not. */
  end(): void {
    clearTimeout(this.#timer);
    if (this.#state !== 'under way') return;
    this.#state = 'over';
    for (const type of ['success', 'error']) {
      this.#database.removeEventListener(type, this.#hear, true);
    }
  }

  /** A store that would open after all, beside the one in its place, hears no answer any more. */
  giveUp(): void {
    if (this.#state === 'over') return;
    clearTimeout(this.#timer);
    this.#state = 'given up';
    this.#database.close();
  }

  readonly #hear = (event: Event): void => {
    if (this.#state === 'under way') this.#wait();
    else event.stopPropagation();
  };

  #wait(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.giveUp();
      this.#late('the database does not answer');
    }, ANSWER_MS);
  }
}

/** Waits for a database. One that comes too late is closed: open, it could not be deleted. */
async function open(
  opening: IDBOpenDBRequest,
  make: (made: IDBDatabase) => void,
): Promise<IDBDatabase> {
  opening.onupgradeneeded = () => make(opening.result);
  const opened = result(opening);
  try {
    return await inTime(opened, 'the database does not open');
  } catch (error) {
    opened.then(
      (late) => late.close(),
      () => {},
    );
    throw error;
  }
}

/** When the database was made that this is a connection to. */
async function whenMade(database: IDBDatabase): Promise<number> {
  try {
    const made = database.transaction('blocks').objectStore('blocks').get(MADE);
    return await inTime(result<number>(made), 'the database does not answer');
  } catch (error) {
    database.close();
    throw error;
  }
}

/**
 * Whether the database that was made then is still the one that anybody finds. The browser closes
 * what is cleared, and what its disk or its own worker has failed.
 */
async function isThere(madeAt: number): Promise<boolean> {
  let isGone = false;
  try {
    const opening = indexedDB.open('tidelog');
    const database = await open(opening, () => {
      isGone = true;
      opening.transaction!.abort();
    });
    const found = await whenMade(database);
    database.close();
    return found === madeAt;
  } catch {
    // Whatever else is wrong says nothing of the data.
    return !isGone;
  }
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
    listening.onclose = lost;
    closeWhenDeleted(listening, lost);
  };
}

function closeWhenDeleted(database: IDBDatabase, lost: () => void): void {
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
