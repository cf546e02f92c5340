// Invoices, and one of them with its customer and its lines.

import { count, fill, h, keepingFocus } from '../../shared/dom.ts';
import { day, money } from './format.ts';
import { linkTo, type Route } from './route.ts';
import { type Shop, Watches } from './shop.ts';

interface InvoiceRow {
  id: number;
  date: string;
  customer: string;
  country: string | null;
  total: number;
}

interface InvoiceDetail extends InvoiceRow {
  company: string | null;
  address: string | null;
  city: string | null;
  state: string | null;
  postalCode: string | null;
  email: string;
  phone: string | null;
  rep: string | null;
}

interface Line {
  id: number;
  track: string;
  artist: string | null;
  artistId: number | null;
  albumId: number | null;
  price: number;
  quantity: number;
}

const INVOICES = `
  select InvoiceId as id, InvoiceDate as date, FirstName || ' ' || LastName as customer,
         BillingCountry as country, Total as total
  from Invoice join Customer using (CustomerId) order by InvoiceDate desc, InvoiceId desc`;

const INVOICE = `
  select InvoiceId as id, InvoiceDate as date, Total as total,
         c.FirstName || ' ' || c.LastName as customer, c.Company as company, c.Email as email,
         c.Phone as phone, e.FirstName || ' ' || e.LastName as rep, BillingAddress as address,
         BillingCity as city, BillingState as state, BillingCountry as country,
         BillingPostalCode as postalCode
  from Invoice join Customer c using (CustomerId)
       left join Employee e on e.EmployeeId = c.SupportRepId
  where InvoiceId = :invoice`;

const LINES = `
  select InvoiceLineId as id, t.Name as track, Artist.Name as artist, ArtistId as artistId,
         t.AlbumId as albumId, l.UnitPrice as price, l.Quantity as quantity
  from InvoiceLine l join Track t using (TrackId) left join Album using (AlbumId)
       left join Artist using (ArtistId)
  where InvoiceId = :invoice order by InvoiceLineId`;

export class Invoices {
  readonly #shop: Shop;
  readonly #watches = new Watches();
  readonly #count = h('span', { class: 'count' });
  readonly #list = h('ul', { 'data-testid': 'invoices' });
  readonly #head = h('div', { class: 'invoice-head' });
  readonly #lines = h('tbody', { 'data-testid': 'lines' });
  readonly #total = h('td', { class: 'number', 'data-testid': 'total' });
  readonly #detail: HTMLElement;
  readonly #hint = h('p', { class: 'nothing' }, 'Choose an invoice to see its lines.');
  #chosen: number | null = null;
  readonly element: HTMLElement;

  constructor(shop: Shop) {
    this.#shop = shop;
    const columns = ['Track', 'Price', 'Quantity', 'Sum', ''];
    this.#detail = h(
      'article',
      { class: 'invoice', 'data-testid': 'invoice', hidden: true },
      this.#head,
      h(
        'table',
        null,
        h('thead', null, h('tr', null, ...columns.map((name) => h('th', null, name)))),
        this.#lines,
        h('tfoot', null, h('tr', null, h('th', { colspan: 3 }, 'Total'), this.#total, h('td'))),
      ),
    );
    this.element = h(
      'div',
      { class: 'panes panes-invoices', 'data-testid': 'invoices-view' },
      h(
        'section',
        { class: 'pane' },
        h('h2', null, 'Invoices ', this.#count),
        h('div', { class: 'pane-rows' }, this.#list),
      ),
      h(
        'section',
        { class: 'pane' },
        h('a', { class: 'back', href: linkTo({ view: 'invoices', invoice: null }) }, '‹ Invoices'),
        h('div', { class: 'pane-rows' }, this.#detail, this.#hint),
      ),
    );
    this.#watches.set('invoices', '', () =>
      shop.watch<InvoiceRow>(INVOICES, {}, (rows) => this.#showRows(rows)),
    );
  }

  show({ invoice }: Route & { view: 'invoices' }): void {
    this.#chosen = invoice;
    this.element.dataset.depth = invoice === null ? '1' : '2';
    this.#mark()?.scrollIntoView({ block: 'nearest' });
    if (invoice === null) {
      this.#watches.end('invoice');
      this.#watches.end('lines');
      this.#showDetail(undefined);
      return;
    }
    this.#watches.set('invoice', invoice, () =>
      this.#shop.watch<InvoiceDetail>(INVOICE, { invoice }, ([row]) => this.#showDetail(row)),
    );
    this.#watches.set('lines', invoice, () =>
      this.#shop.watch<Line>(LINES, { invoice }, (rows) => this.#showLines(invoice, rows)),
    );
  }

  end(): void {
    this.#watches.endAll();
  }

  #showRows(rows: readonly InvoiceRow[]): void {
    this.#count.textContent = rows.length.toLocaleString('en');
    keepingFocus(this.#list, () => fill(this.#list, ...rows.map(invoiceRow)));
    this.#mark();
  }

  #mark(): Element | null {
    this.#list.querySelector('[aria-current]')?.removeAttribute('aria-current');
    const row = this.#list.querySelector(`[data-id="${this.#chosen}"] a`);
    row?.setAttribute('aria-current', 'true');
    return row;
  }

  #showDetail(invoice: InvoiceDetail | undefined): void {
    this.#detail.hidden = !invoice;
    this.#hint.hidden = !!invoice;
    if (!invoice) return;
    const { id, date, total, customer, company, email, phone, rep } = invoice;
    const { address, city, state, country, postalCode } = invoice;
    const place = [postalCode, city, state].filter(Boolean).join(' ');
    const remove = h(
      'button',
      {
        class: 'plain',
        type: 'button',
        'data-testid': 'remove-invoice',
        onclick: () => {
          const invoice = id;
          this.#shop.mutate('removeInvoice', (db) => db.mutate.removeInvoice({ invoice }));
        },
      },
      'Remove invoice',
    );
    fill(
      this.#head,
      h('div', { class: 'invoice-title' }, h('h2', null, `Invoice ${id}`), day(date), remove),
      h(
        'div',
        { class: 'cards' },
        card('Customer', [customer, company, email, phone]),
        card('Billed to', [address, place, country]),
        card('Looked after by', [rep ?? 'nobody']),
      ),
    );
    this.#total.textContent = money(total);
  }

