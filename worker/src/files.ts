/** The four files of the store in the origin private file system. */

import * as store from '../wasm/page_server.js';
import { inTime } from './in-time.js';
import { lookEvery } from './look.js';
import { settledAt } from './shared.js';
import { type Keep, Unopened } from './store-host.js';

/** In the order of `StoreFiles::NAMES` of crate `disk`. */
const NAMES = ['log-a', 'log-b', 'pages', 'spare'];

/** How many of them are opened: all but the spare one, which is never written. */
const OPENED = 3;

type Handle = FileSystemSyncAccessHandle;
type Handles = [Handle, Handle, Handle];

/** The longest wait between two tries to open a file that another worker still holds. */
const BUSY_MS_MAX = 200;

/** Between two looks at whether the files still exist. */
const LOOK_MS = 1_000;

/** How many looks in a row have to miss the files before they count as gone. */
const MISSES = 2;

/** The files, found and not opened. */
export interface Found {
  readonly files: readonly FileSystemFileHandle[];
  readonly madeAt: number;
}

interface Opened {
  readonly handles: Handles;
  readonly madeAt: number;
}

/**
 * Looks for the files. Whoever has the store can have them made, and nobody else: it would no
 * longer notice that its own were cleared away.
 */
export async function findFiles(create: boolean): Promise<Found> {
  const root = await rootFolder();
  const folder = await root.getDirectoryHandle('tidelog', { create });
  const files = await Promise.all(NAMES.map((name) => folder.getFileHandle(name, { create })));
  return { files, madeAt: await timeOf(files) };
}

/** When they were made: the spare one, which nobody writes. */
async function timeOf(files: Found['files']): Promise<number> {
  return (await files[OPENED]!.getFile()).lastModified;
}

/** Whether the files that were made then are still those that anybody finds. */
async function areThere(madeAt: number): Promise<boolean> {
  try {
    return (await findFiles(false)).madeAt === madeAt;
  } catch (error) {
    // Whatever else is wrong says nothing of the files.
    return (error as Error).name !== 'NotFoundError';
  }
}

/**
 * Opens the files, which are made at first use. Waits for a while where another worker has them.
 * `finding` gives those that were there a while ago.
 *
 * After the site's data were cleared, Chromium goes on to write into files that are gone: `lost` is
 * called soon after that.
 */
export async function openFiles(
  finding: Promise<Found | undefined>,
  lost: () => void,
): Promise<Keep> {
  try {
    // What comes later than that is let go of with this worker.
    const { madeAt, handles } = await inTime(openFound(finding), 'the files do not open');
    let misses = 0;
    const areGone = (areThere: boolean): boolean => {
      misses = areThere ? 0 : misses + 1;
      return misses >= MISSES;
    };
    void lookEvery(LOOK_MS, () => areThere(madeAt), areGone).then(lost);
    return {
      inBlocks: false,
      settledAt: settledAt(madeAt),
      isThere: () => areThere(madeAt),
      open: (host) => store.openFiles(...handles, host),
      // The next worker finds them free, whenever this one ends.
      giveUp() {
        for (const handle of handles) handle.close();
      },
    };
  } catch (error) {
    throw (error as Error).name === 'QuotaExceededError' ? new Unopened('full', error) : error;
  }
}

async function openFound(finding: Promise<Found | undefined>): Promise<Opened> {
  const found = await finding;
  const atHand = found && (await openAll(found).catch(() => undefined));
  return atHand ?? (await openAll(await findFiles(true)));
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
  throw new Unopened('no-files', 'no files');
}

/** Opens those that are opened, or none. Since they were found others may be in their place. */
async function openAll({ files }: Found): Promise<Opened> {
  const opening = files.slice(0, OPENED).map(openFile);
  try {
    const handles = (await Promise.all(opening)) as Handles;
    return { handles, madeAt: await timeOf(files) };
  } catch (error) {
    for (const opened of await Promise.allSettled(opening)) {
      if (opened.status === 'fulfilled') opened.value.close();
    }
    throw error;
  }
}

async function openFile(file: FileSystemFileHandle): Promise<Handle> {
  for (let wait = 2; ; wait = Math.min(wait * 1.2, BUSY_MS_MAX)) {
    try {
      return await file.createSyncAccessHandle();
    } catch (error) {
      if ((error as Error).name !== 'NoModificationAllowedError') throw error;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}
