/** A tab's calls to the core: batched, settled in time, and made again if the core dies. */

import { Reader, Writer } from './codec.js';
import { Engine, whatIsMissing } from './engine.js';
import { EngineError, type TidelogError } from './errors.js';
import { type Answer, type News, readFromCore, type ToCore, writeToCore } from './messages.js';
import type { Bytes, WorkerPlaces } from './ports.js';

/** Between two sweeps over the calls that wait. */
const SWEEP_MS = 500;

/** Sweeps after which a call is given up: just under ten seconds. */
const SWEEPS_MAX = 19;

/** Cores that may die over one call before it is taken for the cause. */
const DEATHS_MAX = 3;

/** Between two looks at the device. */
const DEVICE_MS = 30_000;

/** The kinds of messages that carry a `call`. */
export type CallKind = {
  [Kind in keyof ToCore]: ToCore[Kind] extends { readonly call: number } ? Kind : never;
}[keyof ToCore];

/** What a caller does with what comes. */
export interface Caller {
  /** Takes an answer, and says whether it was the last. */
  take(answer: Answer): boolean;
  /** There will be no further answer. */
  fail(error: TidelogError): void;
  /** Ten seconds have passed. Absent: fail. Present: the call stays, without a time limit. */
  late?(): void;
}

interface Call {
  readonly kind: CallKind;
  readonly message: ToCore[CallKind];
  readonly caller: Caller;
  /** Sweeps that it can still wait; infinite once only the server can settle it. */
  sweeps: number;
  /** Whether a core was asked already. */
  asked: boolean;
  /** Cores that died since the last answer. */
  deaths: number;
  /** The LSN at which a mutation is durable; 0 before that. */
  durable: number;
}

/** A document that is open in this tab. */
export interface OpenDocument {
  /** What opened it. */
  readonly message: Omit<ToCore['open'], 'call'>;
  /** Takes news of it. */
  news(news: News): void;
  /** A new core could not open it. */
  lost(error: TidelogError): void;
  /** A new core has been asked to open it: says what else it should know. */
  remind(): void;
}

/** The calls and documents of one tab. */
export class Connection {
  readonly #engine: Engine;
  readonly #calls = new Map<number, Call>();
  readonly #documents = new Map<number, OpenDocument>();
  /** Documents that the present core was asked to open again, by the number of that call. */
  readonly #reopening = new Map<number, OpenDocument>();
  readonly #outbox = new Writer();
  #count = 0;
  #lastCall = 0;
  #lastHandle = 0;
  #sweeper: ReturnType<typeof setInterval> | undefined;
  #watchesDevice = false;
  /** The newest call's name in the journal: eight random bytes and a counter. */
  readonly #callId = crypto.getRandomValues(new Uint8Array(16));

