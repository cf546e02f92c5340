/** Serves a store to cores and tabs, wherever the store is kept. */

import type { Bytes } from '../../js/dist/codec.js';
import type { Ready, TabPort, Unserved, UnservedKind, Use } from '../../js/dist/ports.js';
import * as store from '../wasm/page_server.js';
import { compile, transferOf, UNSERVED_KINDS } from './shared.js';

/** Nothing was asked for so long: then the log is marked as being at rest. */
const REST_MS = 1_000;

/** What a store is kept in, open. Nobody else has it. */
export interface Keep {
  /** Whether that is IndexedDB, and not files. */
  readonly inBlocks: boolean;
  /** Until when a power cut could still lose it, milliseconds since the epoch. */
  readonly settledAt: number;
  /** Whether that is still what anybody finds. */
  isThere(): Promise<boolean>;
  /** Opens the store in it, which calls the host. */
  open(host: store.ReplyHost): void;
  /** Nobody waits for it any more: what is not open yet does not open, and files are closed. */
  giveUp(): void;
}

/** There is nothing to keep a store in. */
export class Unopened extends Error {
  readonly kind: UnservedKind;

  constructor(kind: UnservedKind, reason: unknown) {
    super(String(reason));
    this.kind = kind;
  }
}

let loaded: Promise<void> | undefined;

