// Short messages at the edge of the page.

import { h } from './dom.ts';

/** News are only good to know; the others want to be read. */
const SHOWN_MS = { news: 5000, rejected: 9000, error: 9000 } as const;
const SHOWN_MAX = 4;

export interface Toast {
  kind: 'news' | 'rejected' | 'error';
  title: string;
  text?: string;
  action?: { label: string; run: () => void };
}

export class Toasts {
  readonly #box = h('div', { class: 'toasts', role: 'status', 'aria-live': 'polite' });

  constructor(parent: HTMLElement) {
    parent.append(this.#box);
  }

  show({ kind, title, text, action }: Toast): void {
    const toast = h(
      'div',
      { class: 'toast', 'data-testid': 'toast', 'data-kind': kind },
      h('div', { class: 'toast-text' }, h('strong', null, title), text ? h('p', null, text) : null),
      action &&
        h(
          'button',
          {
            class: 'plain',
            type: 'button',
            'data-testid': 'toast-action',
            onclick: () => {
              toast.remove();
              action.run();
            },
          },
          action.label,
        ),
      h(
        'button',
        { class: 'icon', type: 'button', 'aria-label': 'Dismiss', onclick: () => toast.remove() },
        '×',
      ),
    );
    this.#box.append(toast);
    while (this.#box.childElementCount > SHOWN_MAX) this.#box.firstElementChild?.remove();
    // What can be done about it can be done for as long as somebody takes to get there.
    if (!action) this.#expire(toast, SHOWN_MS[kind]);
  }

  /** Takes all messages away: they are about what is no longer on the page. */
  clear(): void {
    this.#box.replaceChildren();
  }

  /** A message under the pointer or the focus stays: it is being read. */
  #expire(toast: HTMLElement, afterMs: number): void {
    setTimeout(() => {
      if (toast.matches(':hover, :focus-within')) this.#expire(toast, afterMs);
      else toast.remove();
    }, afterMs);
  }
}
