/**
 * What a tab decides, as a state machine like the core: inputs in, effects out.
 *
 * It knows no promise, clock, port, lock or worker: `connection.ts` brings the inputs and carries
 * the effects out. So the simulator runs this very code.
 *
 * ```text
 * off ──▶ connecting ──▶ greeting ──▶ works ──▶ off
 *            shell: finds or starts the core    its lock came free
 * ```
 */

import {
  DocumentClosedError,
  EngineError,
  NotDurableYetError,
  type TidelogError,
} from './errors.js';
import { Lending, type LendingEffect, type LendingInput, type LendingNews } from './lending.js';
import type { Answer, EntryId, Memo, News, ToCore } from './messages.js';
import { NEVER, pause } from './time.js';

/** Milliseconds after which a call is given up: just under ten seconds. */
const CALL_MS = 9_500;

/** The same while the engine's files may still be on their way to this tab. */
const DOWNLOAD_MS = 60_000;

/** A timer that comes so late tells that the tab was suspended: answers may wait in its queue. */
const SUSPENDED_MS = 2_000;

/** How long such answers may take to get through. */
const SPARED_MS = 1_000;

/** Cores that may die over one call before it is taken for the cause. */
const DEATHS_MAX = 3;

/** A core that says nothing for so long is asked again on a new port. */
const WELCOME_MS = 3_000;

/** The same where another core has just died: the port may have gone to that one. */
const WELCOME_ANEW_MS = 1_000;

/** What a core said last may still be on its way when its end is noticed. */
const LAST_WORDS_MS = 25;

/** Lists of messages and bytes from the core after which it is told that they were heard. */
const UNTOLD_LISTS_MAX = 16;
const UNTOLD_SIZE_MAX = 65_536;

/** Why a tab has no engine while another release has the store. */
export const REPLACED = 'another release of the app is at work in another tab: load this page anew';

/** The kinds of messages that carry a `call`. */
export type CallKind = {
  [Kind in keyof ToCore]: ToCore[Kind] extends { readonly call: number } ? Kind : never;
}[keyof ToCore];

/** Something that happened. `core` is the number of the effect that began it. */
export type Input =
  | LendingNews
  /** The app asks something. Only calls that are `limited` have to settle in ten seconds. */
  | {
      readonly type: 'call';
      readonly kind: CallKind;
      readonly message: ToCore[CallKind];
      readonly limited: boolean;
    }
  /** A live query was closed. */
  | { readonly type: 'unwatch'; readonly call: number }
  /** Something that is not answered. */
  | { readonly type: 'tell'; readonly kind: keyof ToCore; readonly message: object }
  /** A core was told hello. */
  | { readonly type: 'connected'; readonly core: number }
  /** No core can be reached, or not the one at the address that was found. */
  | {
      readonly type: 'refused';
      readonly core: number;
      readonly reason: string;
      readonly joining: string | undefined;
    }
  /** The core works, and holds this lock for as long as it lives. */
  | { readonly type: 'welcome'; readonly core: number; readonly lock: string }
  /** Another core is at work; a core of another release takes over. */
  | { readonly type: 'elsewhere' | 'replaced'; readonly core: number }
  /** The core cannot go on. */
  | { readonly type: 'died'; readonly core: number; readonly reason: string }
  /** The core's lock came free. */
  | { readonly type: 'gone'; readonly core: number }
  /** The core wants its page server to have a way to us. */
  | { readonly type: 'reach'; readonly core: number; readonly server: number }
  /** An answer to a call, from the core, or from the page server past it. */
  | { readonly type: 'answer'; readonly call: number; readonly answer: Answer }
  /** News of a document. */
  | { readonly type: 'news'; readonly handle: number; readonly news: News }
  /** All of a list of messages from the core was heard, so many bytes. */
  | { readonly type: 'heard'; readonly core: number; readonly size: number }
  /** The tab is looked at again, or there is a network again. */
  | { readonly type: 'nudge' }
  /** The page goes into the back/forward cache, where it can hold nothing; comes back from it. */
  | { readonly type: 'hide' | 'show' }
  /** The time has come that `wake` asked for; harmless at any other. */
  | { readonly type: 'wake' };

