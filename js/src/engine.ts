/** The ports, locks and workers through which a tab reaches the core. It decides nothing. */

import { callBack } from './call-back.js';
import type { BundledMeta } from './called.js';
import type { Bytes } from './codec.js';
import { sizeOf } from './hearing.js';
import { LendingWorker } from './lending-worker.js';
import { type FromTab, type ToTab, transferOf, type WorkerPlaces } from './ports.js';
import { BUILD, isNewer, winsOver } from './release.js';
import type { Effect, Input } from './step.js';
import { REPLACED } from './tab.js';

/** What the lock of a core of this release begins with; its kind and its address follow. */
const CORE_LOCK = `tidelog-core:${BUILD}`;

/** Held by the one tab that has a page server waiting for the store. Shared by all releases. */
const TURN_LOCK = 'tidelog-lend-next';

/** Why a tab has no engine once the files of its release are gone from their address. */
const OTHER_BUILD = 'another release of the app was deployed: load this page anew';

/** Where a browser does not say why a script could not be loaded. Vite 5 to 7 bundle dependencies
 * for development, and leave the scripts behind that those load. */
const NOT_THERE = (import.meta as BundledMeta).env?.PROD
  ? 'see the console'
  : "see the console; Vite 5 to 7 need optimizeDeps: { exclude: ['tidelog'] }, or tidelog/vite";

/** Why a tab has no engine whose locks are of before the data of its site were cleared. */
const CLEARED = 'the data of this site were cleared: load this page anew';

/** Cores with other locks that a page leaves for another one, before it is itself apart. */
const APART_MAX = 5;

/**
 * Set on the page once a core has welcomed it. An app may have workers at several addresses, and a
 * page this package several times: what one of them has open ends where another one says it is new.
 */
const WELCOMED = Symbol.for('tidelog-welcomed');
const page = globalThis as { [WELCOMED]?: boolean };

/** To find or start a core. */
type Connect = Extract<Effect, { type: 'connect' }>;

/** Why this window cannot have an engine, or undefined if it can. */
function whatIsMissing(): string | undefined {
  if (typeof location === 'undefined') {
    return (
      'the engine needs a page, and there is none here: ' +
      'open documents where a page comes by, or by tidelog/node; test with tidelog/testing'
    );
  }
  if (globalThis.isSecureContext === false) {
    return (
      `the engine needs a secure origin, and ${location.origin} is none: ` +
      'serve the page over https, or open it on localhost'
    );
  }
  if (!navigator.locks) return 'this browser has no Web Locks, which the engine needs';
  if (typeof SharedWorker === 'undefined') {
    return 'this browser has no SharedWorker, which the engine needs';
  }
  return undefined;
}

/** The core as seen from one tab, whichever instance of it is alive. */
export class Engine {
  readonly #places: WorkerPlaces;
  readonly #hear: (input: Input) => void;
  readonly #receive: (bytes: Bytes, core: number) => void;
  /** Held for as long as this tab may have a core. `crypto.randomUUID` is for https alone. */
  readonly #lock = `tidelog-tab:${crypto.getRandomValues(new Uint32Array(4)).join('-')}`;
  /** Ends the wait for that lock. */
  #asking: AbortController | undefined;
  /** Lets go of it, once it is held. */
  #letGo: (() => void) | undefined;
  #core = 0;
  #port: MessagePort | undefined;
  #watch: AbortController | undefined;
  #endTurn: AbortController | undefined;
  #worker: LendingWorker | undefined;
  /** A core that was replaced by one of another release: its tabs do not ask for the store back. */
  #yields = false;
  /** Cores have other locks by now than this page, which can do nothing together with others. */
  #isApart = false;
  /** Cores that were left since they have other locks. */
  #apartCount = 0;

  /** `receive` takes lists of messages, and which core they are from. */
  constructor(
    places: WorkerPlaces,
    hear: (input: Input) => void,
    receive: (bytes: Bytes, core: number) => void,
  ) {
    this.#places = places;
    this.#hear = hear;
    this.#receive = receive;
  }

