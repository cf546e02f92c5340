// A page written and flushed: the same calls, each with no more work than the disk asks of a
// database that writes pages. A list of rows is its bytes, written and flushed once; a query reads a
// page.

import { serve } from '../peer.mjs';
import { rowsOf } from './rows.mjs';

const PAGE_SIZE = 4096;
const page = new Uint8Array(PAGE_SIZE).fill(7);
let file;
let end = 0;

serve({
  async open(name) {
    const folder = await navigator.storage.getDirectory();
    const handle = await folder.getFileHandle(`bare-write-${name}`, { create: true });
    file = await handle.createSyncAccessHandle();
    end = file.getSize();
  },
  run(_statement, { rows }) {
    end += file.write(rows ? new TextEncoder().encode(rows) : page, { at: end });
    file.flush();
  },
  rows(statement, values) {
    file.read(page, { at: 0 });
    return rowsOf(statement, values);
  },
});