/** Something to be done. */
export type Effect =
  | LendingEffect
  /**
   * Find a core, unless it is the one that cannot be joined, or start one; then say hello, with the
   * tab's lock held: `connected` or `refused`.
   */
  | { readonly type: 'connect'; readonly core: number; readonly unjoinable: string | undefined }
  /** Nothing more is expected of this core. */
  | { readonly type: 'leave'; readonly core: number }
  /** `gone` once this lock comes free. */
  | { readonly type: 'watchLock'; readonly core: number; readonly lock: string }
  /** Tell the core. What is said in one turn of the event loop may travel together. */
  | { readonly type: 'post'; readonly kind: keyof ToCore; readonly message: object }
  /** Give this page server a way to us. */
  | { readonly type: 'reach'; readonly server: number }
  /** Let go of the tab's lock. */
  | { readonly type: 'letGo' }
  /** Tell the caller; it is forgotten if this is the `last` word. */
  | {
      readonly type: 'settle';
      readonly call: number;
      readonly answer: Answer;
      readonly last: boolean;
    }
  /** Tell the document. */
  | { readonly type: 'news'; readonly handle: number; readonly news: News }
  /** Tell the document what is wrong. */
  | { readonly type: 'lost'; readonly handle: number; readonly error: TidelogError }
  /** Say how the device stands, by telling `device`. */
  | { readonly type: 'look' }
  /** `wake` at this time on the clock of `step`, instead of any earlier wish. */
  | { readonly type: 'wake'; readonly at: number };

/** A call that has not had its last answer. */
interface Call {
  readonly kind: CallKind;
  readonly message: ToCore[CallKind];
  /** When it is given up; infinite once only the server can settle it. */
  until: number;
  /** Whether it was spared once, since the tab was suspended. */
  spared: boolean;
  /** Cores that were handed it. */
  cores: number;
  /** Whether the present core was. */
  sent: boolean;
  /** Cores that died since the last answer. */
  deaths: number;
  /** As what a mutation is durable. */
  durable: EntryId | undefined;
  /** The copy that was on the disk when the first core was handed it. */
  copy: Uint8Array | undefined;
  /** When a live query that failed for a passing reason is tried again, and how often it was. */
  againAt: number;
  tries: number;
}

/** A document that is open in this tab. */
interface Document {
  readonly open: Omit<ToCore['open'], 'call'>;
  /** Whether the present core has it open. Calls are held back until it has. */
  state: 'open' | 'opening' | 'shut';
  /** The call by which the present core was asked to open it again. */
  call: number;
  /** Why it could not. */
  error: TidelogError | undefined;
  againAt: number;
  tries: number;
  /** What the next core is told. */
  memo: Memo;
  listens: boolean;
}

/** Whether what failed so can be had later, by asking again. */
const isPassing = ({ code }: TidelogError): boolean =>
  /^(storage|engine|document-closed)/.test(code);

/** The decisions of one tab. */
export class Tab {
  #now = 0;
  #out: Effect[] = [];
  /** When `wake` is due. */
  #alarm: number = NEVER;
  #lastCall = 0;
  #lastHandle = 0;
  readonly #calls = new Map<number, Call>();
  readonly #documents = new Map<number, Document>();
  #device: object | undefined;

  #stage: 'off' | 'connecting' | 'greeting' | 'works' | 'hidden' = 'off';
  /** The core that is, or was last, our own; each try has a number of its own. */
  #core = 0;
  /** A core that this tab could not join, and perhaps as what. */
  #unjoinable: string | undefined;
  /** When the engine is tried anew: after a silence, a death or a refusal. */
  #againAt: number = NEVER;
  /** Tries that were refused, and cores that died soon, one after another. */
  #refusals = 0;
  #deaths = 0;
  #welcomedAt = 0;
  /** Whether some tab's page server is at work. */
  #hasServer = false;
  /** Whether nothing that the engine needs is still being downloaded. */
  #isDownloaded = false;

  /** Lists of the core, and their bytes, of which it was not yet told that they were heard. */
  #untoldLists = 0;
  #untoldSize = 0;

  readonly #lending = new Lending();

  /** A number for a call. */
  newCall(): number {
    return ++this.#lastCall;
  }

  /** A number for a document that is about to be opened. */
  newHandle(): number {
    return ++this.#lastHandle;
  }