  /** Sends the list of messages that this makes. What cannot be sent, as for want of memory, is
   * lost, and so is asked of another core, or of this one anew. */
  send(make: () => Bytes): void {
    const isSent = callBack(() => {
      const bytes = make();
      this.#post(bytes, transferOf(bytes));
    });
    if (!isSent) this.unsaid();
  }

  /** Something could not be said to the core, which nobody says again but to another one. */
  unsaid(): void {
    const core = this.#core;
    // Until the core has answered that is one which cannot be reached, and afterwards it is gone.
    const reason = 'there was no room to ask the engine anything';
    this.#hear({ type: 'refused', core, reason, joining: undefined });
    this.#hear({ type: 'gone', core });
  }

  /** Carries out what concerns ports, locks and workers. */
  perform(effect: Effect): void {
    switch (effect.type) {
      case 'connect':
        this.#core = effect.core;
        this.#connect(effect).catch(({ message }: Error) => {
          this.#hear({ type: 'refused', core: effect.core, reason: message, joining: undefined });
        });
        break;
      case 'leave':
        this.#watch?.abort();
        this.#asking?.abort();
        this.#core = 0;
        this.#port?.close();
        this.#port = undefined;
        break;
      case 'watchLock':
        this.#watchLock(effect.core, effect.lock);
        break;
      case 'reach':
        this.#reach(effect.server);
        break;
      case 'queue':
        this.#queue();
        break;
      case 'endTurn':
        this.#endTurn?.abort();
        break;
      case 'spawn':
        this.#spawn(effect.worker);
        break;
      case 'end':
        this.#worker?.terminate();
        this.#worker = undefined;
        break;
      case 'lend': {
        // One that could not be started is told of right behind.
        const port = this.#worker?.lend();
        if (port) this.#post({ type: 'lend', worker: effect.worker, port }, [port]);
        break;
      }
      case 'lendEnded':
        this.#post({ type: 'lendEnded', why: effect.why }, []);
        break;
      case 'cannotLend':
        this.#post({ type: 'lendFailed', reason: effect.reason }, []);
        break;
      case 'letGo':
        this.#letGo?.();
        this.#letGo = undefined;
    }
  }

  #watchLock(core: number, lock: string): void {
    this.#watch = new AbortController();
    const { signal } = this.#watch;
    const gone = (): void => this.#hear({ type: 'gone', core });
    navigator.locks.request(lock, { mode: 'shared', signal }, gone).catch(() => {
      // Of a core that cannot be watched nobody would notice the end.
      if (!signal.aborted) gone();
    });
  }

  #spawn(worker: number): void {
    try {
      this.#worker = new LendingWorker(this.#places, worker, this.#hear);
    } catch (error) {
      // Of another origin, or against the page's policy.
      this.#hear({ type: 'unloaded', worker, reason: `${error}` });
    }
  }

  #post(message: FromTab, transfer: Transferable[]): void {
    this.#port?.postMessage(message, transfer);
  }

  async #connect({ core, unjoinable, place }: Connect): Promise<void> {
    const missing = whatIsMissing();
    if (missing) throw new Error(missing);
    if (this.#isApart) throw new Error(CLEARED);
    // The core takes this lock when we are gone, so we must have it before we say hello.
    const locking = this.#takeLock().catch((error: Error) => error);
    const { found, others } = await coresAtWork();
    // The page was put aside meanwhile, where it may hold no lock.
    if (core !== this.#core) return;
    if (others.some((lock) => this.#yields || isNewer(lock, CORE_LOCK))) throw new Error(REPLACED);
    const joined = found && tryNext(found, unjoinable);
    const worker = joined ? joinCore(joined) : startCore(this.#places.workerUrl, place);
    worker.onerror = (event) => {
      const { message = NOT_THERE } = event as Partial<ErrorEvent>;
      const reason = `the core's worker could not be started: ${message}`;
      this.#hear({ type: 'refused', core, reason, joining: joined?.tried });
    };
    const { port } = worker;
    const failure = await locking;
    const isLeft = core !== this.#core;
    if (isLeft || failure) port.close();
    // Whoever has left it is told nothing more of it.
    if (isLeft) return;
    if (failure) throw failure;
    this.#port = port;
    const isNew = !page[WELCOMED];
    this.#listen(port, core, (data: ToTab) => {
      if (port !== this.#port) return;
      if ('type' in data && data.type === 'apart') {
        // Of a page that has just been loaded and its core, it is the core that is of before.
        this.#isApart = !isNew || ++this.#apartCount >= APART_MAX;
        page[WELCOMED] = !isNew;
      }
      this.#take(core, data, joined?.url);
      if ('type' in data && data.type === 'welcome') void this.#takeOver(port, others);
    });
    const [lock, urls] = [this.#lock, this.#places];
    this.#post({ type: 'hello', lock, core, isNew, build: BUILD, urls }, []);
    this.#hear({ type: 'connected', core, place: joined?.place ?? place });
  }

  /** Each attempt asks anew: a browser may never answer one that was given up. */
  async #takeLock(): Promise<void> {
    if (this.#letGo) return;
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    const letGo = await hold(this.#lock, signal);
    if (signal.aborted) letGo();
    else this.#letGo = letGo;
  }

  /**
   * A list that does not get through, or cannot be read, has answers in it that nobody repeats: the
   * core is left as if it had died, and is asked again for all that is open.
   */
  #listen<Message>(port: MessagePort, core: number, take: (data: Message) => void): void {
    const gone = (): void => this.#hear({ type: 'gone', core });
    port.onmessageerror = gone;
    port.onmessage = ({ data }: MessageEvent<Message>) => {
      if (!callBack(() => take(data))) gone();
    };
  }

  /** Hears what the core says, which is at the address `joining` if that is not our own choice. */
  #take(core: number, data: ToTab, joining: string | undefined): void {
    if (data instanceof Uint8Array) {
      this.#receive(data, core);
      this.#hear({ type: 'heard', core, size: sizeOf(data) });
    } else if (data.type === 'unread') {
      this.#hear({ type: 'gone', core });
    } else if (data.type === 'otherBuild' || (data.type === 'welcome' && !isOurs(data.lock))) {
      this.#hear({ type: 'refused', core, reason: OTHER_BUILD, joining });
    } else if (data.type === 'apart') {
      this.#hear({ type: 'elsewhere', core });
    } else if (data.type === 'elsewhere' && joining) {
      // That address leads to another worker than the core that we found, or did for a while.
      this.#hear({ type: 'refused', core, reason: 'the core was not there', joining });
    } else {
      this.#yields ||= data.type === 'replaced';
      page[WELCOMED] ||= data.type === 'welcome';
      this.#hear({ ...data, core });
    }
  }

  /** The page server tells us by itself what is durable: whatever becomes of the core, it is so. */
  #reach(server: number): void {
    const { port1, port2 } = new MessageChannel();
    const core = this.#core;
    this.#listen(port1, core, (data: Bytes) => this.#receive(data, core));
    this.#post({ type: 'reach', server, port: port2 }, [port2]);
  }

  #queue(): void {
    // Nobody lends where there is no engine.
    if (whatIsMissing()) return;
    const ended = new AbortController();
    this.#endTurn = ended;
    const { signal } = ended;
    const turn = async (): Promise<void> => {
      if (signal.aborted) return;
      const end = new Promise((resolve) => signal.addEventListener('abort', resolve));
      this.#hear({ type: 'turn' });
      await end;
    };
    navigator.locks.request(TURN_LOCK, { signal }, turn).catch((error) => {
      if (!signal.aborted) this.#hear({ type: 'noTurn', reason: `${error}` });
    });
  }

  /**
   * Our core works: it takes the place of the others that `were` there before. Of those that have
   * begun since then, at the same time as ours, one gives way. Whoever works holds its lock, so of
   * any two the tabs of one at least find the other.
   */
  async #takeOver(port: MessagePort, were: readonly string[]): Promise<void> {
    const { others } = await coresAtWork();
    const isBeaten = others.some((lock) => !were.includes(lock) && winsOver(lock, CORE_LOCK));
    const locks = isBeaten ? [CORE_LOCK] : others;
    if (locks.length > 0 && port === this.#port) this.#post({ type: 'takeOver', locks }, []);
  }
}

