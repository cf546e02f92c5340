import { afterEach, beforeEach, expect, test, vi } from 'vitest';

vi.mock('../wasm/page_server.js', () => ({}));

class NotFound extends Error {
  override name = 'NotFoundError';
}

/** An origin private file system of one folder. */
class Disk {
  /** The names that were made, until they are cleared away. */
  made = new Set<string>();
  /** Handles that are open. */
  open = 0;
  refuses = (_: string): boolean => false;

  get root(): object {
    return { getDirectoryHandle: async (name: string, how: How) => this.#folder(name, how) };
  }

  #folder(name: string, how: How): object {
    this.#make(name, how);
    return { getFileHandle: async (file: string, how: How) => this.#file(file, how) };
  }

  #file(name: string, how: How = {}): object {
    this.#make(name, how);
    return {
      getFile: async () => ({ lastModified: 7 }),
      createSyncAccessHandle: async () => {
        if (!this.made.has(name) || this.refuses(name)) throw new NotFound(name);
        this.open += 1;
        return { name, close: () => (this.open -= 1) };
      },
    };
  }

  #make(name: string, { create = false }: How): void {
    if (!create && !this.made.has(name)) throw new NotFound(name);
    this.made.add(name);
  }
}

interface How {
  readonly create?: boolean;
}

let disk: Disk;

beforeEach(() => {
  vi.useFakeTimers();
  disk = new Disk();
  class FileSystemFileHandle {
    createSyncAccessHandle(): void {}
  }
  vi.stubGlobal('FileSystemFileHandle', FileSystemFileHandle);
  vi.stubGlobal('navigator', { storage: { getDirectory: async () => disk.root } });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const { findFiles, openFiles } = await import('../src/files.js');

test('who only waits for the store makes no files, so that who has it notices when they go', async () => {
  await expect(findFiles(false)).rejects.toThrow();
  expect(disk.made.size).toBe(0);
});

test('files that were found before are opened, and made anew where they are gone by then', async () => {
  await openFiles(undefined, () => {});
  expect(disk.open).toBe(4);
  const found = await findFiles(false);
  disk.open = 0;
  disk.made.clear();
  await openFiles(found, () => {});
  expect(disk.open).toBe(4);
  expect(disk.made.size).toBe(5);
});

test('where one file cannot be opened, none stays open', async () => {
  disk.refuses = (name) => name === 'pages';
  await expect(openFiles(undefined, () => {})).rejects.toThrow('pages');
  expect(disk.open).toBe(0);
});