  /** Takes what happened at `now`, milliseconds on a clock that never goes back. */
  step(now: number, input: Input): readonly Effect[] {
    this.#now = Math.max(this.#now, now);
    // A core that is no longer ours has nothing to say, but for answers.
    if (!('core' in input) || input.core === this.#core) this.#take(input);
    if (this.#now >= this.#alarm) this.#tick();
    const out = this.#out;
    this.#out = [];
    return out;
  }

  #take(input: Input): void {
    switch (input.type) {
      case 'call':
        this.#call(input.kind, input.message, input.limited);
        break;
      case 'unwatch':
        if (this.#calls.delete(input.call) && this.#isConnected()) {
          this.#post('unwatch', { call: input.call });
        }
        break;
      case 'tell':
        this.#tell(input.kind, input.message);
        break;
      case 'connected':
        this.#connected();
        break;
      case 'refused':
        // Once the core has answered, whatever it throws is its own affair.
        if (this.#stage === 'works') break;
        // Whatever is wrong with that one, ours may do: its address may be of an older deployment.
        this.#unjoinable = input.joining;
        if (input.joining) this.#restart();
        else this.#giveUp(input.reason);
        break;
      case 'replaced':
        this.#giveUp(REPLACED);
        break;
      case 'welcome':
        if (this.#stage === 'greeting') this.#welcomed(input.lock);
        break;
      case 'elsewhere':
        if (this.#unjoinable) this.#giveUp(`the core at ${this.#unjoinable} cannot be joined`);
        else this.#restart();
        break;
      case 'died':
        // One that has worked leaves its lock, by which we notice; another one starts with us.
        if (this.#stage !== 'works') this.#giveUp(input.reason);
        else this.#tellLost(new EngineError(input.reason));
        break;
      case 'gone':
        this.#coreIsGone();
        break;
      case 'reach':
        this.#hasServer = true;
        this.#lookAtDownload();
        this.#emit({ type: 'reach', server: input.server });
        break;
      case 'answer':
        this.#answer(input.call, input.answer);
        break;
      case 'news':
        this.#news(input);
        break;
      case 'heard':
        this.#heard(input.size);
        break;
      case 'nudge':
        this.#nudge();
        break;
      case 'hide':
        this.#leave();
        this.#lend({ type: 'stop' });
        this.#stage = 'hidden';
        // What comes late of this core is of no use any more.
        this.#core++;
        this.#emit({ type: 'letGo' });
        break;
      case 'show':
        if (this.#stage !== 'hidden') return;
        this.#stage = 'off';
        this.#start();
        break;
      case 'wake':
        // Timers may come early by a little.
        if (this.#now < this.#alarm && this.#alarm < NEVER) {
          this.#emit({ type: 'wake', at: this.#alarm });
        }
        break;
      default:
        this.#lend(input);
        break;
    }
  }

  // --- calls ---------------------------------------------------------------------------------

  #call(kind: CallKind, message: ToCore[CallKind], limited: boolean): void {
    const limit = this.#isDownloaded ? CALL_MS : DOWNLOAD_MS;
    const call: Call = {
      kind,
      message,
      until: limited && kind !== 'watch' ? this.#now + limit : NEVER,
      spared: false,
      cores: 0,
      sent: false,
      deaths: 0,
      durable: undefined,
      copy: undefined,
      againAt: NEVER,
      tries: 0,
    };
    this.#calls.set(message.call, call);
    this.#wakeAt(call.until);
    // Who asks anew shall not wait for a pause to end.
    if (this.#stage === 'off') this.#start();
    else if (this.#canAsk(call)) this.#ask(message.call, call);
  }

  /** Whether the present core knows the document that this is about. */
  #canAsk(call: Call): boolean {
    return this.#isConnected() && (this.#documentOf(call)?.state ?? 'open') === 'open';
  }

  #documentOf({ message }: Call): Document | undefined {
    return 'handle' in message ? this.#documents.get(message.handle) : undefined;
  }

  #isConnected(): boolean {
    return this.#stage === 'greeting' || this.#stage === 'works';
  }

  #ask(number: number, call: Call): void {
    if (call.deaths >= DEATHS_MAX) {
      this.#fail(number, call, new EngineError('the engine died each time it was asked this'));
      return;
    }
    if (call.cores === 0) call.copy = this.#documentOf(call)?.memo.copy;
    const { durable, copy } = call;
    const again = call.cores > 0 ? { durable, copy } : undefined;
    call.cores++;
    call.sent = true;
    call.againAt = NEVER;
    this.#post(call.kind, { ...call.message, again });
  }

  #tell(kind: keyof ToCore, message: object): void {
    const { handle, connected } = message as { handle?: number; connected?: boolean };
    if (kind === 'device') this.#device = message;
    const document = this.#documents.get(handle!);
    if (document && connected !== undefined) {
      const next = document.memo.word + 1;
      const word = (next % 2 === 0) === connected ? next : next + 1;
      document.memo = { ...document.memo, word };
    }
    if (document && kind === 'listenRejections') document.listens = true;
    // A core that hands a local document over wants the token before it is open.
    const isOfUse = kind === 'token' || handle === undefined;
    // What is not said now is said when the document is open again, or need not be.
    const isEarly = document?.state === 'opening' && kind !== 'setConnected';
    const isThere = document && document.state !== 'shut' && !isEarly;
    if ((isOfUse || isThere) && this.#isConnected()) this.#post(kind, message);
  }

  #answer(number: number, answer: Answer): void {
    const call = this.#calls.get(number);
    if (!call) this.#answerToReopening(number, answer);
    else if (answer.type !== 'failed') this.#succeed(number, call, answer);
    else if (call.kind !== 'watch') this.#fail(number, call, answer.error, true);
    else {
      if (isPassing(answer.error)) {
        call.sent = false;
        call.againAt = this.#now + pause(call.tries++);
        this.#wakeAt(call.againAt);
      }
      this.#settle(number, answer, false);
    }
  }

  #succeed(number: number, call: Call, answer: Answer): void {
    const isLast = !(
      answer.type === 'durable' ||
      (call.kind === 'watch' && answer.type === 'rows')
    );
    if (!isLast) {
      call.until = NEVER;
      call.deaths = 0;
      call.tries = 0;
      if (answer.type === 'durable') call.durable = answer.entry;
    }
    if (answer.type === 'opened') this.#opened(call.message as ToCore['open'], answer.memo);
    this.#settle(number, answer, isLast);
    if (call.kind === 'close') this.#drop((call.message as ToCore['close']).handle);
  }

  #settle(number: number, answer: Answer, last: boolean): void {
    if (last) this.#calls.delete(number);
    this.#emit({ type: 'settle', call: number, answer, last });
  }

