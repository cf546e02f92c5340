/**
 * Cores, their stores and a server in one WebAssembly module, and the tabs around it: each turn of
 * the event loop brings one of them one list of messages, as ports do.
 */

import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers';
import type { Bytes } from '../codec.js';
import { DocumentClosedError, EngineError, type TidelogError } from '../errors.js';
import { sizeOf } from '../hearing.js';
import type { Effect, Input } from '../step.js';
import type { CoreWay, TabHost } from '../tab-host.js';

/** Taken at once: a test may put another clock into its place. */
const nextTurn = setImmediate;

/** Turns after which who waits for rest is told that there is none: within a test's time. */
const TURNS_MAX = 20_000;

/** What is used of `world.js`, which is compiled from crate `world`. */
interface Module {
  initSync(from: { module: WebAssembly.Module }): unknown;
  readonly World: new (nowMs: number, seed: number) => Cores;
}

/** A world as crate `world` exports it. All times are milliseconds since the epoch. */
interface Cores {
  nowMs(): number;
  draw(): Uint8Array;
  addDevice(): number;
  connect(device: number): number;
  leave(tab: number): void;
  hear(tab: number, messages: Uint8Array): void;
  takeTold(): Bytes | undefined;
  setOnline(device: number, isOnline: boolean): void;
  delete(document: string): boolean;
  run(): void;
  nextAtMs(): number;
  pass(ms: number): void;
  free(): void;
}

let loading: Promise<Module> | undefined;

/** The module, which lies beside this package's own; all worlds share it. */
function load(): Promise<Module> {
  loading ??= (async () => {
    const folder = new URL('../world/', import.meta.url);
    const module: Module = await import(new URL('world.js', folder).href);
    const bytes = readFileSync(new URL('world_bg.wasm', folder));
    module.initSync({ module: new WebAssembly.Module(bytes) });
    return module;
  })();
  return loading;
}

/** A wake-up that a tab has asked for. */
interface Timer {
  readonly at: number;
  readonly wake: () => void;
}

/** Whoever waits until nothing is due. */
interface Waiting {
  /** The last turn that is waited for. */
  readonly turnsMax: number;
  resolve(): void;
  reject(failure: unknown): void;
}

/** Why nothing can be asked of a world any more. */
export function closedError(): DocumentClosedError {
  return new DocumentClosedError('this world was closed: make another one with world()');
}

/** Devices, their tabs and a server, with a clock that stands still until it is moved. */
export class Devices {
  readonly #cores: Cores;
  readonly #tabs = new Map<number, Port>();
  readonly #timers = new Set<Timer>();
  /** Who waits until nothing is due any more, whoever began first in front. */
  readonly #waiting: Waiting[] = [];
  /** Turns in which something was done. */
  #turns = 0;
  #isTurning = false;
  /** Why the module is asked nothing any more: it has died, or was let go of. */
  #failure: TidelogError | undefined;
  /** Milliseconds since the epoch. */
  now: number;
  /** Makes what those are told who wait too long for rest. */
  unsettled: (within: string) => EngineError = (within) => new EngineError(within);

  private constructor(cores: Cores) {
    this.#cores = cores;
    this.now = cores.nowMs();
  }

  /** An empty world at this time. The same seed draws the same. */
  static async start(now: number, seed: number): Promise<Devices> {
    const { World } = await load();
    return new Devices(new World(now, seed));
  }

  /** Whether it has died or ended. */
  get hasEnded(): boolean {
    return this.#failure !== undefined;
  }

  /** Makes a device. Returns its number. */
  add(): number {
    return this.#ask((cores) => cores.addDevice());
  }

