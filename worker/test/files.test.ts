import { afterEach, beforeEach, expect, test, vi } from 'vitest';

vi.mock('../wasm/page_server.js', () => ({}));

interface How {
  readonly create?: boolean;
}

const notFound = (name: string): Error => new DOMException(name, 'NotFoundError');

/** An origin private file system of one folder. */
class Disk {
  /** The names that were made, until they are cleared away. */
  made = new Set<string>();
  madeAt = 7;
  /** Handles that are open. */
  open = 0;
  /** What cannot be opened. */
  refused = '';
  /** What is said to whoever looks for a file. */
  trouble: Error | undefined;

  get root(): object {
    return { getDirectoryHandle: async (name: string, how: How) => this.#folder(name, how) };
  }

  #folder(name: string, how: How): object {
    this.#make(name, how);
    return { getFileHandle: async (file: string, how: How) => this.#file(file, how) };
  }

  #file(name: string, how: How): object {
    this.#make(name, how);
    return {
      getFile: async () => ({ lastModified: this.madeAt }),
      createSyncAccessHandle: async () => {
        if (!this.made.has(name) || name === this.refused) throw notFound(name);
        this.open += 1;
        return { close: () => (this.open -= 1) };
      },
    };
  }

  #make(name: string, { create = false }: How): void {
    if (this.trouble) throw this.trouble;
    if (!create && !this.made.has(name)) throw notFound(name);
    this.made.add(name);
  }
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

const open = (found?: Awaited<ReturnType<typeof findFiles>>) =>
  openFiles(Promise.resolve(found), () => {});

test('who only waits for the store makes no files: their want shows a loss', async () => {
  await expect(findFiles(false)).rejects.toThrow();
  expect(disk.made.size).toBe(0);
});

test('files found before are opened but the spare one, or made anew if they are gone', async () => {
  await findFiles(true);
  const found = await findFiles(false);
  await open(found);
  expect(disk.open).toBe(3);
  disk.open = 0;
  disk.made.clear();
  await open(found);
  expect(disk.open).toBe(3);
  expect(disk.made.size).toBe(5);
});

test('files of which the browser says nothing are not waited for without end', async () => {
  const never = () => new Promise<never>(() => {});
  vi.stubGlobal('navigator', { storage: { getDirectory: never } });
  const opened = Promise.allSettled([open(), openFiles(never(), () => {})]);
  await vi.advanceTimersByTimeAsync(30_000);
  const states = (await Promise.race([opened, []])).map(({ status }) => status);
  expect(states).toEqual(['rejected', 'rejected']);
});

test('where one file cannot be opened, none stays open', async () => {
  const found = await findFiles(true);
  disk.refused = 'pages';
  await expect(open(found)).rejects.toThrow('pages');
  expect(disk.open).toBe(0);
});

test('files that nobody waits for are closed, so that another worker has them', async () => {
  const keep = await open();
  expect(disk.open).toBe(3);
  keep.giveUp();
  expect(disk.open).toBe(0);
});

test('files that were made anew since they were found are not taken for lost', async () => {
  await findFiles(true);
  const found = await findFiles(false);
  disk.made.clear();
  disk.madeAt += 1;
  await findFiles(true);
  const lost = vi.fn();
  await openFiles(Promise.resolve(found), lost);
  await vi.advanceTimersByTimeAsync(5_000);
  expect(lost).not.toHaveBeenCalled();
});

test('a look that takes long is one look, however many were due meanwhile', async () => {
  const lost = vi.fn();
  await openFiles(Promise.resolve(undefined), lost);
  let [looks, answer] = [0, (_: Error): void => {}];
  const busy = () => {
    looks += 1;
    return new Promise((_, reject) => {
      answer = reject;
    });
  };
  vi.stubGlobal('navigator', { storage: { getDirectory: busy } });
  await vi.advanceTimersByTimeAsync(10_000);
  expect(looks).toBe(1);
  vi.stubGlobal('navigator', { storage: { getDirectory: async () => disk.root } });
  answer(notFound('tidelog'));
  await vi.advanceTimersByTimeAsync(10_000);
  expect(lost).not.toHaveBeenCalled();
});

test('a look that is never answered is not the last one, and says nothing', async () => {
  const lost = vi.fn();
  await openFiles(Promise.resolve(undefined), lost);
  const unanswered: ((error: Error) => void)[] = [];
  const getDirectory = () => new Promise((_, reject) => unanswered.push(reject));
  vi.stubGlobal('navigator', { storage: { getDirectory } });
  await vi.advanceTimersByTimeAsync(50_000);
  expect(unanswered.length).toBeGreaterThan(2);
  for (const answer of unanswered) answer(notFound('tidelog'));
  vi.stubGlobal('navigator', { storage: { getDirectory: async () => disk.root } });
  await vi.advanceTimersByTimeAsync(20_000);
  expect(lost).not.toHaveBeenCalled();
  disk.made.clear();
  await vi.advanceTimersByTimeAsync(5_000);
  expect(lost).toHaveBeenCalledTimes(1);
});

test('S11: files gone or replaced are missed; what cannot be told is not', async () => {
  const look = () => vi.advanceTimersByTimeAsync(5_000);
  const lost = vi.fn();
  await openFiles(Promise.resolve(undefined), lost);
  await look();
  disk.trouble = new DOMException('busy', 'UnknownError');
  await look();
  disk.trouble = undefined;
  await look();
  disk.made.delete('pages');
  await vi.advanceTimersByTimeAsync(1_000);
  disk.made.add('pages');
  await look();
  expect(lost).not.toHaveBeenCalled();
  disk.madeAt += 1;
  await look();
  expect(lost).toHaveBeenCalledTimes(1);

  const gone = vi.fn();
  await openFiles(Promise.resolve(undefined), gone);
  disk.made.clear();
  await look();
  expect(gone).toHaveBeenCalledTimes(1);
});
