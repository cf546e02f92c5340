/** A tab's way to the engine of its process: a thread with the core and the page server. */

import { clearTimeout, setImmediate, setTimeout } from 'node:timers';
import { Worker } from 'node:worker_threads';
import type { Bytes } from '../codec.js';
import { EngineError, StorageError, StorageFullError, TidelogError } from '../errors.js';
import { sizeOf } from '../hearing.js';
import { transferOf } from '../ports.js';
import type { Effect, Input } from '../step.js';
import type { CoreWay } from '../tab-host.js';
import type { EngineData, FromEngine, Refused, ToEngine } from './engine-messages.js';
import { type SocketClass, Sockets } from './sockets.js';

/** How long a thread may take to start: less than whoever waits for it has. */
const START_MS = 9_000;

/** How long a thread may take to let go of its folder before it is ended, at most. */
const END_MS = 2_000;

/**
 * Another process, or another thread of this one, has the folder.
 *
 * What to do: give each process a folder of its own, or close what is open there.
 *
 * Outcome: none.
 */
export class FolderInUseError extends TidelogError {
  override get code(): 'folder-in-use' {
    return 'folder-in-use';
  }
}

/** Why an engine does not start, as whoever wanted it is told. */
function errorOf({ kind, reason }: Refused, folder: string | undefined): TidelogError {
  switch (kind) {
    case 'in-use':
      return new FolderInUseError(
        `${folder} is in use by ${reason}: ` +
          'give each process a folder of its own, or close what is open there',
      );
    case 'full':
      return new StorageFullError(`there is no room at ${folder} (${reason}): make some`);
    case 'unavailable':
      return new StorageError(
        `${folder} cannot be used (${reason}): ` +
          'it has to be on a disk of this machine, and this process has to be let write there',
      );
    case 'engine':
      return new EngineError(reason);
  }
}

function startThread(folder: string | undefined, removes: boolean): Worker {
  const url = new URL('../worker/node/engine.js', import.meta.url);
  const workerData: EngineData = { folder, removes };
  // What this process was started with, as a loader or a debugger, is not for the engine.
  return new Worker(url, { workerData, execArgv: [], name: 'tidelog-engine' });
}

/** What of a message is handed over. */
const largeOf = (message: ToEngine): ArrayBuffer[] =>
  message instanceof Uint8Array ? transferOf(message) : [];

/** Removes the files of a store that nobody has open. */
export function removeStore(folder: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const thread = startThread(folder, true);
    let news: FromEngine | undefined;
    thread.on('message', (messages: FromEngine[]) => {
      news = messages.at(-1);
    });
    thread.on('error', (error) => reject(new EngineError(`the engine failed: ${error}`)));
    thread.on('exit', () => {
      if (news && 'type' in news && news.type === 'removed') resolve();
      else if (news && 'type' in news && news.type === 'refused') reject(errorOf(news, folder));
      else reject(new StorageError('the data could not be removed', { outcome: 'unknown' }));
    });
  });
}

/** The engine as seen from its tab, whichever instance of it is alive. */
export class NodeEngine implements CoreWay {
  readonly #folder: string | undefined;
  readonly #hear: (input: Input) => void;
  readonly #receive: (bytes: Bytes, core: number) => void;
  readonly #sockets = new Sockets((message) => this.#post(message));
  #core = 0;
  #thread: Worker | undefined;
  /** Resolves once the thread before has ended: its folder is free then. */
  #left: Promise<unknown> = Promise.resolve();
  #hasEnded = false;
  /** What the thread is told next. */
  #unsaid: ToEngine[] = [];
  /** Why the last one did not start. */
  refusal: TidelogError | undefined;

  /** `receive` takes lists of messages, and which core they are from. */
  constructor(
    folder: string | undefined,
    hear: (input: Input) => void,
    receive: (bytes: Bytes, core: number) => void,
  ) {
    this.#folder = folder;
    this.#hear = (input) => this.#hasEnded || hear(input);
    this.#receive = receive;
  }

  /** Connections are of this class from now on. */
  useSockets(socketClass: SocketClass): void {
    this.#sockets.socketClass = socketClass;
  }

  perform(effect: Effect): void {
    if (effect.type === 'connect') void this.#connect(effect.core, effect.place);
    else if (effect.type === 'leave') this.#leave();
  }

  async #connect(core: number, place: number): Promise<void> {
    this.#core = core;
    const late = setTimeout(() => {
      if (core !== this.#core) return;
      this.#leave();
      this.#refused(core, new EngineError('the engine does not start: its disk does not answer'));
    }, START_MS).unref();
    try {
      await this.#start(core, place);
    } finally {
      clearTimeout(late);
    }
  }

