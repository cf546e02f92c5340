/**
 * The files of a store in a folder or in memory, as the handles that a browser gives to its files.
 */

import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import * as store from '../../wasm/page_server.js';
import { type Keep, Unopened } from '../store-host.js';

/** In the order of `StoreFiles::NAMES` of crate `disk`. */
const NAMES = ['log-a', 'log-b', 'pages', 'spare'];

/** How many of them are opened: all but the spare one, which is never written. */
const OPENED = 3;

type Handle = FileSystemSyncAccessHandle;

type Bytes = Uint8Array<ArrayBuffer>;

/** Where in a file something is read or written. */
interface Place {
  readonly at: number;
}

/** What crate `browser` uses of a handle. */
interface Calls {
  read(into: Bytes, place: Place): number;
  write(from: Bytes, place: Place): number;
  flush(): void;
  truncate(size: number): void;
  getSize(): number;
  close(): void;
}

/** Whether an error says that there is no room. */
export function isFull(error: unknown): boolean {
  return /^(ENOSPC|EDQUOT|EFBIG)$/.test((error as NodeJS.ErrnoException).code ?? '');
}

/** A full device by the name that it has in a browser. */
function asThrown(error: unknown): unknown {
  if (!isFull(error)) return error;
  return new DOMException((error as Error).message, 'QuotaExceededError');
}

/** A file of a folder. */
class StoredFile implements Calls {
  readonly path: string;
  #descriptor: number | undefined;

  constructor(at: string, isMade: boolean) {
    this.path = at;
    this.#descriptor = openSync(at, constants.O_RDWR | (isMade ? constants.O_CREAT : 0));
  }

  read(into: Bytes, { at }: Place): number {
    for (let done = 0; ; ) {
      const read = readSync(this.#open, into, done, into.byteLength - done, at + done);
      done += read;
      if (read === 0 || done === into.byteLength) return done;
    }
  }

  write(from: Bytes, { at }: Place): number {
    try {
      for (let done = 0; ; ) {
        const written = writeSync(this.#open, from, done, from.byteLength - done, at + done);
        done += written;
        if (written === 0 || done === from.byteLength) return done;
      }
    } catch (error) {
      throw asThrown(error);
    }
  }

  /** The bytes, and how many there are, survive a power cut; and somebody can find them. */
  flush(): void {
    try {
      fdatasyncSync(this.#open);
    } catch (error) {
      throw asThrown(error);
    }
    if (this.isGone) throw new Error(`${this.path} was deleted while it was open`);
  }

  truncate(size: number): void {
    try {
      ftruncateSync(this.#open, size);
    } catch (error) {
      throw asThrown(error);
    }
  }

  getSize(): number {
    return fstatSync(this.#open).size;
  }

  /** Safe to call more than once. */
  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  get isGone(): boolean {
    return process.platform !== 'win32' && fstatSync(this.#open).nlink === 0;
  }

  /** Which file it is, whatever its path leads to. */
  get name(): string {
    const { dev, ino } = fstatSync(this.#open);
    return `${dev}:${ino}`;
  }

  /** Whether whoever opens its path finds this file. */
  get isFound(): boolean {
    try {
      const [own, found] = [fstatSync(this.#open), statSync(this.path)];
      return own.ino === found.ino && own.dev === found.dev;
    } catch (error) {
      // Whatever else is wrong says nothing of the file.
      return (error as NodeJS.ErrnoException).code !== 'ENOENT';
    }
  }

  get #open(): number {
    if (this.#descriptor === undefined) throw new Error(`${this.path} was closed`);
    return this.#descriptor;
  }
}

/** Bytes that last as long as this thread. */
class MemoryFile implements Calls {
  #bytes = new Uint8Array(1 << 16);
  #size = 0;

  read(into: Bytes, { at }: Place): number {
    const found = this.#bytes.subarray(at, Math.min(at + into.byteLength, this.#size));
    into.set(found);
    return found.length;
  }

  write(from: Bytes, { at }: Place): number {
    if (at + from.byteLength > this.#size) this.truncate(at + from.byteLength);
    this.#bytes.set(from, at);
    return from.byteLength;
  }

  truncate(size: number): void {
    if (size > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(size, 2 * this.#bytes.length));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes.fill(0, size, Math.max(size, this.#size));
    this.#size = size;
  }

  getSize(): number {
    return this.#size;
  }

  flush(): void {}
  close(): void {}
}

function keep(files: readonly Calls[], isThere: () => boolean): Keep {
  const [logA, logB, pages] = files as unknown as [Handle, Handle, Handle];
  return {
    inBlocks: false,
    // Their names were made durable as they were made.
    settledAt: 0,
    isThere: async () => isThere(),
    open: (host) => store.openFiles(logA, logB, pages, host),
    giveUp() {
      for (const file of files) file.close();
    },
  };
}

const memory = NAMES.slice(0, OPENED).map(() => new MemoryFile());

/** The store of this thread, in memory. */
export async function openMemory(): Promise<Keep> {
  return keep(memory, () => true);
}

/** The files of this thread's store. */
let ours: string | undefined;

/**
 * The store in a folder, which this thread has alone. Its files are made only as it `begins`: if
 * they are not there when it opens them anew, or others are, then its data are gone, and so is the
 * lock of the folder, which somebody else may have by then.
 */
export async function openFolder(folder: string, begins: boolean): Promise<Keep> {
  const files: StoredFile[] = [];
  try {
    for (const name of NAMES) files.push(new StoredFile(path.join(folder, name), begins));
    syncNames(folder);
    const found = files.map(({ name }) => name).join();
    if (begins) ours = found;
    if (found !== ours) throw new Unopened('lost', new Error(`${folder} has other files now`));
  } catch (error) {
    for (const file of files) file.close();
    if (!begins && (error as NodeJS.ErrnoException).code === 'ENOENT') {
      throw new Unopened('lost', error);
    }
    throw isFull(error) ? new Unopened('full', error) : error;
  }
  const [spare] = files.splice(OPENED);
  spare!.close();
  return keep(files, () => files.every(({ isFound }) => isFound));
}

/** Removes the files of a store that nobody has open. */
export function removeFiles(folder: string): void {
  for (const name of NAMES) rmSync(path.join(folder, name), { force: true });
  syncNames(folder);
}

/** Makes the names in a folder durable: a power cut could otherwise lose a file, bytes and all. */
function syncNames(folder: string): void {
  if (process.platform === 'win32') return;
  const descriptor = openSync(folder, constants.O_RDONLY);
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
