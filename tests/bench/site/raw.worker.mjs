// The limit: the same calls, each with no more work than the disk asks for. An insert is one page
// written and flushed, a select one page read, a bulk insert its bytes written and flushed once.

import { serve } from './peer.mjs';

const PAGE_SIZE = 4096;
const page = new Uint8Array(PAGE_SIZE).fill(7);
let file;
let end = 0;

serve({
  async open(name) {
    const folder = await navigator.storage.getDirectory();
    const handle = await folder.getFileHandle(`raw-${name}`, { create: true });
    file = await handle.createSyncAccessHandle();
    end = file.getSize();
  },
  insert() {
    end += file.write(page, { at: end });
    file.flush();
  },
  insertMany(rows) {
    end += file.write(new TextEncoder().encode(rows), { at: end });
    file.flush();
  },
  select(id) {
    file.read(page, { at: (id * PAGE_SIZE) % Math.max(end - PAGE_SIZE, 1) });
    return { id, title: `item ${id}`, done: 0 };
  },
  first: () => file.read(page, { at: 0 }),
});
