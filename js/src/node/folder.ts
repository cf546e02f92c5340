/** The folder that a process keeps its documents in. */

import { closeSync, constants, fsyncSync, mkdirSync, openSync, realpathSync } from 'node:fs';
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
    const first = mkdirSync(store, { recursive: true });
    if (first !== undefined) syncNames(first, store);
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

/** Makes the names of new folders durable, from the first that was made to the last. */
function syncNames(first: string, last: string): void {
  if (process.platform === 'win32') return;
  for (let made = last; made.length >= first.length; made = path.dirname(made)) {
    const above = openSync(path.dirname(made), constants.O_RDONLY);
    try {
      fsyncSync(above);
    } finally {
      closeSync(above);
    }
  }
}
