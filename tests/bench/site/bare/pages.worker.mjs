// The worker that a tab lends for the bare way: writes what it is handed, and flushes it.

/** Nothing that was flushed is written to again. */
const BLOCK = 4096;

/** The file is laid out ahead, as a log is: a write that makes it longer costs more. */
const AHEAD = new Uint8Array(1 << 20);

self.onmessage = async ({ data: name, ports: [core] }) => {
  const folder = await navigator.storage.getDirectory();
  const handle = await folder.getFileHandle(`bare-way-${name}`, { create: true });
  const file = await handle.createSyncAccessHandle();
  let size = file.getSize();
  let end = 0;
  core.onmessage = ({ data: parts }) => {
    for (const bytes of parts) {
      while (end + bytes.length > size) size += file.write(AHEAD, { at: size });
      file.write(bytes, { at: end });
      end += bytes.length;
    }
    if (parts.length > 0) {
      file.flush();
      end = Math.ceil(end / BLOCK) * BLOCK;
    }
    core.postMessage('durable');
  };
};
