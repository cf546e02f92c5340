/** The way to the core: starting it, noticing its end, lending it a page server. */

import { EngineError } from './errors.js';
import { Lender } from './lender.js';
import { type Bytes, type FromTab, type ToTab, transferOf, type WorkerPlaces } from './ports.js';

/** What the lock of a core of this release begins with; a space and its address follow. */
const CORE_LOCK = 'tidelog-core:0.1.0';

/** A core that says nothing for so long is asked again on a new port. */
const WELCOME_MS = 3000;

/** The same where another core has just died: the port may have gone to that one. */
const WELCOME_ANEW_MS = 1000;

/** What an engine tells its owner. */
export interface EngineOwner {
  /** A core that was at work is gone. */
  died(): void;
  /** There is a new core that knows nothing: tell it everything that still matters. */
  begin(): void;
  /** A list of messages came. */
  receive(bytes: Bytes): void;
  /** The engine cannot be started, or has died of something. */
  failed(error: EngineError, final: boolean): void;
}

/**
 * Why this window cannot have an engine, or undefined if it can.
 */
export function whatIsMissing(): EngineError | undefined {
  if (typeof navigator === 'undefined' || !navigator.locks) {
    return new EngineError('the engine needs Web Locks: a browser, and https or localhost');
  }
  if (typeof SharedWorker === 'undefined') {
    return new EngineError('this browser has no SharedWorker, which the engine needs');
  }
  return undefined;
}

/** The core as seen from one tab, whichever instance of it is alive. */
export class Engine {
  readonly #urls: WorkerPlaces;
  readonly #owner: EngineOwner;
  readonly #lock = `tidelog-tab:${crypto.randomUUID()}`;
  readonly #lender: Lender;
  #held: Promise<void> | undefined;
  /** The port of the core that was told hello. */
  #port: MessagePort | undefined;
  #starting = false;
  #retry: ReturnType<typeof setTimeout> | undefined;
  /** Cores that died soon after one another. */
  #deaths = 0;

  constructor(urls: WorkerPlaces, owner: EngineOwner) {
    this.#urls = urls;
    this.#owner = owner;
    this.#lender = new Lender(urls, (message, transfer) => this.#post(message, transfer));
  }

  /** Whether there is a core to talk to; else `begin` will be called when there is. */
  get ready(): boolean {
    return this.#port !== undefined;
  }

  /** Sends a list of messages. */
  send(bytes: Bytes): void {
    this.#post(bytes, transferOf(bytes));
  }

  #post(message: FromTab, transfer: Transferable[]): void {
    this.#port?.postMessage(message, transfer);
  }

  /** Starts the engine unless it runs. */
  start(): void {
    if (this.#starting || this.ready) return;
    this.#starting = true;
    void coreAtWork().then((url) => this.#startAt(url ?? this.#urls.workerUrl));
  }

  #startAt(url: string | undefined): void {
    let worker: SharedWorker;
    try {
      worker = startCore(url);
    } catch (error) {
      this.#giveUp(`the core's worker could not be started: ${error}`);
      return;
    }
    let broken = false;
    worker.onerror = (event) => {
      broken = true;
      this.#onError(worker.port, event);
    };
    // The core takes this lock when we are gone, so we must have it before we say hello.
    this.#held ??= hold(this.#lock);
    this.#held.then(
      () => broken || this.#hello(worker.port),
      (error) => this.#giveUp(`this window cannot have Web Locks: ${error}`),
    );
  }

  #hello(port: MessagePort): void {
    this.#starting = false;
    this.#port = port;
    port.onmessage = ({ data }: MessageEvent<ToTab>) => {
      if (port !== this.#port) return;
      if (data instanceof Uint8Array) this.#owner.receive(data);
      else if (data.type === 'welcome') this.#welcome(port, data.lock);
      else if (data.type === 'reach') this.#reach(data.server);
      else if (data.type === 'elsewhere') this.#restart(port);
      else this.#died(port, data.message);
    };
    this.#post({ type: 'hello', lock: this.#lock, urls: this.#urls }, []);
    this.#owner.begin();
    this.#lender.greet();
    this.#retry = setTimeout(
      () => this.#restart(port),
      this.#deaths > 0 ? WELCOME_ANEW_MS : WELCOME_MS,
    );
  }

  /** The page server tells us by itself what is durable: whatever becomes of the core, it is so. */
  #reach(server: number): void {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }: MessageEvent<Bytes>) => this.#owner.receive(data);
    this.#post({ type: 'reach', server, port: port2 }, [port2]);
  }

  /** A core that has worked leaves its lock, by which we notice; another one starts with us. */
  #died(port: MessagePort, message: string): void {
    if (this.#retry) {
      this.#leave(port);
      this.#giveUp(message);
    } else this.#owner.failed(new EngineError(message), false);
  }

  /** `lock` is held by this core and never by another: it comes free when the core is gone. */
  #welcome(port: MessagePort, lock: string): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    const since = performance.now();
    navigator.locks.request(lock, { mode: 'shared' }, () => {
      if (performance.now() - since > 10_000) this.#deaths = 0;
      this.#owner.died();
      // What the core said last may still be on its way to us.
      setTimeout(() => this.#restart(port), 25 + 250 * this.#deaths++);
    });
  }

  #restart(port: MessagePort): void {
    if (port !== this.#port) return;
    this.#leave(port);
    this.start();
  }

  #leave(port: MessagePort): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#port = undefined;
    port.close();
  }

  #onError(port: MessagePort, event: Event): void {
    // Once the core has answered, whatever it throws is its own affair.
    const isStarting = this.#starting || (port === this.#port && this.#retry !== undefined);
    if (!isStarting) return;
    this.#leave(port);
    const { message } = event as Partial<ErrorEvent>;
    this.#giveUp(`the core's worker could not be started: ${message ?? 'see the console'}`);
  }

  #giveUp(message: string): void {
    this.#starting = false;
    // Another tab may have better luck with its core, which then needs somebody to lend.
    this.#lender.letGo();
    this.#owner.failed(new EngineError(message), true);
  }
}

/**
 * The address of the core that is at work, if there is one. Two apps of one site come with workers
 * of their own, but the site has one store, and so one core.
 */
async function coreAtWork(): Promise<string | undefined> {
  const { held = [] } = await navigator.locks.query().catch(() => ({}) as LockManagerSnapshot);
  const names = held.map(({ name = '' }) => name.split(' '));
  return names.find(([lock, url]) => lock === CORE_LOCK && url)?.[1];
}

/** The literal form is what bundlers look for. */
function startCore(url: string | undefined): SharedWorker {
  return url
    ? new SharedWorker(url, { type: 'module', name: 'tidelog-core-0.1.0' })
    : new SharedWorker(new URL('./worker/worker.js', import.meta.url), {
        type: 'module',
        name: 'tidelog-core-0.1.0',
      });
}

/** Resolves when the lock is held, which it then is for as long as this window lives. */
function hold(name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    navigator.locks
      .request(name, () => {
        resolve();
        return new Promise<never>(() => {});
      })
      .catch(reject);
  });
}
