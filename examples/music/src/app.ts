// The frame of the page: opens the shop that the address names and shows the view that its hash
// names, or what is searched for, or how an empty shop can be filled.

import { open, RejectedError } from 'tidelog';
import { nameFromAddress, serverFromAddress } from '../../shared/address.ts';
import { count, download, fill, h } from '../../shared/dom.ts';
import { Panel } from '../../shared/panel.ts';
import { onRejected } from '../../shared/rejections.ts';
import { Shortcuts } from '../../shared/shortcuts.ts';
import { StatusIndicator } from '../../shared/status.ts';
import { Toasts } from '../../shared/toasts.ts';
import { Browse } from './browse.ts';
import { chinook } from './chinook.ts';
import { Import } from './import.ts';
import { Invoices } from './invoices.ts';
import { currentRoute } from './route.ts';
import { Search } from './search.ts';
import { type Db, Shop } from './shop.ts';
import { smallShop } from './small-shop.ts';
import { TABLE_NAMES, type Table } from './tables.ts';
import { welcome } from './welcome.ts';

type Counts = Record<Table, number>;

const countOf = (table: Table) => `(select count(*) from ${table}) as ${table}`;
const COUNTS = `select ${TABLE_NAMES.map(countOf).join(', ')}`;

export class App {
  readonly #name = nameFromAddress('shop', 'chinook');
  readonly #search = h('input', {
    class: 'field',
    type: 'search',
    placeholder: 'Search artists, albums, tracks, customers',
    autocomplete: 'off',
    'aria-label': 'Search',
    'data-testid': 'search',
    oninput: () => this.#showView(),
  });
  readonly #tabs = h('nav', { class: 'tabs', 'aria-label': 'Views' });
  readonly #bar = h('div', { class: 'bar' });
  readonly #banners = h('div', { class: 'banners' });
  readonly #main = h('main', { 'data-testid': 'app', 'data-state': 'opening' });
  readonly #contents = h('footer', { 'data-testid': 'contents' });
  readonly #file = h('input', {
    type: 'file',
    accept: '.sql,text/plain,application/sql',
    hidden: true,
    'data-testid': 'file',
    onchange: () => {
      const file = this.#file.files?.[0];
      this.#file.value = '';
      if (file) this.#importBytes(() => file.arrayBuffer());
    },
  });
  readonly #status: StatusIndicator;
  readonly #panel: Panel;
  readonly #toasts: Toasts;

  #shop: Shop | null = null;
  #browse: Browse | null = null;
  #invoices: Invoices | null = null;
  #results: Search | null = null;
  #counts: Counts | null = null;
  #import: Import | null = null;
  #isFirstLook = true;

  constructor(page: HTMLElement) {
    for (const [label, hash] of [
      ['Music', '#/artists'],
      ['Invoices', '#/invoices'],
    ] as const) {
      this.#tabs.append(h('a', { href: hash, 'data-testid': `tab-${hash.slice(2)}` }, label));
    }
    document.title = `${this.#name} · Music shop`;
    this.#main.dataset.document = documentOf(this.#name);
    page.append(
      h(
        'div',
        { class: 'frame' },
        h(
          'header',
          null,
          h('h1', null, h('a', { href: '#/artists' }, this.#name)),
          this.#tabs,
          h('div', { class: 'search' }, this.#search),
          this.#bar,
        ),
        this.#banners,
        this.#main,
        this.#contents,
      ),
      this.#file,
    );
    this.#status = new StatusIndicator(this.#bar, this.#banners);
    this.#panel = new Panel(this.#bar, page);
    this.#toasts = new Toasts(page);
    const shortcuts = new Shortcuts((key) => this.#isRun(key));
    this.#bar.append(shortcuts.element, this.#menu());
    addEventListener('hashchange', () => {
      this.#search.value = '';
      this.#showView();
    });
    this.#search.addEventListener('keydown', ({ key }) => {
      if (key !== 'Escape') return;
      this.#search.value = '';
      this.#showView();
    });
    this.#acceptDrops();
    this.#open();
  }

  async #open(): Promise<void> {
    try {
      const server = serverFromAddress();
      const db = await open(chinook, {
        document: documentOf(this.#name),
        ...(server && { server }),
      });
      this.#begin(
        new Shop(db, {
          onIssue: (mutation, receipt) => this.#panel.follow(mutation, receipt),
          onError: (error) => this.#complain(error),
        }),
      );
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #begin(shop: Shop): void {
    this.#shop = shop;
    this.#status.show(shop.db);
    this.#panel.show(shop.db);
    this.#main.dataset.state = 'open';
    onRejected(shop.db, ({ mutation, reason }) => {
      this.#toasts.show({ kind: 'rejected', title: couldNot(mutation), text: reason });
    });
    shop.db.on('status', () => {
      if (this.#main.dataset.empty === 'true') this.#showView();
    });
    shop.watch<Counts>(COUNTS, {}, ([counts]) => {
      if (!counts) return;
      this.#counts = counts;
      this.#showContents(counts);
      this.#showView();
      this.#importFromAddress();
    });
  }

  #showView(): void {
    const shop = this.#shop;
    if (!shop || !this.#counts) return;
    const route = currentRoute();
    for (const tab of this.#tabs.querySelectorAll('a')) {
      const isHere = tab.hash === `#/${route.view}`;
      if (isHere) tab.setAttribute('aria-current', 'page');
      else tab.removeAttribute('aria-current');
    }
    const text = this.#search.value.trim();
    const isEmpty = TABLE_NAMES.every((table) => this.#counts?.[table] === 0);
    this.#main.dataset.empty = String(isEmpty);
    if (isEmpty || text) this.#endViews();
    if (!text) this.#endSearch();
    if (isEmpty) this.#showWelcome(shop.db);
    else if (text) this.#showSearch(shop, text);
    else if (route.view === 'invoices') {
      this.#browse?.end();
      this.#browse = null;
      this.#invoices ??= new Invoices(shop);
      this.#put(this.#invoices.element);
      this.#invoices.show(route);
    } else {
      this.#invoices?.end();
      this.#invoices = null;
      this.#browse ??= new Browse(shop);
      this.#put(this.#browse.element);
      this.#browse.show(route);
    }
  }

  #showWelcome({ status }: Db): void {
    // It may be at the server already, and on its way here.
    const isAwaited = status.connection === 'connecting' && status.confirmedLsn === 0;
    if (this.#import || this.#main.querySelector('.choices')) return;
    if (isAwaited) {
      this.#main.replaceChildren(h('p', { class: 'nothing' }, 'Looking for this shop…'));
      return;
    }
    const pickFile = () => this.#file.click();
    this.#put(welcome(this.#name, { pickFile, loadSmallShop: () => this.#importSmall() }));
  }

  #showSearch(shop: Shop, text: string): void {
    this.#results ??= new Search(shop);
    this.#put(this.#results.element);
    this.#results.show(text);
  }

  #endViews(): void {
    this.#browse?.end();
    this.#invoices?.end();
    this.#browse = null;
    this.#invoices = null;
  }

  #endSearch(): void {
    this.#results?.end();
    this.#results = null;
  }

  #put(view: HTMLElement): void {
    if (this.#main.firstElementChild !== view) this.#main.replaceChildren(view);
  }

  #showContents(counts: Counts): void {
    fill(
      this.#contents,
      ...TABLE_NAMES.map((table) =>
        h(
          'span',
          { 'data-testid': `count-${table}`, 'data-count': counts[table] },
          `${table} `,
          h('b', null, counts[table].toLocaleString('en')),
        ),
      ),
    );
  }

  #importSmall(): void {
    this.#run((running, shop) => running.load(shop, smallShop()));
  }

  #importBytes(read: () => Promise<ArrayBuffer>): void {
    this.#run(async (running, shop) => running.loadScript(shop, new Uint8Array(await read())));
  }

  /** `?import=URL` fills an empty shop, in development: elsewhere an address must not do that. */
  #importFromAddress(): void {
    if (!this.#isFirstLook) return;
    const url = new URLSearchParams(location.search).get('import');
    this.#isFirstLook = false;
    const isHere = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
    if (!url || !isHere || this.#main.dataset.empty !== 'true') return;
    this.#importBytes(async () => {
      const response = await fetch(url);
      if (!response.ok) throw new Error(`${url} answers ${response.status}`);
      return response.arrayBuffer();
    });
  }

  async #run(work: (running: Import, shop: Shop) => Promise<string>): Promise<void> {
    const shop = this.#shop;
    if (!shop || this.#import) return;
    const running = new Import();
    this.#import = running;
    this.#main.querySelector('.welcome')?.remove();
    this.#banners.append(running.element);
    this.#main.dataset.import = 'running';
    try {
      const said = await work(running, shop);
      this.#toasts.show({ kind: 'news', title: said });
      this.#main.dataset.import = 'done';
    } catch (error) {
      this.#complain(error as Error);
      this.#main.dataset.import = 'failed';
    }
    running.element.remove();
    this.#import = null;
    this.#showView();
  }

  #acceptDrops(): void {
    addEventListener('dragover', (event) => event.preventDefault());
    addEventListener('drop', (event) => {
      event.preventDefault();
      const file = event.dataTransfer?.files[0];
      if (file) this.#importBytes(() => file.arrayBuffer());
    });
  }

  /** What is seldom wanted. */
  #menu(): HTMLElement {
    const item = (label: string, testId: string, run: () => void) => {
      const onclick = () => {
        menu.open = false;
        run();
      };
      return h('button', { class: 'plain', type: 'button', 'data-testid': testId, onclick }, label);
    };
    const menu = h(
      'details',
      { class: 'menu', 'data-testid': 'menu' },
      h('summary', { class: 'plain' }, 'Shop'),
      h(
        'div',
        null,
        item('Import a SQL file…', 'menu-import', () => this.#file.click()),
        item('Export as SQLite file', 'export', () => this.#export()),
        item('Empty this shop…', 'empty-shop', () => this.#empty()),
      ),
    );
    addEventListener('click', (event) => {
      if (!menu.contains(event.target as Node)) menu.open = false;
    });
    menu.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') menu.open = false;
    });
    return menu;
  }

  #export(): void {
    this.#shop?.db
      .export()
      .then((bytes) => download(`${this.#name}.sqlite`, bytes))
      .catch((error: Error) => this.#complain(error));
  }

  #empty(): void {
    const rows = TABLE_NAMES.reduce((sum, table) => sum + (this.#counts?.[table] ?? 0), 0);
    const question = `Remove all ${count(rows, 'row')} of this shop, for everybody?`;
    if (rows && confirm(question)) this.#shop?.mutate('empty', (db) => db.mutate.empty());
  }

  #complain(error: Error): void {
    if (error instanceof RejectedError) {
      this.#toasts.show({ kind: 'rejected', title: couldNot(error.mutation), text: error.reason });
    } else {
      this.#toasts.show({ kind: 'error', title: 'That did not work', text: error.message });
    }
  }

  #fail(error: Error): void {
    this.#main.dataset.state = 'failed';
    this.#status.fail(error);
    const again = () => location.reload();
    this.#put(
      h(
        'div',
        { class: 'welcome' },
        h('h2', null, 'This shop could not be opened'),
        h('p', { 'data-testid': 'error' }, error.message),
        h('button', { class: 'button', type: 'button', onclick: again }, 'Try again'),
      ),
    );
  }

  /** Does what a key stands for, if it is a shortcut. */
  #isRun(key: string): boolean {
    if (key === '/') this.#search.focus();
    else if (key === 'o') this.#status.toggleConnection();
    else if (key === '`') this.#panel.toggle();
    else return false;
    return true;
  }
}

/** `Could not remove artist`. */
function couldNot(mutation: string): string {
  return `Could not ${mutation.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)}`;
}

/** One origin may hold documents of several apps, so a shop's document says whose it is. */
function documentOf(shop: string): string {
  return `shops/${shop}`;
}
