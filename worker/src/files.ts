/** The four files of the store in the origin private file system. */

/** In the order of `StoreFiles::NAMES` of crate `disk`. */
const NAMES = ['log-a', 'log-b', 'pages', 'spare'];

type Handle = FileSystemSyncAccessHandle;

/** The longest wait between two tries to open a file that another worker still holds. */
const BUSY_MS_MAX = 200;

/**
 * Chromium never syncs the names of files: a power cut that comes sooner than this after they were
 * made can lose them, flushed bytes and all.
 */
const SETTLING_MS = 45_000;

/** The files, open. Nobody else has them. */
export interface StoreFiles {
  /** In the order of their names. */
  readonly handles: [Handle, Handle, Handle, Handle];
  /** Until when a power cut could still lose them, milliseconds since the epoch. */
  readonly settledAt: number;
  /** Whether they can still be found by their names. */
  exist(): Promise<boolean>;
}

/** Opens the files, which are made at first use. Waits for as long as another worker has them. */
export async function openFiles(): Promise<StoreFiles> {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle('tidelog', { create: true });
  const [settledAt, ...handles] = await Promise.all([
    settling(folder),
    ...NAMES.map((name) => openFile(folder, name)),
  ]);
  return {
    handles: handles as StoreFiles['handles'],
    settledAt,
    async exist() {
      const found = NAMES.map((name) => folder.getFileHandle(name));
      return (await Promise.allSettled(found)).every(({ status }) => status === 'fulfilled');
    },
  };
}

/** The spare file is never written, so it tells when the files were made. */
async function settling(folder: FileSystemDirectoryHandle): Promise<number> {
  if (!('userAgentData' in navigator)) return 0;
  const spare = await folder.getFileHandle(NAMES[3], { create: true });
  return (await spare.getFile()).lastModified + SETTLING_MS;
}

async function openFile(folder: FileSystemDirectoryHandle, name: string): Promise<Handle> {
  const file = await folder.getFileHandle(name, { create: true });
  for (let wait = 4; ; wait = Math.min(wait * 1.5, BUSY_MS_MAX)) {
    try {
      return await file.createSyncAccessHandle();
    } catch (error) {
      if ((error as Error).name !== 'NoModificationAllowedError') throw error;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}
