/** A tab's offer to run the page server, which a SharedWorker cannot do by itself. */

import type { Again, FromTab, Serve, WorkerUrls } from './ports.js';

/** Held by the tab that lends. Shared by all releases, since they share the files. */
const LEND_LOCK = 'tidelog-lend';

/** How long to wait before another page server takes the place of one that broke. */
const AGAIN_MS = 500;

/** One tab's part in lending: it waits for its turn, and then lends to every core that comes. */
export class Lender {
  readonly #urls: WorkerUrls;
  readonly #toCore: (message: FromTab, transfer: Transferable[]) => void;
  #worker: Worker | undefined;
  /** Ends the turn; undefined while nobody has asked us to lend. */
  #stop: AbortController | undefined;

  constructor(urls: WorkerUrls, toCore: (message: FromTab, transfer: Transferable[]) => void) {
    this.#urls = urls;
    this.#toCore = toCore;
  }

  /** A core was told hello: lends to it, or begins to wait for a turn. */
  greet(): void {
    if (this.#worker) this.#lend(this.#worker);
    // A core always needs a page server, so there is no need to wait until it says so.
    else this.#queue();
  }

  /** The core has said whether it needs tabs to lend. */
  wanted(wanted: boolean): void {
    if (wanted) this.#queue();
    else {
      this.#stop?.abort();
      this.#stop = undefined;
    }
  }

  #queue(): void {
    if (this.#stop) return;
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    navigator.locks
      .request(LEND_LOCK, { signal }, () => {
        this.#spawn();
        return new Promise<void>((resolve) => {
          signal.onabort = () => {
            this.#worker?.terminate();
            this.#worker = undefined;
            resolve();
          };
        });
      })
      .catch(() => {});
  }

  #spawn(): void {
    const worker = startPageServer(this.#urls.pageServerUrl);
    worker.onmessage = (_: MessageEvent<Again>) => {
      worker.terminate();
      setTimeout(() => worker === this.#worker && this.#spawn(), AGAIN_MS);
    };
    worker.onerror = ({ message }) => {
      const reason = `the page server's worker failed: ${message ?? 'see the console'}`;
      this.#toCore({ type: 'lendFailed', reason }, []);
    };
    this.#worker = worker;
    this.#lend(worker);
  }

  #lend(worker: Worker): void {
    const { port1, port2 } = new MessageChannel();
    const wasm = this.#urls.pageServerWasmUrl;
    const serve: Serve = {
      type: 'serve',
      port: port1,
      wasm: wasm && new URL(wasm, location.href).href,
    };
    worker.postMessage(serve, [port1]);
    this.#toCore({ type: 'lend', port: port2 }, [port2]);
  }
}

/** The literal form is what bundlers look for. */
function startPageServer(url: string | URL | undefined): Worker {
  return url
    ? new Worker(url, { type: 'module', name: 'tidelog-page-server' })
    : new Worker(new URL('./worker/page-server.js', import.meta.url), {
        type: 'module',
        name: 'tidelog-page-server',
      });
}
