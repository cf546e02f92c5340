// The little that replaces a framework here: making elements, and keeping a list of them in step
// with rows.

type Child = Node | string | null | undefined | false;
type Props = Record<string, string | number | boolean | null | undefined | EventListener>;

/**
 * An element. A prop `onclick` is a listener for `click`, `true` sets an attribute without a value,
 * `false`, null and undefined leave it out.
 */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  props: Props | null = null,
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  append(element, children);
  return element;
}

/** Puts `children` in the place of what `parent` held. */
export function fill(parent: Element, ...children: Child[]): void {
  parent.replaceChildren();
  append(parent, children);
}

/** The element of `root` that the selector names; it must be there. */
export function find<E extends HTMLElement = HTMLElement>(root: ParentNode, selector: string): E {
  const found = root.querySelector<E>(selector);
  if (!found) throw new Error(`BUG: the page has no ${selector}`);
  return found;
}

/** How one row is shown. */
export interface RowView<Row> {
  readonly element: HTMLElement;
  update(row: Row): void;
}

/**
 * Shows rows as children of `parent`. An element stays with its key, so that focus, selection and
 * transitions survive news; a row that is the same object as before is not touched.
 */
export class KeyedList<Row> {
  readonly #parent: HTMLElement;
  readonly #key: (row: Row) => string | number;
  readonly #create: (row: Row) => RowView<Row>;
  #shown = new Map<string | number, { row: Row; view: RowView<Row> }>();

  constructor(
    parent: HTMLElement,
    key: (row: Row) => string | number,
    create: (row: Row) => RowView<Row>,
  ) {
    this.#parent = parent;
    this.#key = key;
    this.#create = create;
  }

  show(rows: readonly Row[]): void {
    const before = this.#shown;
    this.#shown = new Map(
      rows.map((row) => {
        const key = this.#key(row);
        const view = before.get(key)?.view ?? this.#create(row);
        if (before.get(key)?.row !== row) view.update(row);
        return [key, { row, view }];
      }),
    );
    // What is gone leaves first, so that what stays need not move: a moved element loses its focus.
    for (const [key, { view }] of before) {
      if (!this.#shown.has(key)) view.element.remove();
    }
    let place = this.#parent.firstElementChild;
    for (const { view } of this.#shown.values()) {
      if (view.element === place) place = place.nextElementSibling;
      else this.#parent.insertBefore(view.element, place);
    }
  }
}

/** Lets `change` replace what is in `container` without taking the focus from who works there. */
export function keepingFocus(container: Element, change: () => void): void {
  const controls = () => [...container.querySelectorAll<HTMLElement>('a, button, input')];
  const index = controls().indexOf(document.activeElement as HTMLElement);
  change();
  const after = controls();
  if (index >= 0) after[Math.min(index, after.length - 1)]?.focus();
}

/** Whether a key press belongs to a field that takes text, and so is no shortcut. */
export function isTyping(event: KeyboardEvent): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return true;
  const target = event.target;
  if (target instanceof HTMLInputElement) return target.type !== 'checkbox';
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

/** `1 track`, `2 tracks`, `1,204 tracks`. */
export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString('en')} ${n === 1 ? one : many}`;
}

/** Hands the user a file. */
export function download(name: string, bytes: Uint8Array<ArrayBuffer>): void {
  const url = URL.createObjectURL(new Blob([bytes], { type: 'application/vnd.sqlite3' }));
  h('a', { href: url, download: name }).click();
  // The browser has taken the address by then; there is no event that says so.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function append(parent: Element, children: Child[]): void {
  for (const child of children) {
    if (child != null && child !== false) parent.append(child);
  }
}
