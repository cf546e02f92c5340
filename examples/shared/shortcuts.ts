// Whether letters do something by themselves wherever one is on the page. Whoever dictates to the
// computer says letters that are meant for none of that, so there is a switch.

import { h, isTyping } from './dom.ts';

/** Kept for all examples of this origin. */
const KEPT_AS = 'single-keys';
const OFF = 'off';

/** The switch, and what it decides. */
export class Shortcuts {
  readonly #box = h('input', {
    type: 'checkbox',
    role: 'switch',
    'data-testid': 'single-keys',
    onchange: () => localStorage.setItem(KEPT_AS, this.#box.checked ? 'on' : OFF),
  });
  readonly element = h('label', { class: 'plain' }, this.#box, ' Single keys');

  /** `run` does what a key stands for, and says whether that is anything. */
  constructor(run: (key: string) => boolean) {
    this.#box.checked = localStorage.getItem(KEPT_AS) !== OFF;
    addEventListener('keydown', (event) => {
      if (!this.#box.checked || isTyping(event) || event.defaultPrevented) return;
      if (run(event.key)) event.preventDefault();
    });
  }
}
