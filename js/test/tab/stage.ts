import type { Answer, EntryId, Memo, News, ToCore } from '../../src/messages.js';
import type { Status } from '../../src/status.js';
import type { CallKind, Effect, Input } from '../../src/step.js';
import { Tab } from '../../src/tab.js';

const STATUS = {} as Status;

export const COPY = new Uint8Array(16).fill(2);

/** What a core says of a document with this memo. */
export const standing = (memo: Partial<Memo>) => ({
  status: STATUS,
  memo: { word: 0, copy: COPY, head: undefined, ...memo },
});
export const opens = (memo: Partial<Memo> = {}): Answer => ({ type: 'opened', ...standing(memo) });
export const stands = (memo: Partial<Memo> = {}): News => ({ type: 'status', ...standing(memo) });

export const entry: EntryId = {
  journal: new Uint8Array(16),
  life: new Uint8Array(16).fill(1),
  lsn: 7,
};

/** A tab with a clock, and what it did. */
export class Stage {
  readonly tab = new Tab();
  now = 1000;
  alarm = Number.POSITIVE_INFINITY;
  core = 0;
  worker = 0;
  log: Effect[] = [];

  step(input: Input): Effect[] {
    const effects = [...this.tab.step(this.now, input)];
    for (const effect of effects) {
      if (effect.type === 'wake') this.alarm = effect.at;
      if (effect.type === 'connect') this.core = effect.core;
      if (effect.type === 'spawn') this.worker = effect.worker;
    }
    this.log.push(...effects);
    return effects;
  }

  /** Lets time pass, with a timer that comes when it was asked for. */
  pass(ms: number): Effect[] {
    const from = this.log.length;
    const until = this.now + ms;
    while (this.alarm <= until) {
      this.now = Math.max(this.now, this.alarm);
      this.alarm = Number.POSITIVE_INFINITY;
      this.step({ type: 'wake' });
    }
    this.now = until;
    return this.log.slice(from);
  }

  call<Kind extends CallKind>(kind: Kind, message: object, limited = true): number {
    const call = this.tab.newCall();
    const whole = { ...message, call } as ToCore[CallKind];
    this.step({ type: 'call', kind, message: whole, limited });
    return call;
  }

  answer(call: number, answer: Answer): Effect[] {
    return this.step({ type: 'answer', call, answer });
  }

  /** The core tells news of a document; `core` if it is not the present one. */
  news(input: { handle: number; news: News; core?: number }): Effect[] {
    return this.step({ type: 'news', core: this.core, ...input });
  }

  connect(): Effect[] {
    const place = this.of('connect').at(-1)?.place ?? 0;
    return this.step({ type: 'connected', core: this.core, place });
  }

  /** A core greets, and a page server is at hand. */
  work(): this {
    this.connect();
    this.step({ type: 'welcome', core: this.core, lock: `lock ${this.core}` });
    this.step({ type: 'reach', core: this.core, server: 1 });
    return this;
  }

  /** The core dies, and another one is there. */
  survive(): this {
    this.die();
    return this.work();
  }

  /** The page is put aside, and there is another core when it comes back. */
  comeBack(): this {
    this.step({ type: 'hide' });
    this.step({ type: 'show' });
    return this.work();
  }

  /** The core opens again this document, if it was asked to since `log` began. */
  reopens(handle: number): void {
    const open = this.posted('open')
      .reverse()
      .find((it) => it.handle === handle);
    if (open) this.answer(open.call as number, opens());
  }

  /** The core dies, and there is another one, however long that takes. */
  dieOfIt(): void {
    this.log = [];
    this.step({ type: 'gone', core: this.core });
    this.pass(8_100);
    this.work();
  }

  die(): void {
    this.step({ type: 'gone', core: this.core });
    this.pass(600);
  }

  /** A document is open. */
  open(): number {
    const handle = this.tab.newHandle();
    const call = this.call('open', { handle });
    if (this.posted('open').length === 0) this.work();
    this.answer(call, opens());
    return handle;
  }

  /** The core opens again what it was asked to. */
  reopen(memo?: Partial<Memo>): void {
    const [open] = this.posted('open').slice(-1);
    this.answer(open!.call as number, opens(memo));
  }

  of<Type extends Effect['type']>(type: Type): Extract<Effect, { type: Type }>[] {
    return this.log.filter((it) => it.type === type) as Extract<Effect, { type: Type }>[];
  }

  posted(kind: keyof ToCore): Record<string, unknown>[] {
    const posts = this.of('post').filter((it) => it.kind === kind);
    return posts.map(({ message }) => message as Record<string, unknown>);
  }

  /** The errors that a call was told, and whether each was the last word. */
  errors(call: number): { code: string; outcome: string; last: boolean }[] {
    return this.of('settle').flatMap((it) => {
      if (it.call !== call || !('error' in it.answer)) return [];
      const { code, outcome } = it.answer.error;
      return [{ code, outcome, last: it.last }];
    });
  }
}

export const opened = (): { stage: Stage; handle: number } => {
  const stage = new Stage();
  const handle = stage.open();
  return { stage, handle };
};

/** A document that has a name, so that it can be deleted by that. */
export const openedToDelete = (): { stage: Stage; handle: number } => {
  const stage = new Stage();
  const handle = stage.tab.newHandle();
  const open = stage.call('open', { handle, document: 'd', user: '' });
  stage.work().answer(open, opens());
  return { stage, handle };
};

/** Turns of a page server's worker up to the one in which it serves. */
export const serve = (stage: Stage): void => {
  stage.step({ type: 'turn' });
  stage.step({ type: 'loaded', worker: stage.worker });
  stage.step({ type: 'serves', worker: stage.worker });
};

export const types = (effects: readonly Effect[]): string[] => effects.map(({ type }) => type);

/** How a call ended, if it did. */
export const endOf = (stage: Stage, call: number): string | undefined =>
  stage.of('settle').find((it) => it.call === call && it.last)?.answer.type;

/** The documents that the core was asked to open. */
export const askedToOpen = (stage: Stage): unknown[] =>
  stage.posted('open').map(({ handle }) => handle);

/** What the last `open` says of the server. */
export const saidOf = (stage: Stage): number => stage.posted('open').at(-1)!.word as number;
