// Search as you type: live queries over artists, albums, tracks and invoices for what stands in the
// field. Their results change with the field, and with the data.

import { fill, h } from '../../shared/dom.ts';
import { day, duration, money } from './format.ts';
import { linkTo } from './route.ts';
import { type Shop, Watches } from './shop.ts';

interface Found {
  label: string;
  note: string;
  href: string;
}

interface Kind {
  title: string;
  testId: string;
  sql: string;
  found(row: Record<string, string & number>): Found;
}

/** Names that begin with what is sought go first. */
const ORDER = `order by label not like :start escape '\\', label collate nocase, id limit 12`;

const KINDS: readonly Kind[] = [
  {
    title: 'Artists',
    testId: 'found-artists',
    sql: `select ArtistId as id, Name as label,
                 (select count(*) from Album where Album.ArtistId = Artist.ArtistId) as albums
          from Artist where Name like :part escape '\\' ${ORDER}`,
    found: ({ id, label, albums }) => ({
      label: label!,
      note: albums === 1 ? '1 album' : `${albums} albums`,
      href: linkTo({ view: 'artists', artist: id!, album: null }),
    }),
  },
  {
    title: 'Albums',
    testId: 'found-albums',
    sql: `select AlbumId as id, Title as label, ArtistId as artist, Artist.Name as artistName
          from Album join Artist using (ArtistId)
          where Title like :part escape '\\' ${ORDER}`,
    found: ({ id, label, artist, artistName }) => ({
      label: label!,
      note: artistName ?? '',
      href: linkTo({ view: 'artists', artist: artist!, album: id! }),
    }),
  },
  {
    title: 'Tracks',
    testId: 'found-tracks',
    sql: `select TrackId as id, Track.Name as label, AlbumId as album, ArtistId as artist,
                 Artist.Name as artistName, Title as title, Milliseconds as milliseconds
          from Track join Album using (AlbumId) join Artist using (ArtistId)
          where Track.Name like :part escape '\\' ${ORDER}`,
    found: ({ label, album, artist, artistName, title, milliseconds }) => ({
      label: label!,
      note: `${artistName ?? ''} · ${title} · ${duration(milliseconds!)}`,
      href: linkTo({ view: 'artists', artist: artist!, album: album! }),
    }),
  },
  {
    title: 'Invoices',
    testId: 'found-invoices',
    sql: `select InvoiceId as id, FirstName || ' ' || LastName as label, InvoiceDate as date,
                 Total as total
          from Invoice join Customer using (CustomerId)
          where label like :part escape '\\' ${ORDER}`,
    found: ({ id, label, date, total }) => ({
      label: label!,
      note: `Invoice ${id} · ${day(date!)} · ${money(total!)}`,
      href: linkTo({ view: 'invoices', invoice: id! }),
    }),
  },
];

export class Search {
  readonly #shop: Shop;
  readonly #watches = new Watches();
  readonly #sections = new Map<Kind, { count: HTMLElement; list: HTMLElement }>();
  readonly element = h('div', { class: 'results', 'data-testid': 'results' });

  constructor(shop: Shop) {
    this.#shop = shop;
    for (const kind of KINDS) {
      const count = h('span', { class: 'count' });
      const list = h('ul', { 'data-testid': kind.testId });
      this.#sections.set(kind, { count, list });
      this.element.append(h('section', null, h('h2', null, kind.title, ' ', count), list));
    }
  }

  /** Shows what is found for `text`, and keeps showing it. */
  show(text: string): void {
    const pattern = text.replace(/[\\%_]/g, '\\$&');
    const params = { part: `%${pattern}%`, start: `${pattern}%` };
    for (const kind of KINDS) {
      this.#watches.set(kind.testId, text, () =>
        this.#shop.watch<Record<string, string & number>>(kind.sql, params, (rows) => {
          this.#showFound(kind, rows.map(kind.found), text);
        }),
      );
    }
  }

  end(): void {
    this.#watches.endAll();
  }

  #showFound(kind: Kind, found: Found[], text: string): void {
    const { count, list } = this.#sections.get(kind)!;
    count.textContent = found.length === 12 ? 'first 12' : String(found.length);
    fill(
      list,
      ...found.map(({ label, note, href }) =>
        h(
          'li',
          null,
          h(
            'a',
            { href, class: 'row-main' },
            h('span', { class: 'name' }, ...highlighted(label, text)),
            h('span', { class: 'note' }, note),
          ),
        ),
      ),
    );
  }
}

/** `label` with what was sought in it marked. */
function highlighted(label: string, text: string): (string | HTMLElement)[] {
  const at = label.toLowerCase().indexOf(text.toLowerCase());
  if (at < 0) return [label];
  const end = at + text.length;
  return [label.slice(0, at), h('mark', null, label.slice(at, end)), label.slice(end)];
}
