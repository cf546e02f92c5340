// A worker that reads all pages again and again, from when it is told to until it is told to end.

import init, { encodeRead } from '/bench-storage/bench_storage.js';
import { Owner } from './owner.mjs';

let owner;
let pages;
let isEnding;
let reading;

async function readOn() {
  while (!isEnding) {
    // Replies with pages end with whether they are the last.
    await owner.ask(encodeRead(1, pages), (replies) => replies.at(-1) === 1);
  }
}

const CALLS = {
  async open(port, count) {
    await init();
    owner = new Owner(port);
    pages = count;
    await owner.ready();
  },
  begin() {
    isEnding = false;
    reading = readOn();
  },
  async end() {
    isEnding = true;
    await reading;
  },
};

addEventListener('message', async ({ data: [call, ...args] }) => {
  await CALLS[call](...args);
  postMessage(null);
});
