// Files of the origin: those of a store, and raw ones, written as anybody would.

/** In the order of `StoreFiles::NAMES` of crate `disk`. */
const NAMES = ['log-a', 'log-b', 'pages', 'spare'];

const PIECE_SIZE = 1024 * 1024;

/** Asks again while another worker still holds a file. */
async function insisting(ask) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await ask();
    } catch (error) {
      if (error.name !== 'NoModificationAllowedError' || tries > 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** Removes all that an earlier measure left. */
export async function removeAll() {
  const root = await navigator.storage.getDirectory();
  const names = [];
  for await (const name of root.keys()) names.push(name);
  for (const name of names) await insisting(() => root.removeEntry(name, { recursive: true }));
}

/** A handle to the file of that name. */
export async function open(name) {
  const root = await navigator.storage.getDirectory();
  const file = await root.getFileHandle(name, { create: true });
  return insisting(() => file.createSyncAccessHandle());
}

/** Handles to the files of a store. */
export async function openStoreFiles() {
  const handles = [];
  for (const name of NAMES) handles.push(await open(name));
  return handles;
}

/** Bytes written and flushed with the calls of the browser and nothing else. */
export class RawFile {
  #file;
  #end = 0;
  #size;

  constructor(file, size) {
    this.#file = file;
    this.#size = size;
  }

  /** One that grows with every write, as that of most apps does. */
  static async growing(name) {
    return new RawFile(await open(name), Infinity);
  }

  /** One whose bytes are all there: what is beyond its size is written from its start again. */
  static async ofSize(name, size) {
    const raw = new RawFile(await open(name), size);
    const piece = new Uint8Array(PIECE_SIZE).fill(1);
    for (let at = 0; at < size; at += PIECE_SIZE) raw.#write(piece.subarray(0, size - at), at);
    raw.#file.flush();
    return raw;
  }

  #write(bytes, at) {
    const written = this.#file.write(bytes, { at });
    if (written !== bytes.length) throw new Error(`${written} bytes of ${bytes.length} written`);
  }

  append(bytes) {
    if (this.#end + bytes.length > this.#size) this.#end = 0;
    this.#write(bytes, this.#end);
    this.#file.flush();
    this.#end += bytes.length;
  }

  read(at, size) {
    const bytes = new Uint8Array(size);
    const read = this.#file.read(bytes, { at });
    if (read !== size) throw new Error(`${read} bytes of ${size} read`);
    return bytes;
  }

  close() {
    this.#file.close();
  }
}
