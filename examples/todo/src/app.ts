// One page, one list at a time: opens the document that the address names, shows what its live
// queries say, and turns what the user does into mutations.

import { type Database, type LiveQuery, open, type Receipt, RejectedError } from 'tidelog';
import { addressWith, nameFromAddress, serverFromAddress } from '../../shared/address.ts';
import { count, download, h } from '../../shared/dom.ts';
import { Panel } from '../../shared/panel.ts';
import { onRejected } from '../../shared/rejections.ts';
import { Shortcuts } from '../../shared/shortcuts.ts';
import { StatusIndicator } from '../../shared/status.ts';
import { Toasts } from '../../shared/toasts.ts';
import { type Todo, todos } from './doctype.ts';
import { TodoList } from './list.ts';
import { Lists } from './lists.ts';

type Db = Database<(typeof todos)['mutations']>;
type Filter = 'all' | 'open' | 'done';

const FILTERS: { [F in Filter]: { label: string; where: string; none: string } } = {
  all: { label: 'All', where: '', none: '' },
  open: { label: 'Open', where: 'where done = 0', none: 'Nothing left to do. Well done.' },
  done: { label: 'Done', where: 'where done = 1', none: 'Nothing checked off yet.' },
};

const SHORTCUTS = [
  ['n', 'new to-do'],
  ['↑ ↓', 'move'],
  ['space', 'check'],
  ['enter', 'edit'],
  ['del', 'remove'],
  ['1 2 3', 'filter'],
  ['l', 'new list'],
  ['o', 'offline'],
  ['`', 'journals'],
] as const;

