// The SharedWorker of the bare way: hands on what is to be written, and answers queries.

import { rowsOf } from './rows.mjs';

/** In how many bytes the least is said on its way to the disk. */
const SIZE = 200;

const encoder = new TextEncoder();
let pages;

/** The calls that are being written; and those that came meanwhile, with their bytes. */
let under = [];
let next = [];

self.onconnect = ({ ports: [tab] }) => {
  tab.onmessage = ({ data, ports }) => {
    if (data === 'pages') {
      [pages] = ports;
      pages.onmessage = () => {
        for (const call of under) tab.postMessage([call]);
        under = [];
        write();
      };
      return;
    }
    const [call, kind, ...args] = data;
    if (kind === 'rows') tab.postMessage([call, rowsOf(...args)]);
    else {
      next.push([call, kind === 'run' ? bytesOf(...args) : undefined]);
      write();
    }
  };
};

/** All that has come, unless something is under way. */
function write() {
  if (under.length > 0 || next.length === 0) return;
  under = next.map(([call]) => call);
  pages.postMessage(next.flatMap(([, bytes]) => bytes ?? []));
  next = [];
}

function bytesOf(said = '') {
  const bytes = new Uint8Array(Math.max(SIZE, said.length)).fill(7);
  encoder.encodeInto(said, bytes);
  return bytes;
}
