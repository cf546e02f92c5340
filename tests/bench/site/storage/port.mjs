// The page server as it is published, in a worker of its own, asked over ports as cores ask it.

import {
  durableIn,
  encodeAppends,
  encodeFill,
  encodeRead,
  pagesIn,
} from '/bench-storage/bench_storage.js';
import { BUILD } from '/tidelog/dist/release.js';
import { RawFile } from './files.mjs';
import { Owner } from './owner.mjs';
import { NO_END, openStore, sizeOfCommit } from './stores.mjs';
import { expect, inTurn, quantile, timed } from './time.mjs';

/** Pages of the document that is read. */
const PAGES = 10_000;

class PageServer {
  #worker = new Worker('/tidelog/dist/worker/worker.js', { type: 'module' });

  constructor() {
    this.#worker.postMessage({ type: 'prepare', build: BUILD });
  }

  /** A way to it. */
  port() {
    const { port1, port2 } = new MessageChannel();
    this.#worker.postMessage({ type: 'serve', port: port2 }, [port2]);
    return port1;
  }

  async owner() {
    const owner = new Owner(this.port());
    await owner.ready();
    return owner;
  }

  end() {
    this.#worker.terminate();
  }
}

/** So many appends in one message, one after the other until each is durable; log files are as long
 * as they are in browsers, so change-overs are among it. */
export async function appendByPort(scale) {
  const documents = 256;
  const store = await openStore(NO_END);
  const bytes = new Uint8Array(sizeOfCommit(store, documents)).fill(7);
  store.free();
  const growing = await RawFile.growing('growing');
  const inPlace = await RawFile.ofSize('in-place', 16 * 1024 * 1024);
  const server = new PageServer();
  const owner = await server.owner();
  let message;
  let nth = 0;
  const { ours, ...raw } = await inTurn(
    250 * scale,
    {
      ours: async () => {
        const began = performance.now();
        await owner.ask(message, (replies) => durableIn(replies) === documents * nth);
        return performance.now() - began;
      },
      growing: () => timed(1, () => growing.append(bytes)),
      'in place': () => timed(1, () => inPlace.append(bytes)),
    },
    () => {
      nth += 1;
      message = encodeAppends(documents, nth);
    },
  );
  server.end();
  growing.close();
  inPlace.close();
  return [{ name: 'port-append-256', ours, raw }];
}

/** A worker of its own that reads many pages. */
class Many {
  #worker = new Worker(new URL('./many.mjs', import.meta.url), { type: 'module' });

  ask(call, port, ...args) {
    return new Promise((resolve) => {
      this.#worker.onmessage = resolve;
      this.#worker.postMessage([call, port, ...args], port ? [port] : []);
    });
  }

  terminate() {
    this.#worker.terminate();
  }
}

/** How long so many reads of one page take, one after the other. */
async function timesOfReads(owner, reads) {
  const times = [];
  for (let nth = 0; nth < reads; nth += 1) {
    const page = 1 + ((nth * 97) % PAGES);
    const message = encodeRead(page, page);
    const began = performance.now();
    const replies = await owner.ask(message, () => true);
    times.push(performance.now() - began);
    expect(pagesIn(replies), 1, 'pages');
  }
  return times;
}

/** How long one page takes while another owner reads many. */
export async function onePageBesideMany(scale) {
  const reads = 2_000;
  const server = new PageServer();
  const owner = await server.owner();
  for (let nth = 0; ; nth += 1) {
    const message = encodeFill(PAGES, nth);
    if (!message) break;
    await owner.ask(message, (replies) => durableIn(replies) === nth + 1);
  }
  const many = new Many();
  await many.ask('open', server.port(), PAGES);
  const found = await inTurn(7 * scale, {
    beside: async () => {
      await many.ask('begin');
      const times = await timesOfReads(owner, reads);
      await many.ask('end');
      return times;
    },
    alone: () => timesOfReads(owner, reads),
  });
  many.terminate();
  server.end();
  const row = (name, share) => {
    const [ours, alone] = [found.beside, found.alone].map((runs) =>
      runs.map((times) => quantile(times, share)),
    );
    return { name, ours, raw: { alone } };
  };
  return [row('port-one-beside-many', 0.99), row('port-one-beside-many-median', 0.5)];
}