  /** Cuts a device off from the server, or lets it go back, which its tabs hear. */
  setOnline(device: number, isOnline: boolean): void {
    this.#ask((cores) => cores.setOnline(device, isOnline));
    const ports = [...this.#tabs.values()].filter((port) => port.device === device);
    if (isOnline) for (const port of ports) port.hear({ type: 'online' });
    this.#stir();
  }

  /** Deletes a document on the server. Returns whether there was one. */
  delete(document: string): boolean {
    const wasThere = this.#ask((cores) => cores.delete(document));
    this.#stir();
    return wasThere;
  }

  /** Resolves once nothing is due at the present time. Rejects where it does not come to that. */
  idle(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure) throw this.#failure;
      this.#waiting.push({ turnsMax: this.#turns + TURNS_MAX, resolve, reject });
      this.#stir();
    });
  }

  /** When something is due next; infinite: never. */
  nextAt(): number {
    const times = [...this.#timers].map(({ at }) => at);
    return Math.min(
      this.#ask((cores) => cores.nextAtMs()),
      ...times,
    );
  }

  /** Moves the clock to this time and does all that is due until then. */
  async moveTo(time: number): Promise<void> {
    await this.idle();
    for (let next = this.nextAt(); next <= time; next = this.nextAt()) {
      this.#pass(next);
      await this.idle();
    }
    this.#pass(time);
    await this.idle();
  }

  #pass(time: number): void {
    this.#ask((cores) => cores.pass(Math.max(0, time - this.now)));
    this.now = this.#ask((cores) => cores.nowMs());
  }

  /** What a new tab of this device runs in. */
  host(device: number): TabHost & { readonly port: Port | undefined } {
    const draw: TabHost['draw'] = (bytes) => {
      // What is issued afterwards fails, and is given back with its arguments all the same.
      if (this.#failure) return crypto.getRandomValues(bytes);
      bytes.set(this.#ask((cores) => cores.draw()).subarray(0, bytes.length));
      return bytes;
    };
    let port: Port | undefined;
    return {
      isBrowser: false,
      get port() {
        return port;
      },
      engine: (_, hear, receive) => {
        port = new Port(device, hear, receive, {
          connect: (it) => this.#connect(it),
          send: (tab, bytes) => this.#send(tab, bytes),
          leave: (tab) => this.#leave(tab),
        });
        return port;
      },
      now: () => this.now,
      uptime: () => this.now,
      wakeIn: (ms, wake) => this.#wakeIn(ms, () => port?.hasLeft || wake()),
      // So that nobody takes the world for idle meanwhile.
      laterTurn: (next) => void this.#wakeIn(0, next),
      draw,
      uuid: () => uuidOf(draw(new Uint8Array(16))),
    };
  }

  /** The world ends, with all that is in it. */
  end(): void {
    if (this.#failure) return;
    this.#stop(closedError());
    this.#cores.free();
  }

  /** Asks the module something. It dies of what it throws. */
  #ask<T>(what: (cores: Cores) => T): T {
    if (this.#failure) throw this.#failure;
    try {
      return what(this.#cores);
    } catch (error) {
      throw this.#die(error);
    }
  }

  #die(error: unknown): TidelogError {
    return this.#stop(new EngineError(`the engine died: ${error}`));
  }

  /** Nothing more happens, and whoever waits for anything is told why. Returns that. */
  #stop(why: TidelogError): TidelogError {
    if (this.#failure) return this.#failure;
    this.#failure = why;
    this.#timers.clear();
    for (const { reject } of this.#waiting.splice(0)) reject(why);
    for (const port of this.#tabs.values()) port.lose();
    this.#tabs.clear();
    return why;
  }

  #connect(port: Port): number {
    const tab = this.#ask((cores) => cores.connect(port.device));
    this.#tabs.set(tab, port);
    return tab;
  }

  #send(tab: number, bytes: Bytes): void {
    try {
      this.#ask((cores) => cores.hear(tab, bytes));
      this.#stir();
    } catch {
      // Whoever has asked something was told.
    }
  }

  #leave(tab: number): void {
    this.#tabs.delete(tab);
    this.#ask((cores) => cores.leave(tab));
    this.#stir();
  }

  #wakeIn(ms: number, wake: () => void): () => void {
    const timer = { at: this.now + Math.max(0, ms), wake };
    this.#timers.add(timer);
    this.#stir();
    return () => this.#timers.delete(timer);
  }

  #stir(): void {
    if (this.#isTurning) return;
    this.#isTurning = true;
    nextTurn(() => {
      this.#isTurning = false;
      if (this.#failure) return;
      try {
        if (this.#doNext()) this.#goOn();
        else for (const { resolve } of this.#waiting.splice(0)) resolve();
      } catch (error) {
        this.#die(error);
      }
    });
  }

  /** Something was done, which may go on for ever. */
  #goOn(): void {
    this.#turns++;
    while (this.#waiting.length > 0 && this.#turns >= this.#waiting[0]!.turnsMax) {
      const within = `in ${TURNS_MAX} turns at one time of its clock`;
      this.#waiting.shift()!.reject(this.unsettled(within));
    }
    this.#stir();
  }

  /** Does one thing that is due now. Says whether there was any. */
  #doNext(): boolean {
    const told = this.#ask((cores) => {
      cores.run();
      return cores.takeTold();
    });
    if (told) {
      const tab = new DataView(told.buffer).getUint32(0, true);
      this.#tabs.get(tab)?.take(told.subarray(4));
      return true;
    }
    const { now } = this;
    for (const timer of this.#timers) {
      if (timer.at > now) continue;
      this.#timers.delete(timer);
      timer.wake();
      return true;
    }
    return false;
  }
}