/**
 * Whether a core is of our build. A worker's name does not choose its script: that is whatever is
 * at the address by then.
 */
function isOurs(lock: string): boolean {
  return lock.split(' ')[0] === CORE_LOCK;
}

/**
 * The core that is at work, if there is one: two apps of one site come with workers of their own,
 * but the site has one store, and so one core. Also the locks of those of other releases or builds.
 */
async function coresAtWork(): Promise<{ found: CorePlace | undefined; others: string[] }> {
  const { held = [] } = await navigator.locks.query().catch(() => ({}) as LockManagerSnapshot);
  // A core has its lock alone; tabs share that of one that died, if only to hear of it.
  const alone = held.filter(({ mode }) => mode === 'exclusive');
  const names = alone.map(({ name = '' }) => name.split(' '));
  const cores = names.filter(([lock, , url]) => url && lock!.startsWith('tidelog-core:'));
  const ours = cores.find(([lock]) => lock === CORE_LOCK);
  const others = cores.map(([lock]) => lock!).filter((lock) => lock !== CORE_LOCK);
  return { found: ours && placeOf(ours), others };
}

/** Where a core is, and what its worker has to be asked for as: bundlers make either of it. */
interface CorePlace {
  readonly url: string;
  readonly kind: WorkerType;
  /** Of the workers at this address, which one: the number at the end of its name. */
  readonly place: number;
}

