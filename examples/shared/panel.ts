// A look under the surface: the timeline and the storage journal as they move, and what became of
// each mutation of this tab.

import { type Receipt, RejectedError, type Status } from 'tidelog';
import { count, fill, h } from './dom.ts';
import { JournalStrip, type Mark } from './journal-strip.ts';
import type { AnyDatabase } from './status.ts';

const HAPPENINGS_MAX = 60;

export class Panel {
  readonly #timeline = new JournalStrip('Timeline', 'timeline');
  readonly #storage = new JournalStrip('Storage journal', 'storage');
  readonly #facts = h('dl', { class: 'facts' });
  readonly #happenings = h('ol', { class: 'happenings', 'data-testid': 'happenings' });
  readonly #panel = h(
    'section',
    { class: 'panel', 'data-testid': 'panel', 'aria-label': 'Under the surface', hidden: true },
    h(
      'div',
      { class: 'panel-journals' },
      this.#timeline.element,
      this.#storage.element,
      this.#facts,
    ),
    h('div', { class: 'panel-log' }, h('h2', null, 'Mutations of this tab'), this.#happenings),
  );
  readonly #toggle = h(
    'button',
    {
      class: 'plain',
      type: 'button',
      'data-testid': 'panel-toggle',
      'aria-expanded': 'false',
      title: 'Show what happens under the surface (`)',
      onclick: () => this.toggle(),
    },
    'Journals',
  );
  #stop: (() => void) | null = null;
  #latest: Status | null = null;
  #frame = 0;

  constructor(bar: HTMLElement, page: HTMLElement) {
    bar.append(this.#toggle);
    page.append(this.#panel);
  }

  toggle(): void {
    this.#panel.hidden = !this.#panel.hidden;
    this.#toggle.setAttribute('aria-expanded', String(!this.#panel.hidden));
    document.body.classList.toggle('has-panel', !this.#panel.hidden);
    this.#renderSoon();
  }

  /** Follows `db`, or nothing while none is open. */
  show(db: AnyDatabase | null): void {
    this.#stop?.();
    const render = (status: Status | null) => {
      this.#latest = status;
      this.#renderSoon();
    };
    this.#stop = db?.on('status', render) ?? null;
    this.#happenings.replaceChildren();
    render(db?.status ?? null);
  }

  /** Tells what becomes of a mutation, stage by stage. */
  follow(mutation: string, receipt: Receipt): void {
    const began = performance.now();
    const stages = h('span', { class: 'stages' }, stage('visible', 'visible'));
    const line = h('li', null, h('code', null, mutation), stages);
    this.#happenings.prepend(line);
    while (this.#happenings.childElementCount > HAPPENINGS_MAX) {
      this.#happenings.lastElementChild?.remove();
    }
    const at = (lsn: number) => `${lsn}, ${milliseconds(performance.now() - began)}`;
    receipt.durable.then(
      ({ lsn }) => stages.append(stage('durable', `durable at ${at(lsn)}`)),
      // It was never recorded, or nobody knows: either way it is no longer just visible.
      () => stages.replaceChildren(),
    );
    receipt.confirmed.then(
      ({ lsn }) => stages.append(stage('confirmed', `confirmed at ${at(lsn)}`)),
      (error: Error) => stages.append(stage('rejected', reasonOf(error))),
    );
  }

  /** Status may come many times a frame, and nobody sees the ones between. */
  #renderSoon(): void {
    if (this.#frame || this.#panel.hidden) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#render(this.#latest);
    });
  }

  #render(status: Status | null): void {
    if (!status) return;
    const { start, acked, durable, head } = status.timeline;
    const timeline: Mark[] = [
      { name: 'decided', until: start },
      { name: 'acked', until: acked },
      { name: 'durable', until: durable },
      { name: 'visible', until: head },
    ];
    this.#timeline.show(timeline, head);
    // A document of this device only decides at once, and so has no timeline.
    this.#timeline.element.hidden = status.connection === 'local';
    const { durable: stored, visible } = status.journal;
    const storage: Mark[] = [
      { name: 'durable', until: stored },
      { name: 'visible', until: visible },
    ];
    this.#storage.show(storage, Math.max(stored, visible));
    const room = status.quota ? `${megabytes(status.usage)} of ${megabytes(status.quota)}` : '–';
    const settled = status.settling ? 'settling' : 'settled';
    fill(
      this.#facts,
      ...fact('Connection', status.connection),
      ...fact('Pending', count(status.pending, 'mutation')),
      ...fact('Confirmed at', String(status.confirmedLsn)),
      ...fact('Storage', `${status.storage}, ${settled}`),
      ...fact('Engine', status.engine),
      ...fact('Room', `${room}${status.persisted ? ', kept' : ''}`),
    );
  }
}

function stage(name: string, text: string): HTMLElement {
  return h('span', { class: 'stage', 'data-stage': name }, text);
}

function reasonOf(error: Error): string {
  return error instanceof RejectedError ? `rejected: ${error.reason}` : error.message;
}

function milliseconds(ms: number): string {
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

function fact(name: string, value: string): [HTMLElement, HTMLElement] {
  return [h('dt', null, name), h('dd', null, value)];
}

function megabytes(bytes: number): string {
  const mb = bytes / 1e6;
  return mb >= 10_000 ? `${Math.round(mb / 1000)} GB` : `${mb.toFixed(mb < 10 ? 1 : 0)} MB`;
}
