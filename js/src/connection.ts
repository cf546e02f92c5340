/** Carries out what {@link Tab} decides: messages, callers, documents and the clock of one tab. */

import { callBack, soon } from './call-back.js';
import { type Bytes, Reader, Writer } from './codec.js';
import { noRoomToSay, type TidelogError } from './errors.js';
import { type Answer, type News, readFromCore, type ToCore, writeToCore } from './messages.js';
import type { WorkerPlaces } from './ports.js';
import type { CallKind, Effect, Input } from './step.js';
import { Tab } from './tab.js';
import { BROWSER, type CoreWay, type TabHost } from './tab-host.js';

/** Between two looks at the device. */
const DEVICE_MS = 30_000;

/** A list of messages that is larger goes at once: all of its bytes are copied on their way. */
const LIST_SIZE_MAX = 1 << 20;

/** Takes the answers to a call, and whether this is the last. */
export type Caller = (answer: Answer, last: boolean) => void;

/** Gives the token for a server. */
export type GetToken = () => Promise<string> | string;

/** A document that is open in this tab. */
export interface OpenDocument {
  /** Takes news of it. */
  news(news: Exclude<News, { readonly type: 'tokenWanted' }>): void;
  /** Something is wrong with it. */
  lost(error: TidelogError): void;
}

/** The calls and documents of one tab. */
export class Connection {
  /** What it runs in. */
  readonly host: TabHost;
  readonly #tab = new Tab();
  readonly #engine: CoreWay;
  readonly #callers = new Map<number, Caller>();
  readonly #documents = new Map<number, OpenDocument>();
  /** By document, also before it is open. */
  readonly #getToken = new Map<number, GetToken | undefined>();
  /** What is still to be done: what an app does when it is called back comes after that. */
  readonly #due: Effect[] = [];
  #isBusy = false;
  /**
   * What is asked while the page is rendered ahead. Browsers answer nothing of locks there, for
   * minutes perhaps: so it is done, and its time begins, once somebody looks.
   */
  #ahead: Input[] | undefined;
  readonly #outbox = new Writer();
  #count = 0;
  /** Calls off the wake-up that the tab asked for last. */
  #callOff: (() => void) | undefined;
  /** Looks at the device again and again, while a document is open. */
  #looks: ReturnType<typeof setInterval> | undefined;