  /**
   * There is no further answer. Whoever asked must not ask anew while something may still come of
   * it: `none` is said where no core was handed the call, or where one core has had it and says so.
   */
  #fail(number: number, call: Call, error: TidelogError, isAnswer = false): void {
    const { kind, message } = call;
    const isKnown = isAnswer && (call.cores < 2 || !isPassing(error));
    const mayBeDone = (kind === 'mutate' || kind === 'destroy') && call.cores > 0 && !isKnown;
    const told = mayBeDone ? asUnknown(error) : error;
    this.#settle(number, { type: 'failed', error: told }, true);
    const { handle } = message as { handle: number };
    // The core may open it yet, for nobody.
    if (kind === 'open' && !isAnswer && call.sent && this.#isConnected()) {
      this.#post('close', { call: this.newCall(), handle });
    }
    if (kind === 'close') this.#drop(handle);
  }

  /** A document is closed: nothing is expected of it any more. */
  #drop(handle: number): void {
    this.#documents.delete(handle);
    const error = new DocumentClosedError('the document was closed', { outcome: 'unknown' });
    for (const [number, { message }] of this.#calls) {
      if ('handle' in message && message.handle === handle) {
        this.#settle(number, { type: 'failed', error }, true);
      }
    }
  }

  /** Ten seconds have passed. */
  #expire(number: number, call: Call): void {
    const { kind, message } = call;
    if (kind === 'mutate') {
      call.until = NEVER;
      const { name } = message as ToCore['mutate'];
      const error = new NotDurableYetError(
        `${name} is not on disk after 10 seconds; it may still become so`,
        { outcome: 'unknown' },
      );
      this.#settle(number, { type: 'failed', error }, false);
    } else {
      const why = this.#documentOf(call)?.error;
      this.#fail(number, call, why ?? new EngineError('the engine gave no answer in time'));
    }
  }

  // --- documents -----------------------------------------------------------------------------

  #opened(open: ToCore['open'], memo: Memo): void {
    this.#documents.set(open.handle, {
      open,
      state: 'open',
      call: 0,
      error: undefined,
      againAt: NEVER,
      tries: 0,
      memo,
      listens: false,
    });
  }

  #news(input: Extract<Input, { type: 'news' }>): void {
    const { handle, news } = input;
    const document = this.#documents.get(handle);
    if (document && news.type === 'status') this.#note(document, news.memo);
    // The token alone is wanted before that.
    if (document || news.type === 'tokenWanted') this.#emit(input);
  }

  /** Of the server holds what was said last, here or in another tab. */
  #note(document: Document, { word, copy }: Memo): void {
    document.memo = { word: Math.max(word, document.memo.word), copy };
  }

  #reopen(document: Document): void {
    document.state = 'opening';
    document.againAt = NEVER;
    document.call = this.newCall();
    const word = this.#isClosing(document.open.handle) ? 0 : document.memo.word;
    this.#post('open', { ...document.open, call: document.call, word });
  }

  #answerToReopening(number: number, answer: Answer): void {
    for (const [handle, document] of this.#documents) {
      if (document.state !== 'opening' || document.call !== number) continue;
      if (answer.type === 'failed') {
        document.state = 'shut';
        document.error = answer.error;
        document.againAt = this.#now + pause(document.tries++);
        this.#wakeAt(document.againAt);
        this.#emit({ type: 'lost', handle, error: answer.error });
      } else if (answer.type === 'opened') {
        document.state = 'open';
        document.error = undefined;
        document.tries = 0;
        this.#note(document, answer.memo);
        this.#emit({ type: 'news', handle, news: { ...answer, type: 'status' } });
        if (document.listens) this.#post('listenRejections', { handle });
        this.#askHeldBack();
      }
    }
  }

  /** Whether the app wants nothing of a document any more, of the server neither. */
  #isClosing(handle: number): boolean {
    const calls = [...this.#calls.values()];
    return calls.some(
      ({ kind, message }) => kind === 'close' && (message as ToCore['close']).handle === handle,
    );
  }

  /** In the order in which they were made. */
  #askHeldBack(): void {
    for (const [number, call] of this.#calls) {
      if (!call.sent && this.#canAsk(call)) this.#ask(number, call);
    }
  }

  #tellLost(error: TidelogError): void {
    for (const [handle, document] of this.#documents) {
      document.error = error;
      this.#emit({ type: 'lost', handle, error });
    }
  }

  // --- the core ------------------------------------------------------------------------------

  #start(): void {
    this.#stage = 'connecting';
    this.#againAt = NEVER;
    this.#emit({ type: 'connect', core: ++this.#core, unjoinable: this.#unjoinable });
  }

  #connected(): void {
    if (this.#stage !== 'connecting') return;
    this.#stage = 'greeting';
    this.#tryAgainAt(this.#now + (this.#deaths > 0 ? WELCOME_ANEW_MS : WELCOME_MS));
    // It may be one that knows nothing: it is told everything that still matters.
    for (const call of this.#calls.values()) call.sent = false;
    this.#untoldLists = 0;
    this.#untoldSize = 0;
    if (this.#device) this.#post('device', this.#device);
    for (const document of this.#documents.values()) this.#reopen(document);
    this.#askHeldBack();
    this.#lend({ type: 'wanted' });
    this.#emit({ type: 'look' });
  }

  #welcomed(lock: string): void {
    this.#stage = 'works';
    this.#againAt = NEVER;
    this.#unjoinable = undefined;
    this.#refusals = 0;
    this.#welcomedAt = this.#now;
    this.#emit({ type: 'watchLock', core: this.#core, lock });
    this.#lookAtDownload();
  }

  #coreIsGone(): void {
    if (this.#stage !== 'works') return;
    if (this.#now - this.#welcomedAt > CALL_MS) this.#deaths = 0;
    for (const call of this.#calls.values()) if (call.sent) call.deaths++;
    const pauseMs = this.#deaths > 0 ? pause(this.#deaths - 1) : 0;
    this.#deaths++;
    this.#tryAgainAt(this.#now + LAST_WORDS_MS + pauseMs);
  }

  #restart(): void {
    this.#leave();
    this.#start();
  }

  #leave(): void {
    if (this.#stage !== 'off') this.#emit({ type: 'leave', core: this.#core });
    this.#stage = 'off';
    this.#againAt = NEVER;
    this.#lend({ type: 'unwanted' });
  }

  /** There is no core for us now. What has to last waits for the next one. */
  #giveUp(reason: string): void {
    this.#leave();
    this.#unjoinable = undefined;
    // Another tab may have better luck with its core, which then needs somebody to lend.
    this.#lend({ type: 'stop' });
    const error = new EngineError(reason);
    for (const document of this.#documents.values()) document.state = 'shut';
    this.#tellLost(error);
    for (const [number, call] of this.#calls) {
      if (call.until < NEVER) this.#fail(number, call, error);
      else if (call.kind === 'watch') this.#settle(number, { type: 'failed', error }, false);
    }
    if (this.#calls.size + this.#documents.size > 0) {
      this.#tryAgainAt(this.#now + pause(this.#refusals++));
    }
  }

  #nudge(): void {
    if (this.#stage === 'off' && this.#againAt < NEVER) this.#start();
    if (!this.#isConnected()) return;
    this.#post('nudge', {});
    for (const document of this.#documents.values()) {
      if (document.state === 'shut') this.#reopen(document);
    }
  }

  /** The core holds back what nobody waits for until we have heard what it said before. */
  #heard(size: number): void {
    this.#untoldLists++;
    this.#untoldSize += size;
    if (this.#untoldLists < UNTOLD_LISTS_MAX && this.#untoldSize < UNTOLD_SIZE_MAX) return;
    this.#post('heard', { lists: this.#untoldLists });
    this.#untoldLists = 0;
    this.#untoldSize = 0;
  }

  /** The ten seconds of a call begin when nothing has to be downloaded any more. */
  #lookAtDownload(): void {
    if (this.#isDownloaded || this.#stage !== 'works') return;
    if (!this.#hasServer && !this.#lending.hasTried) return;
    this.#isDownloaded = true;
    for (const call of this.#calls.values()) {
      if (call.until === NEVER) continue;
      call.until = Math.min(call.until, this.#now + CALL_MS);
      this.#wakeAt(call.until);
    }
  }

  #lend(input: LendingInput): void {
    this.#out.push(...this.#lending.step(this.#now, input));
    this.#wakeAt(this.#lending.dueAt);
    this.#lookAtDownload();
  }

  // --- time ----------------------------------------------------------------------------------

  #tryAgainAt(at: number): void {
    this.#againAt = at;
    this.#wakeAt(at);
  }

  #wakeAt(at: number): void {
    if (at >= this.#alarm) return;
    this.#alarm = at;
    this.#emit({ type: 'wake', at });
  }

  /** Does what is due. Timers of a hidden tab come late, so only the clock is believed. */
  #tick(): void {
    const now = this.#now;
    const wasSuspended = now - this.#alarm > SUSPENDED_MS;
    this.#alarm = NEVER;
    if (this.#againAt <= now) this.#restart();
    this.#lend({ type: 'wake' });
    for (const document of this.#documents.values()) {
      if (document.againAt > now) continue;
      if (this.#isConnected()) this.#reopen(document);
      else document.againAt = NEVER;
    }
    for (const [number, call] of this.#calls) {
      if (call.againAt <= now) {
        call.againAt = NEVER;
        if (this.#canAsk(call)) this.#ask(number, call);
      }
      if (call.until > now) this.#wakeAt(call.until);
      else if (wasSuspended && !call.spared) {
        call.spared = true;
        call.until = now + SPARED_MS;
      } else this.#expire(number, call);
    }
    this.#wakeAtNext();
  }

  #wakeAtNext(): void {
    this.#wakeAt(Math.min(this.#againAt, this.#lending.dueAt));
    for (const { againAt } of this.#documents.values()) this.#wakeAt(againAt);
    for (const { againAt, until } of this.#calls.values()) this.#wakeAt(Math.min(againAt, until));
  }

  // --- effects -------------------------------------------------------------------------------

  #post(kind: keyof ToCore, message: object): void {
    this.#emit({ type: 'post', kind, message });
  }

  #emit(effect: Effect): void {
    this.#out.push(effect);
  }
}

/** The same, of a call of which something may still come. */
function asUnknown(error: TidelogError): TidelogError {
  const Class = error.constructor as new (message: string, details: object) => TidelogError;
  return new Class(error.message, { ...error, outcome: 'unknown' });
}
