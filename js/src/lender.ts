/** A tab's offer to run the page server, which a SharedWorker cannot do by itself. */

import type { Again, FromTab, Serve, WorkerPlaces } from './ports.js';

/** Held by the tab that lends. Shared by all releases, since they share the files. */
const LEND_LOCK = 'tidelog-lend';

/** How long to wait before another page server takes the place of one that broke, at first. */
const AGAIN_MS = 500;

/** The longest such wait: a full device may have room again at any time. */
const AGAIN_MS_MAX = 8_000;

/** One tab's part in lending: it waits for its turn, and then lends to every core that comes. */
export class Lender {
  readonly #urls: WorkerPlaces;
  readonly #toCore: (message: FromTab, transfer: Transferable[]) => void;
  #worker: Worker | undefined;
  /** Whether we want to lend: we do already, or wait for our turn. */
  #waits = false;
  #endTurn: (() => void) | undefined;
  #pauseMs = AGAIN_MS;

  constructor(urls: WorkerPlaces, toCore: (message: FromTab, transfer: Transferable[]) => void) {
    this.#urls = urls;
    this.#toCore = toCore;
  }

  /** A core was told hello: lends to it, or begins to wait for a turn. */
  greet(): void {
    if (this.#worker) this.#lend(this.#worker);
    else if (!this.#waits) {
      this.#waits = true;
      const turn = (): Promise<void> | undefined => {
        if (!this.#waits) return undefined;
        this.#spawn();
        return new Promise((resolve) => {
          this.#endTurn = resolve;
        });
      };
      navigator.locks.request(LEND_LOCK, turn).catch(() => {});
    }
  }

  /** There is no core for us: another tab shall have the turn. */
  letGo(): void {
    this.#waits = false;
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#endTurn?.();
  }

  #spawn(): void {
    const worker = startPageServer(this.#urls.workerUrl);
    const since = performance.now();
    worker.onmessage = (_: MessageEvent<Again>) => {
      if (worker !== this.#worker) return;
      worker.terminate();
      this.#worker = undefined;
      // One that worked for long has not failed for the reason of those before it.
      if (performance.now() - since > 60_000) this.#pauseMs = AGAIN_MS;
      setTimeout(() => this.#waits && !this.#worker && this.#spawn(), this.#pauseMs);
      this.#pauseMs = Math.min(2 * this.#pauseMs, AGAIN_MS_MAX);
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
    worker.postMessage({ type: 'serve', port: port1, wasm } satisfies Serve, [port1]);
    this.#toCore({ type: 'lend', port: port2 }, [port2]);
  }
}

/** The literal form is what bundlers look for. */
function startPageServer(url: string | undefined): Worker {
  return url
    ? new Worker(url, { type: 'module', name: 'tidelog-page-server' })
    : new Worker(new URL('./worker/worker.js', import.meta.url), {
        type: 'module',
        name: 'tidelog-page-server',
      });
}