/** What a port asks of its world. */
interface Around {
  /** Connects a tab to the core of its device. Returns its number. */
  connect(port: Port): number;
  send(tab: number, bytes: Bytes): void;
  leave(tab: number): void;
}

/**
 * A tab's way to the core of its device. There are no workers to find and to lend: each core has
 * its page server, and both are there.
 */
export class Port implements CoreWay {
  readonly device: number;
  /** Tells the tab what happens to it. */
  readonly hear: (input: Input) => void;
  readonly #receive: (bytes: Bytes, core: number) => void;
  readonly #around: Around;
  /** Whether the tab was closed: it hears nothing more. */
  hasLeft = false;
  /** Called once there is no world any more. */
  whenLost: () => void = () => {};
  /** The tab's number in the world; undefined before it has said hello. */
  #tab: number | undefined;
  #core = 0;

  constructor(
    device: number,
    hear: (input: Input) => void,
    receive: (bytes: Bytes, core: number) => void,
    around: Around,
  ) {
    this.device = device;
    this.hear = hear;
    this.#receive = receive;
    this.#around = around;
  }

  perform(effect: Effect): void {
    if (effect.type === 'connect') this.#connect(effect.core, effect.place);
    else if (effect.type === 'leave') this.#disconnect();
  }

  #connect(core: number, place: number): void {
    if (this.hasLeft) return;
    this.#core = core;
    try {
      this.#tab = this.#around.connect(this);
    } catch (error) {
      const { message: reason } = error as Error;
      this.hear({ type: 'refused', core, reason, joining: undefined });
      return;
    }
    this.hear({ type: 'connected', core, place });
    this.hear({ type: 'welcome', core, lock: `tidelog-core of device ${this.device}` });
    // Also that all is loaded: so calls have their ten seconds from the beginning.
    this.hear({ type: 'reach', core, server: 1 });
  }

  send(make: () => Bytes): void {
    const bytes = make();
    if (this.#tab !== undefined) this.#around.send(this.#tab, bytes);
  }

  unsaid(): void {
    throw new Error('there was no room to ask the engine anything');
  }

  /** The core says a list of messages. */
  take(bytes: Bytes): void {
    this.#receive(bytes, this.#core);
    this.hear({ type: 'heard', core: this.#core, size: sizeOf(bytes) });
  }

  /** The tab is closed. */
  leave(): void {
    this.hasLeft = true;
    this.#disconnect();
  }

  #disconnect(): void {
    const tab = this.#tab;
    this.#tab = undefined;
    if (tab !== undefined) this.#around.leave(tab);
  }

  /** There is no core any more: as it looks for another one, the tab is told why. */
  lose(): void {
    this.#tab = undefined;
    this.hear({ type: 'elsewhere', core: this.#core });
    this.whenLost();
  }
}

/** A UUID of version 4 of these random bytes. */
function uuidOf(bytes: Uint8Array): string {
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
