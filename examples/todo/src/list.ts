// The to-dos of one list on the page, and what the keyboard does with them.
//
// A row is worked by its checkbox, the one thing in it that takes the focus: the space bar checks
// it as everywhere, and the other keys are added to that.

import { h, KeyedList, type RowView } from '../../shared/dom.ts';
import { editInline } from '../../shared/inline-edit.ts';
import type { Todo } from './doctype.ts';

export interface TodoActions {
  /** Says whether it was taken. */
  check(todo: Todo, done: boolean): Promise<boolean>;
  rename(todo: Todo, title: string): void;
  remove(todo: Todo): void;
  /** The focus leaves the list over its upper end. */
  leave(): void;
}

export class TodoList {
  readonly element = h('ul', {
    class: 'todos',
    'data-testid': 'list',
    'aria-label': 'To-dos',
    onkeydown: (event) => this.#onKey(event as KeyboardEvent),
    onfocusin: (event) => this.#onFocus(event),
  });
  readonly #actions: TodoActions;
  readonly #rows = new KeyedList<Todo>(
    this.element,
    (todo) => todo.id,
    () => this.#createRow(),
  );
  readonly #todos = new WeakMap<Element, Todo>();
  /** Which row the focus was in last, to give it to a neighbour when that row goes. */
  #focused = 0;

  constructor(actions: TodoActions) {
    this.#actions = actions;
  }

  show(todos: readonly Todo[]): void {
    const hadFocus = this.element.contains(document.activeElement);
    this.#rows.show(todos);
    if (hadFocus && !this.element.contains(document.activeElement)) this.focus(this.#focused);
    this.#makeReachable();
  }

  /** Focuses the row at `index`, or the last one, or what is above the list if there is none. */
  focus(index: number): void {
    const boxes = this.#boxes();
    const box = boxes[Math.min(index, boxes.length - 1)];
    if (box) box.focus();
    else this.#actions.leave();
  }

  #createRow(): RowView<Todo> {
    const box = h('input', {
      type: 'checkbox',
      tabindex: -1,
      'data-testid': 'item-done',
      onchange: async () => {
        const isTaken = await this.#actions.check(this.#todoOf(row), box.checked);
        // No row has changed then, so nobody else turns the box back.
        if (!isTaken) box.checked = this.#todoOf(row).done === 1;
      },
    });
    const title = h('span', { class: 'title', 'data-testid': 'item-title' });
    const edit = h(
      'button',
      {
        class: 'icon',
        type: 'button',
        tabindex: -1,
        'aria-label': 'Edit',
        title: 'Edit (Enter)',
        'data-testid': 'edit',
        onclick: () => this.#edit(row),
      },
      '✎',
    );
    const remove = h(
      'button',
      {
        class: 'icon',
        type: 'button',
        tabindex: -1,
        'aria-label': 'Remove',
        title: 'Remove (Delete)',
        'data-testid': 'remove',
        onclick: () => this.#actions.remove(this.#todoOf(row)),
      },
      '×',
    );
    const row = h(
      'li',
      { 'data-testid': 'item', ondblclick: () => this.#edit(row) },
      h('label', null, box, title),
      edit,
      remove,
    );
    const update = (todo: Todo) => {
      this.#todos.set(row, todo);
      row.dataset.id = todo.id;
      row.classList.toggle('done', todo.done === 1);
      box.checked = todo.done === 1;
      title.textContent = todo.title;
    };
    return { element: row, update };
  }

  #edit(row: HTMLElement): void {
    const { title } = this.#todoOf(row);
    editInline({
      over: row,
      value: title,
      label: `New title for ${title}`,
      save: (text) => this.#actions.rename(this.#todoOf(row), text),
      refocus: () => row.querySelector('input')?.focus(),
    });
  }

  #onKey(event: KeyboardEvent): void {
    const row = (event.target as Element).closest('li');
    const boxes = this.#boxes();
    const index = boxes.findIndex((box) => row?.contains(box));
    if (!row || index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    switch (event.key) {
      case 'ArrowDown':
        boxes[index + 1]?.focus();
        break;
      case 'ArrowUp':
        if (index === 0) this.#actions.leave();
        else boxes[index - 1]?.focus();
        break;
      case 'Home':
        boxes[0]?.focus();
        break;
      case 'End':
        boxes.at(-1)?.focus();
        break;
      case 'Enter':
      case 'F2':
        // On a button Enter presses the button.
        if (event.target instanceof HTMLButtonElement) return;
        this.#edit(row);
        break;
      case 'Delete':
      case 'Backspace':
        this.#actions.remove(this.#todoOf(row));
        break;
      default:
        return;
    }
    event.preventDefault();
  }

  #onFocus(event: Event): void {
    const row = (event.target as Element).closest('li');
    const index = this.#boxes().findIndex((box) => row?.contains(box));
    if (index < 0) return;
    this.#focused = index;
    this.#makeReachable();
  }

  /** Of all rows the Tab key stops at one, the one that was used last. */
  #makeReachable(): void {
    const boxes = this.#boxes();
    const reachable = Math.min(this.#focused, boxes.length - 1);
    boxes.forEach((box, index) => {
      box.tabIndex = index === reachable ? 0 : -1;
    });
  }

  #boxes(): HTMLInputElement[] {
    return [...this.element.querySelectorAll<HTMLInputElement>('input[type="checkbox"]')];
  }

  #todoOf(row: Element): Todo {
    const todo = this.#todos.get(row);
    if (!todo) throw new Error('BUG: a row without its to-do');
    return todo;
  }
}
