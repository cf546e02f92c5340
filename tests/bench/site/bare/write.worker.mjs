// A page written and flushed: the same calls, each with no more work than the disk asks of a
// database that writes pages. A list of rows is its bytes, written and flushed once; a query reads a
// page.

import { serve } from '../peer.mjs';
import { rowsOf } from './rows.mjs';

const PAGE_SIZE = 4096;
const page = new Uint8Array(PAGE_SIZE).fill(7);
/** The file is laid out ahead: a write that makes it longer costs more. */
const AHEAD = new Uint8Array(1 << 20);
let file;
let size = 0;
let end = 0;

function write(bytes) {
  while (end + bytes.length > size) size += file.write(AHEAD, { at: size });
  end += file.write(bytes, { at: end });
  file.flush();
}

serve({
  async open(name) {
    const folder = await navigator.storage.getDirectory();
    const handle = await folder.getFileHandle(`bare-write-${name}`, { create: true });
    file = await handle.createSyncAccessHandle();
    size = file.getSize();
  },
  run(_statement, { rows }) {
    write(rows ? new TextEncoder().encode(rows) : page);
  },
  rows(statement, values) {
    file.read(page, { at: 0 });
    return rowsOf(statement, values);
  },
});