  #showLines(invoice: number, lines: readonly Line[]): void {
    keepingFocus(this.#lines, () => {
      fill(this.#lines, ...lines.map((line) => this.#line(invoice, line)));
    });
    if (lines.length === 0) {
      this.#lines.append(h('tr', null, h('td', { colspan: 5, class: 'nothing' }, 'No lines.')));
    }
  }

  #line(invoice: number, { id: line, ...row }: Line): HTMLElement {
    const set = (quantity: number) => {
      this.#shop.mutate('setQuantity', (db) => db.mutate.setQuantity({ line, quantity }));
    };
    const step = (symbol: string, label: string, quantity: number) =>
      h(
        'button',
        {
          class: 'icon',
          type: 'button',
          'aria-label': label,
          disabled: quantity < 1,
          onclick: () => set(quantity),
        },
        symbol,
      );
    const remove = h(
      'button',
      {
        class: 'icon',
        type: 'button',
        'aria-label': `Remove ${row.track}`,
        title: 'Remove this line',
        'data-testid': 'remove-line',
        onclick: () => {
          this.#shop.mutate('removeLine', (db) => db.mutate.removeLine({ line, invoice }));
        },
      },
      '×',
    );
    const name =
      row.albumId === null
        ? row.track
        : h(
            'a',
            { href: linkTo({ view: 'artists', artist: row.artistId, album: row.albumId }) },
            row.track,
          );
    return h(
      'tr',
      { 'data-testid': 'line', 'data-id': line },
      h('td', null, name, h('span', { class: 'note' }, row.artist ?? '')),
      h('td', { class: 'number' }, money(row.price)),
      h(
        'td',
        { class: 'number' },
        h(
          'span',
          { class: 'stepper', title: count(row.quantity, 'piece') },
          step('−', 'One less', row.quantity - 1),
          h('b', { 'data-testid': 'quantity' }, String(row.quantity)),
          step('+', 'One more', row.quantity + 1),
        ),
      ),
      h('td', { class: 'number' }, money(row.price * row.quantity)),
      h('td', null, remove),
    );
  }
}

function invoiceRow({ id, date, customer, country, total }: InvoiceRow): HTMLElement {
  return h(
    'li',
    { 'data-testid': 'invoice-row', 'data-id': id },
    h(
      'a',
      { class: 'row-main', href: linkTo({ view: 'invoices', invoice: id }) },
      h('span', { class: 'name' }, customer),
      h('span', { class: 'note' }, `${id} · ${day(date)}${country ? ` · ${country}` : ''}`),
    ),
    h('span', { class: 'row-tail' }, money(total)),
  );
}

function card(title: string, lines: (string | null)[]): HTMLElement {
  const present = lines.filter((line) => line?.trim());
  return h('div', null, h('h3', null, title), ...present.map((line) => h('p', null, line)));
}