/** Loads the store's code, once for a worker: a store is opened anew without a network too. */
export function loadStore(wasm: string | undefined): Promise<void> {
  loaded ??= load(wasm).catch((error) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

async function load(wasm: string | undefined): Promise<void> {
  const url = wasm ?? new URL('../wasm/page_server_bg.wasm', import.meta.url);
  store.initSync({ module: await compile(url, store.BUILD) });
}

/** Uses the wait for the store, whose code is loaded: it opens sooner then. */
export function warmUp(): void {
  const pass = (): void => {};
  store.warmUpStore({ opened: pass, failed: pass, flushed: pass, reply: pass, tell: pass });
}

/** One page server: opens the store and serves those who have a port to it. */
export class StoreHost {
  /** The ways to cores, by number. */
  readonly #owners: MessagePort[] = [];
  /**
   * The number of the living core's way: the newest of those that a core has said that it uses. One
   * that was lent later may be on its way to a core, or to one that never is at work.
   */
  #living = -1;
  /** The lock of that core. */
  #lock: string | undefined;
  /** Ways to the tabs of the living core. */
  readonly #tabs = new Map<number, MessagePort>();
  readonly #tellAgain: (why?: Unserved) => void;
  /** Whether another page server is to take the place of this one. */
  #isOver = false;
  #keep: Keep | undefined;
  /** Whether the store is open. */
  #works = false;
  /** Whether its data were cleared under it. */
  #isLost = false;
  /** What is to be done once it is known whether what the store is kept in is still there. */
  #heldBack: (() => number)[] | undefined;
  /** Looks at that which are under way. */
  #looks = 0;
  /** What owners are told first. */
  #state: Ready | Unserved | undefined;
  /** Lets other messages in between the slices of large requests. */
  readonly #slices = new MessageChannel();
  /** Whether the next slice is on its way: were there one for each message that left something to
   * do, whoever asks would wait for as many slices. */
  #isSliceDue = false;
  #rest: ReturnType<typeof setTimeout> | undefined;

  /**
   * `again` is called once, when another page server should take the place of this one, with what
   * owners were told of why this one failed.
   */
  constructor(again: (why: Unserved | undefined) => void) {
    this.#tellAgain = again;
    this.#slices.port1.onmessage = () => {
      this.#isSliceDue = false;
      this.#work(store.proceed);
    };
  }

  /** Serves another core, which may be the same with another way, once it uses that. */
  serve(port: MessagePort): void {
    if (this.#isLost) {
      // What is here is the last copy. The core that knows it has its way to it; any other one
      // begins anew, and says so first.
      port.onmessage = () => this.#again();
      port.onmessageerror = () => this.#again();
      return;
    }
    const owner = this.#owners.push(port) - 1;
    // What was asked is lost, and nobody asks it again but of another page server.
    port.onmessageerror = () => this.#break();
    port.onmessage = ({ data }: MessageEvent<TabPort | Use | Bytes>) => {
      if (data instanceof Uint8Array) this.#work(() => store.serve(owner, data));
      else if (data.type === 'use') this.#isUsed(owner, data.lock);
      else if (owner === this.#living) this.#reach(data.tab, data.port);
    };
    if (this.#state) port.postMessage(this.#state);
  }

  /** The core at this way takes the place of the last one, and counts its tabs anew. */
  #isUsed(owner: number, lock: string | undefined): void {
    if (owner < this.#living) return;
    this.#lock = lock;
    for (const tab of [...this.#tabs.keys()]) this.#reach(tab, undefined);
    this.#living = owner;
  }

  /** Whether the core that has this lock uses it. */
  isUsedBy(lock: string): boolean {
    return lock === this.#lock;
  }

  /** There is this way to a tab from now on, or none: one end alone would keep the one before. */
  #reach(tab: number, way: MessagePort | undefined): void {
    this.#tabs.get(tab)?.close();
    if (way) this.#tabs.set(tab, way);
    else this.#tabs.delete(tab);
  }

  /** Opens the store, whose code is loaded. Requests come only once that has been said. */
  async start(keeping: Promise<Keep>): Promise<void> {
    try {
      const keep = await keeping;
      this.#keep = keep;
      if (this.#isOver) keep.giveUp();
      else keep.open(this.#replyHost(keep));
    } catch (error) {
      this.#fail(error instanceof Unopened ? error.kind : 'unavailable', String(error));
    }
  }

  #replyHost({ inBlocks, settledAt }: Keep): store.ReplyHost {
    return {
      opened: () => {
        this.#works = true;
        this.#tell({ type: 'ready', settledAt, inBlocks });
      },
      failed: (kind, reason) => this.#fail(UNSERVED_KINDS[kind]!, reason),
      flushed: () => this.#work(store.proceed),
      reply: (owner, replies) => this.#owners[owner].postMessage(replies, transferOf(replies)),
      tell: (owner, tab, messages) => {
        if (owner === this.#living) this.#tabs.get(tab)?.postMessage(messages);
      },
    };
  }

  /** The data were cleared. What is still there can be read by the core that knows it. */
  lost(): void {
    // Where nothing could be opened, or is open yet, what is made anew can be.
    if (!this.#works) this.#again();
    if (!this.#works || this.#isLost) return;
    this.#isLost = true;
    store.lose();
    this.#tell({ type: 'failed', kind: 'lost', reason: '' });
  }

  /** The browser has closed what the store is kept in. If that is still there it is opened anew. */
  async closed(isThere: Promise<boolean>): Promise<void> {
    await this.#holdBack(isThere, () => this.#break());
  }

  /**
   * Something was not written, as happens to all that is on its way when the data are cleared. If
   * they are still there, the store says why as soon as it looks.
   */
  async aborted(isThere: Promise<boolean>): Promise<void> {
    await this.#holdBack(isThere, () => {});
  }

  /**
   * If what the store is kept in is not there any more, what this store has in memory is the last
   * copy: so until that is known nothing is done, as a write, or a look at what became of one,
   * would break the store, and what is asked waits.
   */
  async #holdBack(isThere: Promise<boolean>, goOn: () => void): Promise<void> {
    this.#heldBack ??= [];
    this.#looks++;
    const isThereNow = await isThere;
    this.#looks--;
    if (!isThereNow) this.lost();
    // Who looked too early may have found what was just about to go.
    if (this.#looks > 0) return;
    if (isThereNow && !this.#isLost) goOn();
    const heldBack = this.#heldBack ?? [];
    this.#heldBack = undefined;
    for (const run of heldBack) this.#work(run);
  }

  /** Lets go of the store, so that it can be opened anew. Its code may never have loaded. */
  close(): void {
    this.#works = false;
    if (this.#keep) store.close();
    const { port1, port2 } = this.#slices;
    // One end alone would keep its channel.
    for (const port of [...this.#owners, ...this.#tabs.values(), port1, port2]) port.close();
  }

  #tell(news: Ready | Unserved): void {
    this.#state = news;
    for (const owner of this.#owners) owner.postMessage(news);
  }

  #fail(kind: UnservedKind, reason: string): void {
    this.#works = false;
    const why = { type: 'failed', kind, reason } as const;
    this.#tell(why);
    if (kind === 'full' || kind === 'unavailable') this.#again(why);
  }

  /** Nothing is written into what was cleared: that it was would be told as a failure to write. */
  async #comeToRest(): Promise<void> {
    if (await this.#keep?.isThere()) this.#work(store.rest);
  }

  /** Serves, and does what is left to be done; see `Left` of crate `browser`. */
  #work(run: () => number): void {
    if (!this.#works) return;
    if (this.#heldBack) {
      this.#heldBack.push(run);
      return;
    }
    const [NOTHING, MORE] = [0, 1];
    let left = NOTHING;
    try {
      left = run();
    } catch (error) {
      console.error(error);
      this.#fail('unavailable', String(error));
    }
    clearTimeout(this.#rest);
    if (!this.#works) return;
    if (left === NOTHING && run !== store.rest) {
      this.#rest = setTimeout(() => this.#comeToRest(), REST_MS);
    } else if (left === MORE) this.#goOn();
  }

  #again(why?: Unserved): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#keep?.giveUp();
    this.#tellAgain(why);
  }

  /** It is opened anew for what says nothing of the disk: nobody need hear of that. */
  #break(): void {
    this.#works = false;
    this.#again();
  }

  #goOn(): void {
    if (this.#isSliceDue) return;
    this.#isSliceDue = true;
    this.#slices.port2.postMessage(null);
  }
}
