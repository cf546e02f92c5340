// The least that can take a store over: a lock, three files, and a row written and flushed in one
// of them. What it needs beside these is at hand before it waits.

const NAMES = ['a', 'b', 'c'];
const SIZE = 200;

const rows = new BroadcastChannel('bare');
const row = new Uint8Array(SIZE);

const root = await navigator.storage.getDirectory();
const folder = await root.getDirectoryHandle('bare', { create: true });
const files = await Promise.all(NAMES.map((name) => folder.getFileHandle(name, { create: true })));

async function openFile(file) {
  for (;;) {
    try {
      return await file.createSyncAccessHandle();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }
}

navigator.locks.request('bare', async () => {
  const [log] = await Promise.all(files.map(openFile));
  rows.onmessage = ({ data }) => {
    if (!data.wanted) return;
    log.write(row, { at: log.getSize() });
    log.flush();
    rows.postMessage({ done: data.wanted });
  };
  rows.postMessage({ done: null });
  return new Promise(() => {});
});
