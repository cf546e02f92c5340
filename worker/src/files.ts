/** The four files of the store in the origin private file system. */

import * as store from '../wasm/page_server.js';
import { FULL, NO_FILES, settledAt } from './shared.js';
import { type Keep, Unopened } from './store-host.js';

/** In the order of `StoreFiles::NAMES` of crate `disk`. */
const NAMES = ['log-a', 'log-b', 'pages', 'spare'];

type Handle = FileSystemSyncAccessHandle;

/** The longest wait between two tries to open a file that another worker still holds. */
const BUSY_MS_MAX = 200;

/** Between two looks at whether the files still exist. */
const LOOK_MS = 2_000;

/**
 * Opens the files, which are made at first use. Waits for as long as another worker has them.
 *
 * After the site's data were cleared, Chromium goes on to write into files that are gone: `lost` is
 * called soon after that.
 */
export async function openFiles(lost: () => void): Promise<Keep> {
  const root = await rootFolder();
  try {
    const folder = await root.getDirectoryHandle('tidelog', { create: true });
    const [madeAt, ...handles] = await Promise.all([
      age(folder),
      ...NAMES.map((name) => openFile(folder, name)),
    ]);
    const look = setInterval(async () => {
      const found = NAMES.map((name) => folder.getFileHandle(name));
      if ((await Promise.allSettled(found)).every(({ status }) => status === 'fulfilled')) return;
      clearInterval(look);
      lost();
    }, LOOK_MS);
    return {
      inBlocks: false,
      settledAt: settledAt(madeAt),
      open: (host) => store.openFiles(...(handles as [Handle, Handle, Handle, Handle]), host),
    };
  } catch (error) {
    throw (error as Error).name === 'QuotaExceededError' ? new Unopened(FULL, error) : error;
  }
}

/** There is none in private windows of some browsers, and in browsers that know no such handles. */
async function rootFolder(): Promise<FileSystemDirectoryHandle> {
  try {
    if ('createSyncAccessHandle' in FileSystemFileHandle.prototype) {
      return await navigator.storage.getDirectory();
    }
  } catch (error) {
    const { name } = error as Error;
    if (!/^(Security|Type|Reference|NotSupported)Error$/.test(name)) throw error;
  }
  throw new Unopened(NO_FILES, 'no files');
}

/** When the files were made: the spare one is never written. */
async function age(folder: FileSystemDirectoryHandle): Promise<number> {
  const spare = await folder.getFileHandle(NAMES[3], { create: true });
  return (await spare.getFile()).lastModified;
}

async function openFile(folder: FileSystemDirectoryHandle, name: string): Promise<Handle> {
  const file = await folder.getFileHandle(name, { create: true });
  for (let wait = 2; ; wait = Math.min(wait * 1.2, BUSY_MS_MAX)) {
    try {
      return await file.createSyncAccessHandle();
    } catch (error) {
      if ((error as Error).name !== 'NoModificationAllowedError') throw error;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}
