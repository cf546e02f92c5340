/**
 * What a tab decides, as a state machine like the core: inputs in, effects out.
 *
 * It knows no promise, clock, port, lock or worker: `connection.ts` brings the inputs and carries
 * the effects out. So the simulator runs this very code. What can be said of one call stands in
 * `call.ts`, of one document in `document.ts`; when a core is sought and given up in
 * `core-link.ts`, and when a page server is lent in `lending.ts`.
 */

import {
  asTold,
  type Call,
  type Doomed,
  isAmong,
  isLasting,
  isOnItsWay,
  isPassing,
  late,
  newCall,
  tryLater,
  waitsOn,
} from './call.js';
import { CoreLink } from './core-link.js';
import { type Document, isToldNow, newDocument, note, remember } from './document.js';
import { DocumentClosedError, EngineError, type TidelogError } from './errors.js';
import { Hearing } from './hearing.js';
import { Lending, type LendingInput } from './lending.js';
import type { Answer, ToCore } from './messages.js';
import type { DocumentName } from './ports.js';
import type { CallKind, Effect, Input } from './step.js';
import { NEVER, pause } from './time.js';

/** Milliseconds after which a call is given up: just under ten seconds. */
const CALL_MS = 9_500;

/** The same while the engine's files may still be on their way to this tab. */
const DOWNLOAD_MS = 60_000;

/**
 * The same once a server takes in the local document that is opened, from one word of that to the
 * next: the core gives it up after a minute, and shall be the one that says so.
 */
const HAND_OVER_MS = 65_000;

/** A timer that comes so late tells that the tab was suspended: answers may wait in its queue. */
const SUSPENDED_MS = 2_000;

/** How long such answers may take to get through. */
const SPARED_MS = 1_000;

/** Cores that may die over one call before it is taken for the cause. */
const DEATHS_MAX = 3;

/** How long a core that dies of a call lives on with it at most. */
const CAUSE_MS = 60_000;

/** After that a core that dies does not die of what the last one died of, whatever it names. */
const LAPSE_MS = 10 * CAUSE_MS;

/** How long a document is opened by itself, so that it is known of what a core dies. */
const ALONE_MS = 2_000;

/** After that a document is tried again that cores died of: by then nobody else is suspected. */
const SHUT_MS = 2 * CAUSE_MS;

/** Why a call is given up of which nothing was heard. */
const LATE = 'the engine gave no answer in time';