export class App {
  readonly #title = h('h1', { 'data-testid': 'title' });
  readonly #summary = h('p', { class: 'summary' });
  readonly #bar = h('div', { class: 'bar' });
  readonly #field = h('input', {
    class: 'field',
    placeholder: 'What needs doing?',
    maxlength: 200,
    autocomplete: 'off',
    enterkeyhint: 'done',
    'aria-label': 'New to-do',
    'data-testid': 'add-input',
    onkeydown: (event) => {
      if ((event as KeyboardEvent).key !== 'ArrowDown') return;
      event.preventDefault();
      this.#list.focus(0);
    },
  });
  readonly #filters = h('div', { class: 'filters', role: 'group', 'aria-label': 'Filter' });
  readonly #removeDone = h('button', { class: 'plain', type: 'button' }, 'Remove done');
  readonly #empty = h('div', { class: 'empty', 'data-testid': 'empty', hidden: true });
  readonly #main = h('main', { 'data-testid': 'app', 'data-state': 'opening' });
  readonly #list = new TodoList({
    check: (todo, done) => this.#mutate('check', (db) => db.mutate.check({ id: todo.id, done })),
    rename: (todo, title) => {
      this.#mutate('rename', (db) => db.mutate.rename({ id: todo.id, title }));
    },
    remove: (todo) => this.#remove(todo),
    leave: () => this.#leaveList(),
  });
  readonly #lists = new Lists((name) => this.#go(name));
  readonly #status: StatusIndicator;
  readonly #panel: Panel;
  readonly #toasts: Toasts;

  /** The document that is open or being opened. */
  #db: Promise<Db> = new Promise(() => undefined);
  #name = '';
  #filter: Filter = 'all';
  #rows: LiveQuery<Todo> | null = null;
  /** What belongs to the open document and ends with it. */
  #stops: (() => void)[] = [];

  constructor(page: HTMLElement) {
    const banners = h('div');
    this.#main.append(
      h('header', null, h('div', null, this.#title, this.#summary), this.#bar),
      banners,
      h('form', { class: 'add', onsubmit: (event) => this.#add(event) }, this.#field),
      this.#list.element,
      this.#empty,
      h('div', { class: 'below' }, this.#filters, this.#removeDone),
      h(
        'p',
        { class: 'shortcuts' },
        ...SHORTCUTS.map(([key, deed]) => h('span', null, h('kbd', null, key), ` ${deed}`)),
        new Shortcuts((key) => this.#isRun(key)).element,
      ),
    );
    page.append(h('div', { class: 'frame' }, this.#lists.element, this.#main));
    this.#status = new StatusIndicator(this.#bar, banners);
    this.#panel = new Panel(this.#bar, page);
    this.#toasts = new Toasts(page);
    this.#bar.append(this.#exportButton());
    this.#makeFilters();
    this.#removeDone.addEventListener('click', () => {
      this.#mutate('removeDone', (db) => db.mutate.removeDone({}));
    });
    this.#field.addEventListener('keydown', ({ key }) => key === 'Escape' && this.#field.blur());
    addEventListener('popstate', () => this.#show(listFromAddress()));
    addEventListener('hashchange', () => this.#show(listFromAddress()));
    this.#show(listFromAddress());
    this.#field.focus();
  }

  /** Leaves for another list. */
  #go(name: string): void {
    history.pushState(null, '', addressWith('list', name));
    this.#show(name);
    this.#field.focus();
  }

  #show(name: string): void {
    if (name === this.#name) return;
    const before = this.#db;
    if (this.#name) before.then((db) => db.close()).catch(() => undefined);
    for (const stop of this.#stops.splice(0)) stop();

    this.#name = name;
    this.#title.textContent = name;
    document.title = `${name} · To-do`;
    this.#lists.show(name);
    this.#status.show(null);
    this.#panel.show(null);
    // What is half written, and what could be undone, belong to the list that is left.
    this.#field.value = '';
    this.#toasts.clear();
    this.#list.show([]);
    this.#empty.hidden = true;
    this.#count(0, 0);
    this.#main.dataset.state = 'opening';
    this.#main.dataset.document = documentOf(name);

    const server = serverFromAddress();
    const db = open(todos, { document: documentOf(name), ...(server && { server }) });
    this.#db = db;
    db.then(
      (opened) => {
        if (this.#db === db) this.#begin(opened);
      },
      (error: Error) => {
        if (this.#db === db) this.#fail(error);
      },
    );
  }

  #begin(db: Db): void {
    this.#main.dataset.state = 'open';
    this.#status.show(db);
    this.#panel.show(db);
    const counts = db.live<{ open: number; done: number }>(
      `select count(*) filter (where done = 0) as open, count(*) filter (where done = 1) as done
       from todo`,
    );
    this.#stops.push(
      counts.subscribe((rows, error) => {
        if (error) this.#complain(error);
        else if (rows?.[0]) this.#count(rows[0].open, rows[0].done);
      }),
      () => counts.close(),
      () => this.#rows?.close(),
      onRejected(db, ({ args, reason }) => {
        this.#toasts.show({
          kind: 'rejected',
          title: typeof args.title === 'string' ? `“${args.title}” was not taken` : 'Not taken',
          text: reason,
        });
      }),
    );
    this.#watch(db);
  }

  /** Shows the rows of the filter, and keeps showing them. */
  #watch(db: Db): void {
    this.#rows?.close();
    const { where } = FILTERS[this.#filter];
    this.#rows = db.live<Todo>(`select id, title, done, at from todo ${where} order by at, id`);
    this.#rows.subscribe((rows, error) => {
      if (error) this.#complain(error);
      else if (rows) this.#showRows(rows);
    });
  }

  #showRows(rows: readonly Todo[]): void {
    this.#list.show(rows);
    this.#empty.hidden = rows.length > 0;
    if (rows.length > 0) return;
    const { none } = FILTERS[this.#filter];
    this.#empty.replaceChildren(
      h('h2', null, none || 'An empty list'),
      none
        ? ''
        : h(
            'p',
            null,
            'Type above and press Enter. Every change is written to this device at once, shown ' +
              'in every tab that has this list open, and synced when the server can be reached.',
          ),
    );
  }

  #count(open: number, done: number): void {
    this.#summary.textContent = open + done ? `${count(open, 'thing')} to do, ${done} done` : ' ';
    this.#removeDone.disabled = done === 0;
    const counts: { [F in Filter]: number } = { all: open + done, open, done };
    for (const button of this.#filters.querySelectorAll('button')) {
      const filter = button.dataset.filter as Filter;
      button.querySelector('b')!.textContent = String(counts[filter]);
    }
  }

  #add(event: Event): void {
    event.preventDefault();
    const title = this.#field.value.trim();
    if (!title) return;
    this.#field.value = '';
    const id = crypto.randomUUID();
    const list = this.#name;
    this.#mutate('add', (db) => db.mutate.add({ id, title })).then((isTaken) => {
      // What was not taken is given back, unless something else is being written by now.
      if (isTaken || this.#field.value || this.#name !== list) return;
      this.#field.value = title;
      // Whoever types on replaces it.
      if (document.activeElement === this.#field) this.#field.select();
    });
  }

  #remove(todo: Todo): void {
    this.#mutate('remove', (db) => db.mutate.remove({ id: todo.id }));
    const { id, title, done, at } = todo;
    const restore = (db: Db) => db.mutate.restore({ id, title, done: done === 1, at });
    this.#toasts.show({
      kind: 'news',
      title: `Removed “${title}”`,
      action: { label: 'Undo', run: () => this.#mutate('restore', restore) },
    });
  }

  /**
   * Issues a mutation once the document is open, which it nearly always is. Says whether it is on
   * this device's disk.
   */
  async #mutate(name: string, issue: (db: Db) => Receipt): Promise<boolean> {
    try {
      const receipt = issue(await this.#db);
      this.#panel.follow(name, receipt);
      await receipt.durable;
      return true;
    } catch (error) {
      this.#complain(error as Error);
      return false;
    }
  }

  #complain(error: Error): void {
    if (error instanceof RejectedError) {
      this.#toasts.show({ kind: 'rejected', title: 'Not taken', text: error.reason });
    } else {
      this.#toasts.show({ kind: 'error', title: 'That did not work', text: error.message });
    }
  }

  #fail(error: Error): void {
    this.#main.dataset.state = 'failed';
    this.#status.fail(error);
    const again = () => {
      const name = this.#name;
      this.#name = '';
      this.#show(name);
    };
    this.#empty.replaceChildren(
      h('h2', null, 'This list could not be opened'),
      h('p', { 'data-testid': 'error' }, error.message),
      h('button', { class: 'button', type: 'button', onclick: again }, 'Try again'),
    );
    this.#empty.hidden = false;
  }

  #makeFilters(): void {
    for (const filter of Object.keys(FILTERS) as Filter[]) {
      const button = h(
        'button',
        {
          type: 'button',
          'data-filter': filter,
          'data-testid': `filter-${filter}`,
          'aria-pressed': String(filter === this.#filter),
          onclick: () => this.#choose(filter),
        },
        FILTERS[filter].label,
        ' ',
        h('b', { 'data-testid': `count-${filter}` }, '0'),
      );
      this.#filters.append(button);
    }
  }

  #choose(filter: Filter): void {
    this.#filter = filter;
    for (const button of this.#filters.querySelectorAll('button')) {
      button.setAttribute('aria-pressed', String(button.dataset.filter === filter));
    }
    const chosen = this.#db;
    chosen.then(
      (db) => this.#db === chosen && this.#watch(db),
      () => undefined,
    );
  }

  /** Where a filter has left nothing, the next key is for another filter. */
  #leaveList(): void {
    const chosen = this.#filters.querySelector<HTMLElement>('[aria-pressed="true"]');
    const isFiltered = this.#filter !== 'all' && !this.#list.element.firstElementChild;
    (isFiltered && chosen ? chosen : this.#field).focus();
  }

  #exportButton(): HTMLElement {
    const onclick = () => {
      this.#db
        .then((db) => db.export())
        .then((bytes) => download(`${this.#name}.sqlite`, bytes))
        .catch((error: Error) => this.#complain(error));
    };
    const title = 'Download this list as a SQLite file';
    const props = { class: 'plain', type: 'button', title, 'data-testid': 'export', onclick };
    return h('button', props, 'Export');
  }

  /** Does what a key stands for, if it is a shortcut. */
  #isRun(key: string): boolean {
    const filter = (Object.keys(FILTERS) as Filter[])[Number(key) - 1];
    if (key === 'n' || key === '/') this.#field.focus();
    else if (key === 'l') this.#lists.focusNew();
    else if (key === 'o') this.#status.toggleConnection();
    else if (key === '`') this.#panel.toggle();
    else if (filter) this.#choose(filter);
    else return false;
    return true;
  }
}

function listFromAddress(): string {
  return nameFromAddress('list', 'groceries');
}

/** One origin may hold documents of several apps, so a list's document says whose it is. */
function documentOf(list: string): string {
  return `lists/${list}`;
}
