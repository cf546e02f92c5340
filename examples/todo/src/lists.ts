// The names of the lists that this device has opened, and the way from one to another.

import { addressWith } from '../../shared/address.ts';
import { h } from '../../shared/dom.ts';

const KEY = 'tidelog-example-todo.lists';
const FIRST = ['groceries', 'weekend', 'work'];

export class Lists {
  readonly element = h('nav', { class: 'lists', 'aria-label': 'Lists' });
  readonly #names = h('ul');
  readonly #field = h('input', {
    class: 'field',
    name: 'name',
    placeholder: 'New list…',
    maxlength: 60,
    autocomplete: 'off',
    'aria-label': 'Name of a new list',
    'data-testid': 'new-list',
  });
  readonly #onChoose: (name: string) => void;

  constructor(onChoose: (name: string) => void) {
    this.#onChoose = onChoose;
    const form = h('form', { onsubmit: (event) => this.#create(event) }, this.#field);
    this.element.append(h('h2', null, 'Lists'), this.#names, form);
  }

  /** Marks `current`, which is remembered from now on. */
  show(current: string): void {
    const names = [...new Set([...remembered(), current])];
    remember(names);
    this.#names.replaceChildren(...names.map((name) => this.#link(name, name === current)));
  }

  focusNew(): void {
    this.#field.focus();
  }

  #link(name: string, isCurrent: boolean): HTMLElement {
    const onclick = (event: Event) => {
      const { ctrlKey, metaKey, shiftKey } = event as MouseEvent;
      if (ctrlKey || metaKey || shiftKey) return;
      event.preventDefault();
      this.#onChoose(name);
    };
    const link = h('a', { href: addressWith('list', name), 'data-testid': 'list-link', onclick });
    link.textContent = name;
    if (isCurrent) link.setAttribute('aria-current', 'page');
    return h('li', null, link);
  }

  #create(event: Event): void {
    event.preventDefault();
    const name = this.#field.value.trim();
    if (!name) return;
    this.#field.value = '';
    this.#onChoose(name);
  }
}

/** Only a convenience of this device: without it the lists are still there, by their address. */
function remembered(): string[] {
  try {
    const names: unknown = JSON.parse(localStorage.getItem(KEY) ?? 'null');
    return Array.isArray(names) ? names.filter((name) => typeof name === 'string') : FIRST;
  } catch {
    return FIRST;
  }
}

function remember(names: string[]): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(names));
  } catch {
    // Full, or forbidden: see above.
  }
}