/** Why a tab has no engine while another release has the store. */
export const REPLACED = 'another release of the app is at work in another tab: load this page anew';

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
  /** Whether some tab's page server is at work. */
  #hasServer = false;
  /** Whether nothing that the engine needs is still being downloaded. */
  #isDownloaded = false;
  /** When the core died, until that is counted. */
  #diedAt: number | undefined;
  /** Of what the core said that it died. */
  #culprit: DocumentName | undefined;
  readonly #link = new CoreLink((effect) => this.#emit(effect));
  readonly #lending = new Lending();
  readonly #hearing = new Hearing();
  /** Whether the core wants to know that this tab hears: whoever handles commands has to. */
  #isAwaited = false;

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
    if (!('core' in input) || input.core === this.#link.core) this.#take(input);
    this.#wakeAt(this.#link.dueAt);
    if (this.#now >= this.#alarm) this.#tick();
    const out = this.#out;
    this.#out = [];
    return out;
  }

  #take(input: Input): void {
    const link = this.#link;
    switch (input.type) {
      case 'call':
        this.#call(input.kind, input.message, input.limited);
        break;
      case 'giveUp':
        this.#giveUpCall(input.call);
        break;
      case 'tell':
        this.#tell(input.kind, input.message);
        break;
      case 'connected':
        if (link.connected(this.#now, input.place)) this.#greet();
        break;
      case 'refused':
        // Once the core has answered, whatever it throws is its own affair.
        if (link.stage !== 'works') this.#tryAnother(link.refused(input.reason, input.joining));
        break;
      case 'replaced':
        this.#giveUp(REPLACED);
        break;
      case 'welcome':
        link.welcomed(this.#now, input.lock);
        this.#lookAtDownload();
        break;
      case 'elsewhere':
        this.#tryAnother(link.elsewhere());
        break;
      case 'died':
        this.#culprit = input.culprit;
        // One that has worked leaves its lock, by which we notice; another one starts with us.
        if (link.stage === 'works') this.#tellLost(new EngineError(input.reason));
        else this.#giveUp(input.reason);
        break;
      case 'gone':
        if (link.stage === 'works' && link.isConnected) {
          link.lost(this.#now);
          this.#diedAt = this.#now;
        }
        break;
      case 'reach':
        this.#hasServer = true;
        this.#lookAtDownload();
        this.#emit({ type: 'reach', server: input.server });
        break;
      case 'lendAgain':
        this.#lend({ type: 'wanted' });
        break;
      case 'lendNow':
        this.#lend({ type: 'missed' });
        break;
      case 'answer':
        this.#answer(input.call, input.answer);
        break;
      case 'news':
        this.#news(input);
        break;
      case 'heard': {
        const lists = this.#hearing.heard(input.size, this.#isAwaited);
        this.#isAwaited = false;
        if (lists > 0) this.#post('heard', { lists });
        break;
      }
      case 'online':
        this.#nudge();
        break;
      case 'visible':
        this.#tryShutSoon();
        this.#nudge();
        this.#reopenShut();
        break;
      case 'hide':
        this.#leave();
        this.#lend({ type: 'stop' });
        link.hide();
        this.#emit({ type: 'letGo' });
        break;
      case 'show':
        this.#tryShutSoon();
        this.#giveTime();
        link.show(this.#now);
        if (link.stage === 'connecting') this.#lend({ type: 'expected' });
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
    const until = limited && kind !== 'watch' ? this.#now + limit : NEVER;
    const call = newCall(kind, message, until);
    this.#calls.set(message.call, call);
    this.#wakeAt(until);
    // What waits to be closed until it is open again is not opened behind its deletion.
    if (kind === 'destroy') {
      for (const document of this.#named(message as Doomed)) this.#closeIfShut(document);
    }
    // Who asks anew shall not wait for a pause to end.
    if (this.#link.stage === 'off') this.#seek();
    else if (!call.sent && this.#canAsk(call)) this.#ask(message.call, call);
    const document = this.#documentOf(call);
    if (document && kind === 'close') this.#closeIfShut(document);
  }

  #giveUpCall(number: number): void {
    const call = this.#calls.get(number);
    if (!call) return;
    const document = this.#documentOf(call);
    this.#calls.delete(number);
    if (this.#link.isConnected) this.#post('giveUp', { call: number });
    if (document) this.#closeIfShut(document);
  }

  /** Whether the present core knows the document that this is about. */
  #canAsk(call: Call): boolean {
    if (!this.#link.isConnected || this.#isAlone()) return false;
    // What was asked of a document that is being opened again, closing it too, comes first. One
    // that is handed over meanwhile, which takes long, is opened beside that.
    if (call.kind === 'destroy') return this.#reopened(call.message as Doomed).length === 0;
    if (call.kind === 'open') {
      const open = call.message as ToCore['open'];
      const isBeside = this.#reopened(open).every((it) => it.isHandingOver);
      return isBeside && !this.#isDeletedBefore(open);
    }
    return (this.#documentOf(call)?.state ?? 'open') === 'open';
  }

  /** Whether a document is to be deleted before it is opened: who opens it would keep it. */
  #isDeletedBefore(open: ToCore['open']): boolean {
    for (const [number, { kind, message }] of this.#calls) {
      if (number >= open.call) return false;
      if (kind === 'destroy' && isAmong(message as Doomed, open)) return true;
    }
    return false;
  }

  /** The handles of a document, or of all of a user's, that are being opened again. */
  #reopened(names: Doomed): Document[] {
    return this.#named(names).filter(({ state }) => state === 'opening');
  }

  /** The handles of a document, or of all of a user's. */
  #named(names: Doomed): Document[] {
    return [...this.#documents.values()].filter(({ open }) => isAmong(names, open));
  }

  #documentOf({ message }: Call): Document | undefined {
    return 'handle' in message ? this.#documents.get(message.handle) : undefined;
  }

  #ask(number: number, call: Call): void {
    if (call.deaths >= DEATHS_MAX) {
      this.#fail(number, call, new EngineError('the engine died each time it was asked this'));
      return;
    }
    // It was to delete what there was: whoever was away for long may find what others made since.
    // What has come meanwhile is taken in before anything is found to be late.
    if (call.kind === 'destroy' && (call.spared || call.until <= this.#now)) {
      this.#fail(number, call, new EngineError(LATE));
      return;
    }
    const document = this.#documentOf(call);
    if (call.cores++ === 0) call.memo = document?.memo;
    const { durable, memo } = call;
    // Calls of one tab are recorded in their order.
    const earlier = document?.durable;
    const since = [memo?.head, earlier && earlier.call < number ? earlier.entry : undefined];
    const again = call.cores > 1 ? { durable, copy: memo?.copy, since } : undefined;
    call.sent = true;
    call.sentAt = this.#now;
    call.againAt = NEVER;
    this.#post(call.kind, { ...call.message, again });
  }

  /**
   * A core died: perhaps of a document that it was opening; where there is none, of a call that it
   * was handed. Of what was asked long ago it did not, and only of the one document that it named,
   * which other tabs may have opened. Counted when it is left: it names that with its last words.
   *
   * One that it named is counted once it is open too. It has one death more then, and where it has
   * opened well between two of them: the call that is the cause is given up before, in whichever
   * tab it was made. It has no more than that, since an app may ask the same again and again.
   */
  #countDeath(diedAt: number): void {
    const isRecent = (at: number): boolean => diedAt - at < CAUSE_MS;
    const documents = [...this.#documents.values()].filter(({ open }) => this.#isSuspect(open));
    const opening = documents.filter((it) => it.state === 'opening' && isRecent(it.askedAt));
    if (opening.length === 0) this.#blameCalls(isRecent);
    const named = documents.filter(({ state }) => state === 'open' || state === 'opening');
    for (const document of this.#culprit ? named : opening) {
      document.diedAt = diedAt;
      document.deaths++;
      if (this.#culprit) document.named++;
      const hasOpened = document.state === 'open' || document.opensWell;
      document.isDeadly = document.deaths >= (hasOpened ? DEATHS_MAX + 1 : DEATHS_MAX);
    }
  }

  /** Counts a core's death for the calls that it was handed. */
  #blameCalls(isRecent: (at: number) => boolean): void {
    for (const call of this.#calls.values()) {
      if (!call.sent) continue;
      if (!isRecent(call.sentAt)) call.deaths = 0;
      else if (this.#isSuspect(this.#documentOf(call)?.open ?? call.message)) call.deaths++;
    }
  }

  /**
   * A core that lived so long with a document does not die of what others before it died of, nor
   * does one so long after them: where pages are looked at for seconds none lives long with it.
   */
  #forgive(leftAt: number): void {
    for (const document of this.#documents.values()) {
      const hasLived = document.state === 'open' && leftAt - document.askedAt >= CAUSE_MS;
      if (!hasLived && leftAt - document.diedAt < LAPSE_MS) continue;
      document.deaths = 0;
      document.named = 0;
      document.opensWell = false;
    }
  }

  /** Whether the core may have died of this document, or of a call that opens or destroys it. */
  #isSuspect(it: object): boolean {
    return !this.#culprit || isAmong(it as Partial<Doomed>, this.#culprit);
  }

  /** In the order in which they were made, once their documents are open; or those of one kind. */
  #askHeldBack(kind?: keyof ToCore): void {
    if (this.#link.isConnected) this.#reopenWaiting();
    for (const [number, call] of this.#calls) {
      const isMeant = !call.sent && (kind ?? call.kind) === call.kind;
      if (isMeant && this.#canAsk(call)) this.#ask(number, call);
    }
  }

  #answer(number: number, answer: Answer): void {
    const call = this.#calls.get(number);
    if (!call) this.#answerToReopening(number, answer);
    else if (answer.type === 'handingOver') this.#getsOn(call);
    else if (answer.type !== 'failed') this.#succeed(number, call, answer);
    else if (isLasting(call) || (waitsOn(call) && isPassing(answer.error))) {
      call.deaths = 0;
      tryLater(call, answer.error, this.#now);
      this.#wakeAt(call.againAt);
      if (isLasting(call)) this.#settle(number, answer, false);
    } else this.#fail(number, call, answer.error, true);
    if (call?.kind === 'destroy') this.#askHeldBack('open');
  }

  /** It takes as long as the line to the server needs. */
  #getsOn(call: Call): void {
    call.until = this.#now + HAND_OVER_MS;
    this.#wakeAt(call.until);
  }

  #succeed(number: number, call: Call, answer: Answer): void {
    const isLast = !(answer.type === 'durable' || (isLasting(call) && answer.type === 'rows'));
    this.#isAwaited ||= call.kind === 'handle';
    if (!isLast) {
      call.until = NEVER;
      call.deaths = 0;
      // One that handles is told at first that there is nothing: that says nothing of what comes.
      if (call.kind !== 'handle' || answer.type !== 'rows' || answer.rows.count > 0) call.tries = 0;
      if (answer.type === 'durable') {
        const { entry } = answer;
        call.durable = entry;
        const document = this.#documentOf(call);
        if (document) document.durable = { call: number, entry };
      }
    }
    if (answer.type === 'opened') {
      const open = call.message as ToCore['open'];
      this.#documents.set(open.handle, newDocument(open, call.sentAt, answer));
    }
    if (call.kind === 'close') this.#closed(number, (call.message as ToCore['close']).handle);
    else this.#settle(number, answer, isLast);
  }

  #settle(number: number, answer: Answer, last: boolean): void {
    const call = this.#calls.get(number);
    if (last) this.#calls.delete(number);
    this.#emit({ type: 'settle', call: number, answer, last });
    const document = call && this.#documentOf(call);
    // Of a local document the verdict comes right behind.
    const isAwaited = !last && answer.type === 'durable' && document?.isLocal;
    const { closing } = document ?? {};
    if (!closing || isAwaited || !closing.awaits.delete(number)) return;
    if (closing.awaits.size === 0) this.#endClose(closing.call, document!.open.handle);
  }

  /** There is no further answer. */
  #fail(number: number, call: Call, error: TidelogError, isAnswer = false): void {
    this.#settle(number, { type: 'failed', error: asTold(call, error, isAnswer) }, true);
    if (!isAnswer) this.#letGo(number, call);
    if (call.kind === 'close') this.#drop((call.message as ToCore['close']).handle);
  }

  /**
   * Where the core has the document open, or may open it yet, it is for nobody. Nothing is deleted
   * any more that was not when its caller was told so: what comes then is to stay.
   */
  #letGo(number: number, { kind, sent, message }: Call): void {
    if (!this.#link.isConnected) return;
    const { handle } = message as { handle: number };
    const isLeft = kind === 'open' ? sent : kind === 'close' && !sent;
    if (isLeft) this.#post('close', { call: this.newCall(), handle });
    if (kind === 'destroy' && sent) this.#post('giveUp', { call: number });
  }

  /** Ten seconds have passed. */
  #expire(number: number, call: Call): void {
    const document = this.#documentOf(call);
    // What could not be opened again, or is not opened for now, is closed as well.
    const isClosed = document?.closing || document?.tries || document?.state === 'shut';
    if (call.kind === 'mutate') {
      call.until = NEVER;
      this.#settle(number, { type: 'failed', error: late(call) }, false);
    } else if (call.kind === 'close' && isClosed) {
      this.#letGo(number, call);
      this.#endClose(number, (call.message as ToCore['close']).handle);
    } else {
      this.#fail(number, call, document?.error ?? new EngineError(LATE));
    }
  }

  // --- documents -----------------------------------------------------------------------------

  #tell(kind: keyof ToCore, message: object): void {
    const { handle } = message as { handle?: number };
    if (kind === 'device') this.#device = message;
    const document = this.#documents.get(handle!);
    const told = document ? remember(document, kind, message) : message;
    const isNow = handle === undefined || isToldNow(document, kind);
    if (isNow && this.#link.isConnected) this.#post(kind, told);
  }

  #news(input: Extract<Input, { type: 'news' }>): void {
    const { handle, news } = input;
    const document = this.#documents.get(handle);
    if (document && news.type === 'status') note(document, news);
    // The token alone is wanted before that.
    if (document || news.type === 'tokenWanted') this.#emit({ type: 'news', handle, news });
  }

  /**
   * All at once. Where a core has died while it opened some, one after another: which of them the
   * next one dies of is known then, and no call is taken for the cause.
   */
  #reopenWaiting(): void {
    const documents = [...this.#documents.values()];
    const isSuspect = ({ state, deaths }: Document): boolean =>
      deaths > 0 && /waiting|opening/.test(state);
    for (const document of documents) {
      if (document.state !== 'waiting' || this.#isAlone()) continue;
      this.#reopen(document, documents.some(isSuspect) ? this.#now + ALONE_MS : 0);
    }
  }

  /**
   * Whether a document is opened while nothing else is asked. Its time is over only once what waits
   * has been asked, before what comes as the timer is late.
   */
  #isAlone(): boolean {
    for (const { aloneUntil } of this.#documents.values()) if (aloneUntil > 0) return true;
    return false;
  }

  #reopen(document: Document, aloneUntil: number): void {
    document.state = 'opening';
    document.isHandingOver = false;
    document.askedAt = this.#now;
    document.aloneUntil = aloneUntil;
    if (aloneUntil > 0) this.#wakeAt(aloneUntil);
    document.againAt = NEVER;
    document.call = this.newCall();
    const word = this.#isClosing(document.open.handle) ? 0 : document.memo.word;
    this.#post('open', { ...document.open, call: document.call, word });
  }

  #answerToReopening(number: number, answer: Answer): void {
    for (const [handle, document] of this.#documents) {
      if (document.state !== 'opening' || document.call !== number) continue;
      document.deaths = document.named;
      const wasAlone = document.aloneUntil > 0;
      document.aloneUntil = 0;
      document.isHandingOver = answer.type === 'handingOver';
      if (answer.type === 'failed') {
        this.#shut(document, answer.error, pause(document.tries++));
      } else if (answer.type === 'opened') {
        document.state = 'open';
        document.opensWell = document.named > 0;
        document.error = undefined;
        document.tries = 0;
        note(document, answer);
        this.#emit({ type: 'news', handle, news: { ...answer, type: 'status' } });
        if (document.listens) this.#post('listenRejections', { handle });
        if (document.presence) this.#post('presence', document.presence);
      }
      // Also as it begins to be handed over, which takes long: nothing asked later comes before.
      if (wasAlone || !document.isHandingOver) this.#askHeldBack();
      else this.#askHeldBack('open');
    }
  }

  /** It cannot be opened again: it is tried after this time. */
  #shut(document: Document, error: TidelogError, pauseMs: number): void {
    document.state = 'shut';
    document.error = error;
    document.againAt = this.#now + pauseMs;
    this.#wakeAt(document.againAt);
    this.#emit({ type: 'lost', handle: document.open.handle, error });
    this.#tellWaiting(document, error);
    this.#closeIfShut(document);
  }

  /** Live queries show nothing new until the document is open again, which may be never. */
  #tellWaiting(document: Document, error: TidelogError): void {
    for (const [number, call] of this.#calls) {
      if (this.#documentOf(call) !== document) continue;
      if (call.kind === 'watch') this.#settle(number, { type: 'failed', error }, false);
      else if (call.kind === 'sync' && !isPassing(error)) this.#fail(number, call, error);
    }
  }

  /**
   * What could not be opened again is not, just to be closed: nobody holds it. Where it is to be
   * deleted nothing else is wanted of it either.
   */
  #closeIfShut({ state, open }: Document): void {
    if (state !== 'shut') return;
    const calls = [...this.#calls];
    const isOfIt = ([, { until, message }]: [number, Call]): boolean =>
      until < NEVER && (message as { handle?: number }).handle === open.handle;
    const deletesIt = ([, { kind, message }]: [number, Call]): boolean =>
      kind === 'destroy' && isAmong(message as Doomed, open);
    const own = calls.filter(isOfIt);
    const close = own.find(([, { kind }]) => kind === 'close');
    if (close && (own.length === 1 || calls.some(deletesIt))) {
      this.#endClose(close[0], open.handle);
    }
  }

  /** Whether the app wants nothing of a document any more, of the server neither. */
  #isClosing(handle: number): boolean {
    const calls = [...this.#calls.values()];
    return calls.some(
      ({ kind, message }) => kind === 'close' && (message as ToCore['close']).handle === handle,
    );
  }

  /** The core has closed a document: that is told once all that was issued is on the disk. */
  #closed(number: number, handle: number): void {
    const document = this.#documents.get(handle);
    const awaits = new Set<number>();
    for (const [issued, call] of this.#calls) {
      if (document && this.#documentOf(call) === document && isOnItsWay(call)) awaits.add(issued);
    }
    if (document) document.closing = { call: number, awaits };
    if (awaits.size === 0) this.#endClose(number, handle);
  }

  #endClose(number: number, handle: number): void {
    this.#settle(number, { type: 'done' }, true);
    this.#drop(handle);
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
    this.#askHeldBack();
  }

  #tellLost(error: TidelogError): void {
    for (const [handle, document] of this.#documents) {
      document.error = error;
      this.#emit({ type: 'lost', handle, error });
    }
  }

  // --- the core ------------------------------------------------------------------------------

  /** The core may be one that knows nothing: it is told everything that still matters. */
  #greet(): void {
    for (const call of this.#calls.values()) call.sent = false;
    this.#hearing.reset();
    if (this.#device) this.#post('device', this.#device);
    const deadly = this.#takeOver();
    this.#askHeldBack();
    const error = new EngineError('the engine died each time it had this document open');
    for (const document of deadly) this.#shut(document, error, SHUT_MS);
    this.#lend({ type: 'wanted' });
    this.#emit({ type: 'look' });
  }

  /** The core is to have open what an earlier one had. Gives the documents that it is spared. */
  #takeOver(): Document[] {
    const deadly: Document[] = [];
    for (const document of this.#documents.values()) {
      const { deaths, againAt, isDeadly } = document;
      document.closing = undefined;
      document.aloneUntil = 0;
      document.isDeadly = false;
      // One that was given up is tried again only when its time has come.
      const isDue = deaths < DEATHS_MAX || againAt <= this.#now || againAt === NEVER;
      if (isDeadly) deadly.push(document);
      else if (isDue) document.state = 'waiting';
    }
    for (const document of deadly) document.state = 'shut';
    return deadly;
  }

  /** Looks for another core, unless there is a reason to give up. */
  #tryAnother(why?: string): void {
    if (why !== undefined) {
      this.#giveUp(why);
      return;
    }
    this.#leave();
    this.#seek();
  }

  /** Looks for a core, and gets in line to lend it a page server, which may start meanwhile. */
  #seek(): void {
    this.#link.start(this.#now);
    this.#lend({ type: 'expected' });
  }

  #leave(): void {
    if (this.#link.stage === 'works') this.#forgive(this.#diedAt ?? this.#now);
    if (this.#diedAt !== undefined) this.#countDeath(this.#diedAt);
    this.#diedAt = undefined;
    this.#culprit = undefined;
    this.#link.leave();
    this.#lend({ type: 'unwanted' });
  }

  /** There is no core for us now. What has to last waits for the next one. */
  #giveUp(reason: string): void {
    this.#leave();
    // Another tab may have better luck with its core, which then needs somebody to lend.
    this.#lend({ type: 'stop' });
    const error = new EngineError(reason);
    for (const document of this.#documents.values()) document.state = 'shut';
    this.#tellLost(error);
    for (const [number, call] of this.#calls) {
      // What a sync waits for is the server, and not an engine that may never come.
      if (call.until < NEVER || call.kind === 'sync') this.#fail(number, call, error);
      else if (call.kind === 'watch') this.#settle(number, { type: 'failed', error }, false);
    }
    this.#link.giveUp(this.#now, this.#calls.size + this.#documents.size > 0);
  }

  /** Somebody looks: what is shut does not wait longer than for a core. */
  #tryShutSoon(): void {
    for (const document of this.#documents.values()) {
      if (document.state === 'shut') document.againAt = this.#now;
    }
  }

  /** Neither a tab without a core nor a server is waited for any longer. */
  #nudge(): void {
    if (this.#link.stage === 'off' && this.#link.dueAt < NEVER) this.#seek();
    if (this.#link.isConnected) this.#post('nudge', {});
  }

  #reopenShut(): void {
    if (!this.#link.isConnected) return;
    for (const document of this.#documents.values()) {
      if (document.state === 'shut') document.state = 'waiting';
    }
    this.#reopenWaiting();
  }

  /** The ten seconds of a call begin when nothing has to be downloaded any more. */
  #lookAtDownload(): void {
    if (this.#isDownloaded || this.#link.stage !== 'works') return;
    if (!this.#hasServer && !this.#lending.hasTried) return;
    this.#isDownloaded = true;
    for (const call of this.#calls.values()) {
      if (call.until === NEVER) continue;
      call.until = Math.min(call.until, this.#now + CALL_MS);
      this.#wakeAt(call.until);
    }
  }

  /** What was asked before the page was put aside is asked of the next core. */
  #giveTime(): void {
    for (const call of this.#calls.values()) {
      if (call.until === NEVER || call.kind === 'destroy') continue;
      call.until = Math.max(call.until, this.#now + CALL_MS);
      this.#wakeAt(call.until);
    }
  }

  #lend(input: LendingInput): void {
    this.#out.push(...this.#lending.step(this.#now, input));
    this.#wakeAt(this.#lending.dueAt);
    this.#lookAtDownload();
  }

  // --- time and effects ----------------------------------------------------------------------

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
    if (this.#link.dueAt <= now) {
      // One that comes at the second try is not missed.
      if (this.#link.tries > 1) this.#tellLost(new EngineError(LATE));
      this.#tryAnother();
    }
    this.#lend({ type: 'wake' });
    let isAloneOver = false;
    for (const document of this.#documents.values()) {
      if (document.againAt <= now) {
        document.againAt = NEVER;
        if (this.#link.isConnected) document.state = 'waiting';
      }
      if (document.aloneUntil > 0 && document.aloneUntil <= now) {
        document.aloneUntil = 0;
        isAloneOver = true;
      }
    }
    if (this.#link.isConnected) this.#reopenWaiting();
    if (isAloneOver) this.#askHeldBack();
    // A timer may come before the page is told that it is back.
    const isAside = this.#link.stage === 'hidden';
    let isDeletionLate = false;
    for (const [number, call] of this.#calls) {
      if (call.againAt <= now) {
        call.againAt = NEVER;
        if (this.#canAsk(call)) this.#ask(number, call);
      }
      if (call.until > now) this.#wakeAt(call.until);
      else if (isAside && call.kind !== 'destroy') continue;
      else if (wasSuspended && !call.spared) {
        call.spared = true;
        call.until = now + SPARED_MS;
      } else {
        isDeletionLate ||= call.kind === 'destroy';
        this.#expire(number, call);
      }
    }
    // What waited for it, and is not late itself.
    if (isDeletionLate) this.#askHeldBack('open');
    this.#wakeAtNext();
  }

  #wakeAtNext(): void {
    this.#wakeAt(Math.min(this.#link.dueAt, this.#lending.dueAt));
    for (const { againAt, aloneUntil } of this.#documents.values()) {
      this.#wakeAt(againAt);
      if (aloneUntil > this.#now) this.#wakeAt(aloneUntil);
    }
    for (const { againAt, until } of this.#calls.values()) {
      this.#wakeAt(againAt);
      if (until > this.#now) this.#wakeAt(until);
    }
  }

  #post(kind: keyof ToCore, message: object): void {
    this.#emit({ type: 'post', kind, message });
  }

  #emit(effect: Effect): void {
    this.#out.push(effect);
  }
}