  constructor(places: WorkerPlaces, host: TabHost = BROWSER) {
    this.host = host;
    this.#engine = host.engine(
      places,
      (input) => this.#run(input),
      (bytes, core) => this.#receive(bytes, core),
    );
    if (host.isBrowser && typeof document !== 'undefined') this.#watchPage();
  }

  #watchPage(): void {
    if ('prerendering' in document && document.prerendering) {
      this.#ahead = [];
      document.addEventListener('prerenderingchange', () => this.#runAhead(), { once: true });
    }
    const hide = (): void => this.#run({ type: 'hide' });
    addEventListener('online', () => this.#run({ type: 'online' }));
    let isLeaving = false;
    // A page that holds a lock is not kept for the way back. After `pagehide` comes the other
    // event, so that apps can save something in both: it gets here behind an app's own listeners.
    // Only a page that is hidden already has none to come.
    addEventListener('pagehide', ({ persisted }) => {
      isLeaving = persisted;
      if (isLeaving && document.visibilityState === 'hidden') hide();
    });
    addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') this.#run({ type: 'visible' });
      else if (isLeaving) hide();
    });
    addEventListener('pageshow', ({ persisted }) => {
      isLeaving = false;
      if (persisted) this.#run({ type: 'show' });
    });
    // What a page lends is frozen with it, and other tabs would wait for it.
    document.addEventListener('freeze', hide);
    document.addEventListener('resume', () => this.#run({ type: 'show' }));
  }

  /** A number for a document that is about to be opened. */
  nextHandle(): number {
    return this.#tab.newHandle();
  }

  /** Makes a call. Without `limited` it waits for as long as it takes. Returns its number. */
  call<Kind extends CallKind>(
    kind: Kind,
    message: Omit<ToCore[Kind], 'call'>,
    caller: Caller,
    limited = true,
  ): number {
    const call = this.#tab.newCall();
    this.#callers.set(call, caller);
    const whole = { ...message, call } as ToCore[CallKind];
    this.#run({ type: 'call', kind, message: whole, limited });
    return call;
  }

  /** Ends a live query, or waits no longer for an answer. */
  giveUp(call: number): void {
    this.#callers.delete(call);
    this.#run({ type: 'giveUp', call });
  }

  /** Says something that is not answered. */
  tell<Kind extends keyof ToCore>(kind: Kind, message: ToCore[Kind]): void {
    this.#run({ type: 'tell', kind, message });
  }

  /** Opens a document, for whose server this gives the token. */
  open(
    message: Omit<ToCore['open'], 'call' | 'hasToken' | 'word'>,
    getToken: GetToken | undefined,
    caller: Caller,
  ): void {
    this.#getToken.set(message.handle, getToken);
    const hasToken = getToken !== undefined;
    this.call('open', { ...message, hasToken, word: 0 }, (answer, last) => {
      if (answer.type === 'failed') this.detach(message.handle);
      caller(answer, last);
    });
  }

  /** A document is open: its news go there from now on. */
  attach(handle: number, document: OpenDocument): void {
    this.#documents.set(handle, document);
    if (this.#looks !== undefined || !this.host.isBrowser) return;
    this.#looks = setInterval(() => void this.#lookAtDevice(), DEVICE_MS);
    void this.#lookAtDevice();
  }

  /** A document is closed. */
  detach(handle: number): void {
    this.#documents.delete(handle);
    this.#getToken.delete(handle);
    if (this.#documents.size > 0) return;
    clearInterval(this.#looks);
    this.#looks = undefined;
  }

  #runAhead(): void {
    const inputs = this.#ahead ?? [];
    this.#ahead = undefined;
    for (const input of inputs) this.#run(input);
  }

  #run(input: Input): void {
    if (this.#ahead) {
      this.#ahead.push(input);
      return;
    }
    // There may be more than a call can have arguments: one for each mutation without a verdict.
    for (const effect of this.#tab.step(this.host.uptime(), input)) this.#due.push(effect);
    if (this.#isBusy) return;
    this.#isBusy = true;
    // What is added meanwhile has its turn too.
    for (const effect of this.#due) callBack(() => this.#perform(effect));
    this.#due.length = 0;
    this.#isBusy = false;
  }

  #perform(effect: Effect): void {
    switch (effect.type) {
      case 'post':
        this.#post(effect.kind, effect.message as never);
        break;
      case 'settle': {
        const caller = this.#callers.get(effect.call);
        if (effect.last) this.#callers.delete(effect.call);
        caller?.(effect.answer, effect.last);
        break;
      }
      case 'news':
        if (effect.news.type !== 'tokenWanted') {
          this.#documents.get(effect.handle)?.news(effect.news);
        } else void this.#giveToken(effect.handle, effect.news.question);
        break;
      case 'lost':
        this.#documents.get(effect.handle)?.lost(effect.error);
        break;
      case 'look':
        void this.#lookAtDevice();
        break;
      case 'wake':
        this.#callOff?.();
        this.#callOff = this.host.wakeIn(effect.at - this.host.uptime(), () =>
          this.#run({ type: 'wake' }),
        );
        break;
      default:
        // What was said before goes on the port that it was said to.
        this.#flush();
        this.#engine.perform(effect);
        break;
    }
  }

  #post<Kind extends keyof ToCore>(kind: Kind, message: ToCore[Kind]): void {
    const before = this.#outbox.size;
    if (before === 0) this.#outbox.u64(0);
    try {
      writeToCore(this.#outbox, kind, message);
    } catch (error) {
      // With half a message in it nobody could read the list.
      this.#outbox.cut(before);
      this.#unsaid(kind, message, noRoomToSay(error));
      return;
    }
    if (this.#count++ === 0) soon(() => this.#flush());
    if (this.#outbox.size > LIST_SIZE_MAX) this.#flush();
  }

  /** Nobody else will answer. What has no answer is said to the core that is gone to then. */
  #unsaid(kind: keyof ToCore, message: ToCore[keyof ToCore], error: TidelogError): void {
    if (!('call' in message) || kind === 'giveUp') this.#engine.unsaid();
    else this.#run({ type: 'answer', call: message.call, answer: { type: 'failed', error } });
  }

  #flush(): void {
    const count = this.#count;
    if (count === 0) return;
    this.#count = 0;
    this.#engine.send(() => {
      const bytes = this.#outbox.take();
      new DataView(bytes.buffer).setUint32(0, count, true);
      return bytes;
    });
  }

  #receive(bytes: Bytes, core: number): void {
    readFromCore(new Reader(bytes), {
      answer: (call, answer) => this.#run({ type: 'answer', call, answer }),
      news: (handle, news) => this.#run({ type: 'news', core, handle, news }),
    });
  }

  /** Without one the core asks again, after a while. */
  async #giveToken(handle: number, question: number): Promise<void> {
    let token: string | null = null;
    try {
      const given = await this.#getToken.get(handle)?.();
      if (typeof given === 'string') token = given;
    } catch (error) {
      reportError(error);
    }
    this.tell('token', { question, token });
  }

  async #lookAtDevice(): Promise<void> {
    if (!this.host.isBrowser) return;
    const { storage } = navigator;
    // WebKit on Linux has no such thing.
    if (!storage) return;
    try {
      const [persisted, { usage = 0, quota = 0 }] = await Promise.all([
        isPersisted(),
        storage.estimate(),
      ]);
      this.tell('device', { persisted, usage, quota });
    } catch {
      // Some windows are told nothing: the status says 0 there.
    }
  }
}

let asked = false;

/**
 * Whether the browser promised to keep the data. Chromium decides by itself when it is asked, once
 * for each page; elsewhere asking shows the user a question.
 */
function isPersisted(): Promise<boolean> {
  const { storage } = navigator;
  if (asked || !('userAgentData' in navigator)) return storage.persisted();
  asked = true;
  return storage.persist();
}