  constructor(urls: WorkerPlaces) {
    this.#engine = new Engine(urls, {
      begin: () => this.#begin(),
      died: () => {
        for (const call of this.#calls.values()) if (call.asked) call.deaths++;
      },
      receive: (bytes) => this.#receive(bytes),
      failed: (error, final) => this.#failed(error, final),
    });
  }

  /** A number for a document that is about to be opened. */
  nextHandle(): number {
    return ++this.#lastHandle;
  }

  /** A new name for a mutation. */
  nextCallId(): Uint8Array {
    const id = this.#callId;
    for (let at = 15; at > 7 && ++id[at] > 255; at--);
    return id.slice();
  }

  /** Makes a call. Without `limited` it waits for as long as it takes. Returns its number. */
  call<Kind extends CallKind>(
    kind: Kind,
    message: Omit<ToCore[Kind], 'call'>,
    caller: Caller,
    limited = true,
  ): number {
    const number = ++this.#lastCall;
    const missing = this.#engine.ready ? undefined : whatIsMissing();
    if (missing) {
      caller.fail(missing);
      return number;
    }
    const whole = { ...message, call: number } as ToCore[Kind];
    const sweeps = limited ? SWEEPS_MAX : Number.POSITIVE_INFINITY;
    const call: Call = {
      kind,
      message: whole,
      caller,
      sweeps,
      asked: false,
      deaths: 0,
      durable: 0,
    };
    this.#calls.set(number, call);
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS);
    this.#engine.start();
    if (this.#engine.ready) this.#make(call);
    return number;
  }

  /** Waits for no further answer to this call. */
  forget(call: number): void {
    this.#calls.delete(call);
  }

  /** Says something that is not answered. It is lost if there is no core: see `remind`. */
  tell<Kind extends keyof ToCore>(kind: Kind, message: ToCore[Kind]): void {
    if (!this.#engine.ready) return;
    if (this.#count++ === 0) {
      this.#outbox.u64(0);
      queueMicrotask(() => this.#flush());
    }
    writeToCore(this.#outbox, kind, message);
  }

  /** A document is open: its news go there from now on. */
  attach(document: OpenDocument): void {
    this.#documents.set(document.message.handle, document);
    if (!this.#watchesDevice) {
      this.#watchesDevice = true;
      setInterval(() => void this.#lookAtDevice(), DEVICE_MS);
      void this.#lookAtDevice();
    }
  }

  /** A document is closed: nothing is expected of it any more. */
  detach(handle: number, error: TidelogError): void {
    this.#documents.delete(handle);
    for (const [number, { message, caller }] of this.#calls) {
      if ('handle' in message && message.handle === handle) {
        this.#calls.delete(number);
        caller.fail(error);
      }
    }
  }

  #make(call: Call): void {
    const again = call.asked ? call.durable : undefined;
    call.asked = true;
    this.tell(call.kind, { ...call.message, again });
  }

  #flush(): void {
    if (this.#count === 0) return;
    const bytes = this.#outbox.take();
    new DataView(bytes.buffer).setUint32(0, this.#count, true);
    this.#count = 0;
    this.#engine.send(bytes);
  }

  #begin(): void {
    this.#outbox.take();
    this.#count = 0;
    this.#reopening.clear();
    for (const document of this.#documents.values()) {
      const call = ++this.#lastCall;
      this.#reopening.set(call, document);
      this.tell('open', { ...document.message, call });
      document.remind();
    }
    for (const [number, call] of this.#calls) {
      if (call.deaths < DEATHS_MAX) this.#make(call);
      else {
        this.#calls.delete(number);
        call.caller.fail(new EngineError('the engine died each time it was asked this'));
      }
    }
    void this.#lookAtDevice();
  }

  #receive(bytes: Bytes): void {
    readFromCore(new Reader(bytes), this);
  }

  /** @internal */
  answer(number: number, answer: Answer): void {
    const call = this.#calls.get(number);
    if (call) {
      call.sweeps = Number.POSITIVE_INFINITY;
      call.deaths = 0;
      if (answer.type === 'durable') call.durable = answer.lsn;
      if (call.caller.take(answer)) this.#calls.delete(number);
    } else if (answer.type === 'opened') {
      this.#reopening.get(number)?.news({ type: 'status', status: answer.status });
    } else if (answer.type === 'failed') {
      this.#reopening.get(number)?.lost(answer.error);
    }
  }

  /** @internal */
  news(handle: number, news: News): void {
    this.#documents.get(handle)?.news(news);
  }

  #failed(error: EngineError, final: boolean): void {
    for (const document of this.#documents.values()) document.lost(error);
    if (!final) return;
    for (const [number, { caller }] of this.#calls) {
      this.#calls.delete(number);
      caller.fail(error);
    }
  }

  #sweep(): void {
    let waiting = false;
    for (const [number, call] of this.#calls) {
      if (--call.sweeps > 0) {
        waiting ||= call.sweeps < Number.POSITIVE_INFINITY;
        continue;
      }
      call.sweeps = Number.POSITIVE_INFINITY;
      if (call.caller.late) call.caller.late();
      else {
        this.#calls.delete(number);
        call.caller.fail(new EngineError('the engine gave no answer within 10 seconds'));
      }
    }
    if (!waiting) {
      clearInterval(this.#sweeper);
      this.#sweeper = undefined;
    }
  }

  async #lookAtDevice(): Promise<void> {
    if (this.#documents.size === 0) return;
    const { storage } = navigator;
    // Chromium decides by itself; elsewhere asking for it shows the user a question.
    const isQuiet = 'userAgentData' in navigator;
    const [persisted, { usage = 0, quota = 0 }] = await Promise.all([
      isQuiet ? storage.persist() : storage.persisted(),
      storage.estimate(),
    ]);
    this.tell('device', { persisted, usage, quota });
  }
}
