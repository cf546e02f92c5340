// The store's files as they lie in a browser, for tests that change what is in them.

const NAMES = ['log-a', 'log-b', 'pages', 'spare'];

/** All of the files, by name. Nobody may have them open. */
export async function readStore(page) {
  const files = await page.evaluate(async (names) => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('tidelog');
    const texts = names.map(async (name) => {
      const file = await (await folder.getFileHandle(name)).getFile();
      return [name, base64(new Uint8Array(await file.arrayBuffer()))];
    });
    return Object.fromEntries(await Promise.all(texts));
  }, NAMES);
  return Object.fromEntries(
    Object.entries(files).map(([name, text]) => [name, Buffer.from(text, 'base64')]),
  );
}

/** Writes bytes into a file, as soon as nobody has it open any more. */
export const writeStore = (page, name, position, bytes) =>
  page.evaluate(
    async ([name, position, bytes]) => {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('tidelog');
      const file = await folder.getFileHandle(name);
      const data = Uint8Array.from(bytes);
      for (let tries = 1; ; tries += 1) {
        try {
          const writable = await file.createWritable({ keepExistingData: true });
          await writable.write({ type: 'write', position, data });
          await writable.close();
          return;
        } catch (error) {
          if (error.name !== 'NoModificationAllowedError' || tries === 50) throw error;
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
      }
    },
    [name, position, [...bytes]],
  );

/** The checksum of every format here. */
export function crc32c(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
