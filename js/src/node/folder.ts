/** The folder that a process keeps its documents in. */

import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  realpathSync,
  statSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { InvalidOptionError, StorageError, StorageFullError } from '../errors.js';

/** What the store's own folder is called in it, as in a browser. */
const STORE = 'tidelog';

/**
 * The folder of the store in that of the app, as one name whatever it was called, and made durably.
 *
 * @throws StorageError or StorageFullError if it cannot be made.
 */
export function storeFolder(folder: string | URL): string {
  const store = path.join(path.resolve(nameOf(folder)), STORE);
  try {
    makeFolder(store);
    return realpathSync(store);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOSPC' || code === 'EDQUOT') {
      throw new StorageFullError(`there is no room at ${store} (${message}): make some`);
    }
    throw new StorageError(
      `${store} cannot be made (${message}): give a folder that this process may write to`,
    );
  }
}

function nameOf(folder: string | URL): string {
  if (folder instanceof URL && folder.protocol === 'file:') return fileURLToPath(folder);
  if (typeof folder === 'string' && folder !== '' && !folder.includes('\0')) return folder;
  throw new InvalidOptionError('folder has to be a path, or an address that begins with file:');
}

/**
 * Makes a folder, and those above it that are not there, and their names durable. One by one, since
 * `recursive` never returns where a file system knows no new folders, as `/proc`.
 */
function makeFolder(folder: string): void {
  const above = path.dirname(folder);
  if (!existsSync(folder) && above !== folder) makeFolder(above);
  try {
    mkdirSync(folder);
  } catch (error) {
    // Whoever else has made it just now may have been killed before its name was durable; one that
    // was there for long costs no more than that.
    if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) throw error;
  }
  syncNames(above);
}

/** Makes the names in a folder durable: a power cut could otherwise lose one with all below it. */
function syncNames(folder: string): void {
  if (process.platform === 'win32') return;
  try {
    const descriptor = openSync(folder, constants.O_RDONLY);
    try {
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    // Who may not look into it has not made a name in it, nor has anybody where none can be made.
    if (!/^(EACCES|EPERM|EROFS|EINVAL)$/.test((error as NodeJS.ErrnoException).code!)) throw error;
  }
}