/** As the core said it in its lock. */
function placeOf([, kind, url, place]: string[]): CorePlace {
  return { kind: kind as WorkerType, url: url!, place: Number(place) };
}

/**
 * How to join a core: as what it says it is, and then as the other kind, since Firefox does not
 * tell a worker. Nothing is left to try where what failed is the address itself.
 */
function tryNext(
  { url, kind, place }: CorePlace,
  failed: string | undefined,
): (CorePlace & { readonly tried: string }) | undefined {
  if (failed === url) return undefined;
  const tried = `${kind} ${url}`;
  if (failed !== tried) return { url, kind, place, tried };
  return { url, kind: kind === 'module' ? 'classic' : 'module', place, tried: url };
}

function joinCore({ url, kind, place }: CorePlace): SharedWorker {
  return new SharedWorker(url, { type: kind, name: nameOf(place) });
}

/** Workers at one address are told apart by their names. */
function nameOf(place: number): string {
  return `tidelog-core-${BUILD}-${place}`;
}

/**
 * The literal form is what bundlers look for; some make a classic worker of it. Vite 5 wants to
 * know the name too, and does without where it is told to.
 */
function startCore(url: string | undefined, place: number): SharedWorker {
  return url
    ? joinCore({ url, kind: 'module', place })
    : new SharedWorker(new URL('./worker/worker.js', import.meta.url), {
        /* @vite-ignore */
        type: 'module',
        name: nameOf(place),
      });
}

/** Resolves when the lock is held, to what lets go of it. Who gives up does not wait for that. */
function hold(name: string, signal: AbortSignal): Promise<() => void> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason));
    const held = () => new Promise<void>((letGo) => (signal.aborted ? letGo() : resolve(letGo)));
    navigator.locks.request(name, { signal }, held).catch(reject);
  });
}