  /** Resolves once the thread works, or has ended. */
  async #start(core: number, place: number): Promise<void> {
    await this.#left;
    // Nobody waits for this one any more.
    if (core !== this.#core || this.#hasEnded) return;
    let thread: Worker;
    try {
      thread = startThread(this.#folder, false);
    } catch (error) {
      this.#refused(core, new EngineError(`the engine could not be started: ${error}`));
      return;
    }
    this.#thread = thread;
    // What is open keeps the process going, not its engine.
    thread.unref();
    await new Promise<void>((started) => this.#listen(thread, core, place, started));
  }

  #listen(thread: Worker, core: number, place: number, started: () => void): void {
    let why: TidelogError | undefined;
    let isReady = false;
    let hasSaidWhy = false;
    const take = (message: FromEngine): void => {
      if (thread !== this.#thread) return;
      if ('type' in message && message.type === 'refused') why = errorOf(message, this.#folder);
      else if ('type' in message && message.type === 'ready') {
        isReady = true;
        started();
        this.#works(core, place);
      } else {
        hasSaidWhy ||= 'type' in message && message.type === 'died';
        this.#take(core, message);
      }
    };
    thread.on('message', (messages: FromEngine[]) => messages.forEach(take));
    // What was in it is lost, and nobody says it again but another engine.
    thread.on('messageerror', () => thread === this.#thread && this.unsaid());
    thread.on('error', (error) => {
      why ??= new EngineError(`the engine failed: ${error}`);
    });
    thread.on('exit', () => {
      started();
      if (thread !== this.#thread) return;
      this.#thread = undefined;
      this.#sockets.closeAll();
      why ??= new EngineError('the engine has ended');
      if (isReady) {
        if (!hasSaidWhy) this.#hear({ type: 'died', core, reason: why.message });
        this.#hear({ type: 'gone', core });
      } else this.#refused(core, why);
    });
  }

  #refused(core: number, why: TidelogError): void {
    this.refusal = why;
    this.#hear({ type: 'refused', core, reason: why.message, joining: undefined });
  }

  #works(core: number, place: number): void {
    this.refusal = undefined;
    this.#hear({ type: 'connected', core, place });
    this.#hear({ type: 'welcome', core, lock: 'the thread' });
    // Also that all is loaded: so calls have their ten seconds from the beginning.
    this.#hear({ type: 'reach', core, server: 1 });
  }

  #take(core: number, message: Exclude<FromEngine, Refused>): void {
    if (message instanceof Uint8Array) {
      this.#receive(message, core);
      this.#hear({ type: 'heard', core, size: sizeOf(message) });
    } else if (message.type === 'died') {
      this.#hear({ ...message, core });
    } else if (message.type === 'openSocket') {
      this.#sockets.open(message.socket, message.url);
    } else if (message.type === 'toServer') {
      this.#sockets.send(message.socket, message.message);
    } else if (message.type === 'closeSocket') {
      this.#sockets.close(message.socket);
    }
  }

  send(make: () => Bytes): void {
    try {
      this.#post(make());
    } catch {
      this.unsaid();
    }
  }

  /** It goes to the thread with all else that happens in this turn of the event loop. */
  #post(message: ToEngine): void {
    if (this.#unsaid.push(message) === 1) setImmediate(() => this.#postAll());
  }

  #postAll(): void {
    const messages = this.#unsaid;
    this.#unsaid = [];
    try {
      this.#thread?.postMessage(messages, messages.flatMap(largeOf));
    } catch {
      this.unsaid();
    }
  }

  unsaid(): void {
    const core = this.#core;
    this.#hear({ type: 'died', core, reason: 'there was no room to ask the engine anything' });
    this.#hear({ type: 'gone', core });
  }

  #leave(): void {
    this.#core = 0;
    const thread = this.#thread;
    this.#thread = undefined;
    this.#unsaid = [];
    this.#sockets.closeAll();
    if (thread) this.#left = thread.terminate();
  }

  /**
   * Ends it for good. Resolves once another process can have the folder, and within so many
   * milliseconds: a disk that does not answer keeps the thread, whoever ends it.
   */
  async end(withinMs: number): Promise<void> {
    const until = performance.now() + withinMs;
    this.#hasEnded = true;
    this.#core = 0;
    const thread = this.#thread;
    this.#thread = undefined;
    if (thread) {
      const ended = new Promise((resolve) => thread.once('exit', resolve));
      const messages: ToEngine[] = [...this.#unsaid, { type: 'end' }];
      this.#unsaid = [];
      thread.postMessage(messages, messages.flatMap(largeOf));
      await Promise.race([ended, after(Math.min(withinMs / 2, END_MS))]);
      this.#left = thread.terminate();
    }
    this.#sockets.closeAll();
    await Promise.race([this.#left, after(until - performance.now())]);
  }
}

function after(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, Math.max(ms, 0)).unref();
  });
}
