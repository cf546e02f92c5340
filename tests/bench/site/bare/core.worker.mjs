// The SharedWorker of the bare way: hands on what is to be written, and answers queries.

import { rowsOf } from './rows.mjs';

/** How many bytes a row is said in on its way to the disk. */
const SIZE = 200;

const encoder = new TextEncoder();
let pages;

self.onconnect = ({ ports: [tab] }) => {
  tab.onmessage = ({ data, ports }) => {
    if (data === 'pages') {
      [pages] = ports;
      pages.onmessage = (said) => tab.postMessage([said.data]);
      return;
    }
    const [call, kind, ...args] = data;
    if (kind === 'rows') tab.postMessage([call, rowsOf(...args)]);
    else pages.postMessage([call, kind === 'run' && bytesOf(...args)]);
  };
};

const bytesOf = (rows) => (rows ? encoder.encode(rows) : new Uint8Array(SIZE).fill(7));
