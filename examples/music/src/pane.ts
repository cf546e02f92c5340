// A column of rows that can be chosen, renamed, removed and added to. Up and down move between
// rows, F2 renames (Enter does too where a row leads nowhere), Delete removes.

import { h, KeyedList, keepingFocus, type RowView } from '../../shared/dom.ts';
import { editInline } from '../../shared/inline-edit.ts';

export interface PaneRow {
  id: number;
  name: string;
}

export interface PaneOptions<Row extends PaneRow> {
  title: string;
  /** Names the pane in tests: `albums`; a row is an `album`. */
  testId: string;
  /** The pane before this one, where only one has room; see `leadBack`. */
  before?: string;
  /** What the pane says while nothing is chosen that its rows could belong to. */
  hint?: string;
  /** What an empty pane says. */
  empty: string;
  /** Where a row leads; absent where it leads nowhere. */
  link?(row: Row): string;
  /** What stands below the name, and at the end of the row. */
  note?(row: Row): string;
  tail?(row: Row): HTMLElement;
  rename(row: Row, name: string): void;
  remove(row: Row): void;
  /** The form below the rows; absent where rows are not added. */
  addForm?: HTMLElement;
}

export class Pane<Row extends PaneRow> {
  readonly #options: PaneOptions<Row>;
  readonly #back: HTMLAnchorElement | null;
  readonly #count = h('span', { class: 'count' });
  readonly #list: HTMLElement;
  readonly #empty = h('p', { class: 'nothing' });
  readonly #rows: KeyedList<Row>;
  readonly #rowOf = new WeakMap<Element, Row>();
  #chosen: number | null = null;
  readonly element: HTMLElement;

  constructor(options: PaneOptions<Row>) {
    this.#options = options;
    const { title, testId, before } = options;
    this.#back = before ? h('a', { class: 'back' }, `‹ ${before}`) : null;
    this.#list = h('ul', {
      'aria-label': title,
      'data-testid': testId,
      onkeydown: (event) => this.#onKey(event as KeyboardEvent),
    });
    this.#rows = new KeyedList<Row>(
      this.#list,
      (row) => row.id,
      () => this.#createRow(),
    );
    this.element = h(
      'section',
      { class: `pane pane-${testId}` },
      this.#back,
      h('h2', null, title, ' ', this.#count),
      h('div', { class: 'pane-rows' }, this.#list, this.#empty),
      options.addForm,
    );
    this.show(null);
  }

  /** Shows rows, or none because nothing is chosen that they could belong to. */
  show(rows: readonly Row[] | null): void {
    this.#rows.show(rows ?? []);
    this.#count.textContent = rows ? rows.length.toLocaleString('en') : '';
    const { hint = '', empty } = this.#options;
    this.#empty.textContent = rows ? empty : hint;
    this.#empty.hidden = !this.#empty.textContent || (rows?.length ?? 0) > 0;
    if (this.#options.addForm) this.#options.addForm.hidden = !rows;
    this.#markChosen();
  }

  /** Where the link to the pane before leads. */
  leadBack(href: string): void {
    if (this.#back) this.#back.href = href;
  }

  choose(id: number | null): void {
    if (id === this.#chosen) return;
    this.#chosen = id;
    const row = this.#markChosen();
    row?.scrollIntoView({ block: 'nearest' });
  }

  #markChosen(): Element | null {
    let chosen: Element | null = null;
    for (const element of this.#list.children) {
      const isChosen = this.#rowOf.get(element)?.id === this.#chosen;
      if (isChosen) chosen = element;
      const main = element.firstElementChild;
      if (isChosen) main?.setAttribute('aria-current', 'true');
      else main?.removeAttribute('aria-current');
    }
    return chosen;
  }

  #createRow(): RowView<Row> {
    const { link, note, tail, remove, testId } = this.#options;
    const name = h('span', { class: 'name', 'data-testid': 'name' });
    const below = note && h('span', { class: 'note' });
    // A link can be reached by Tab as it is; a row that leads nowhere has to be made so.
    const main = h(link ? 'a' : 'div', { class: 'row-main', tabindex: link ? null : 0 });
    main.append(name);
    if (below) main.append(below);
    const end = h('span', { class: 'row-tail' });
    const action = (label: string, symbol: string, id: string, run: () => void) =>
      h(
        'button',
        {
          class: 'icon',
          type: 'button',
          tabindex: -1,
          'aria-label': label,
          title: label,
          'data-testid': id,
          onclick: run,
        },
        symbol,
      );
    const element = h(
      'li',
      { 'data-testid': testId.slice(0, -1) },
      main,
      tail ? end : null,
      action('Rename (F2)', '✎', 'rename', () => this.#rename(element)),
      action('Remove (Delete)', '×', 'remove', () => remove(this.#rowOf.get(element)!)),
    );
    const update = (row: Row) => {
      this.#rowOf.set(element, row);
      element.dataset.id = String(row.id);
      name.textContent = row.name;
      if (below && note) below.textContent = note(row);
      if (link) (main as HTMLAnchorElement).href = link(row);
      if (tail) keepingFocus(end, () => end.replaceChildren(tail(row)));
    };
    return { element, update };
  }

  #rename(element: HTMLElement): void {
    const row = this.#rowOf.get(element);
    if (!row) return;
    editInline({
      over: element,
      value: row.name,
      label: `New name for ${row.name}`,
      save: (name) => this.#options.rename(row, name),
      refocus: () => (element.firstElementChild as HTMLElement | null)?.focus(),
    });
  }

  #onKey(event: KeyboardEvent): void {
    const main = event.target as HTMLElement;
    const element = main.parentElement;
    if (!element || !main.classList.contains('row-main')) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const row = this.#rowOf.get(element);
    const focus = (to: Element | null) => (to?.firstElementChild as HTMLElement | null)?.focus();
    if (event.key === 'ArrowDown') focus(element.nextElementSibling);
    else if (event.key === 'ArrowUp') focus(element.previousElementSibling);
    else if (event.key === 'Home') focus(this.#list.firstElementChild);
    else if (event.key === 'End') focus(this.#list.lastElementChild);
    else if (event.key === 'F2') this.#rename(element);
    else if (event.key === 'Enter' && !this.#options.link) this.#rename(element);
    else if (event.key === 'Delete' && row) this.#options.remove(row);
    else return;
    event.preventDefault();
  }
}
