/** The worker in which a tab has a page server, which a SharedWorker cannot start by itself. */

import type { FromPageServer, Prepare, Serve, WorkerPlaces } from './ports.js';
import { BUILD } from './release.js';
import type { Input } from './step.js';

/** A page server of this tab: loaded, waiting in line for the store, or serving. */
export class LendingWorker {
  readonly #worker: Worker;

  /** Starts the worker that goes by this number; what comes of it is heard. */
  constructor(places: WorkerPlaces, worker: number, hear: (input: Input) => void) {
    this.#worker = startPageServer(places.workerUrl);
    this.#worker.onmessage = ({ data }: MessageEvent<FromPageServer>) => hear({ ...data, worker });
    this.#worker.onerror = ({ message = 'see the console' }: Partial<ErrorEvent>) => {
      hear({ type: 'unloaded', worker, reason: `the page server's worker failed: ${message}` });
    };
    const wasm = places.pageServerWasmUrl;
    this.#worker.postMessage({ type: 'prepare', build: BUILD, wasm } satisfies Prepare);
  }

  /** A new way to the page server, for a core. */
  lend(): MessagePort {
    const { port1, port2 } = new MessageChannel();
    this.#worker.postMessage({ type: 'serve', port: port1 } satisfies Serve, [port1]);
    return port2;
  }

  terminate(): void {
    this.#worker.terminate();
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
