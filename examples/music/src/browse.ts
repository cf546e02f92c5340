// Artists, the albums of one, the tracks of one of those.

import { h } from '../../shared/dom.ts';
import { editInline } from '../../shared/inline-edit.ts';
import { newKey } from './chinook.ts';
import { duration, money, readDuration, readPrice } from './format.ts';
import { Pane, type PaneRow } from './pane.ts';
import { linkTo, type Route } from './route.ts';
import { type Shop, Watches } from './shop.ts';

interface Artist extends PaneRow {
  albums: number;
}

interface Album extends PaneRow {
  tracks: number;
  length: number;
}

interface Track extends PaneRow {
  composer: string | null;
  genre: string | null;
  milliseconds: number;
  price: number;
}

const ARTISTS = `
  select ArtistId as id, coalesce(Name, '(no name)') as name,
         (select count(*) from Album where Album.ArtistId = Artist.ArtistId) as albums
  from Artist order by name collate nocase, id`;

const ALBUMS = `
  select AlbumId as id, Title as name, count(TrackId) as tracks,
         coalesce(sum(Milliseconds), 0) as length
  from Album left join Track using (AlbumId)
  where ArtistId = :artist group by AlbumId order by Title collate nocase, AlbumId`;

const TRACKS = `
  select TrackId as id, Track.Name as name, Composer as composer, Genre.Name as genre,
         Milliseconds as milliseconds, UnitPrice as price
  from Track left join Genre using (GenreId) where AlbumId = :album order by TrackId`;

export class Browse {
  readonly #shop: Shop;
  readonly #watches = new Watches();
  #artist: number | null = null;
  #album: number | null = null;
  readonly #artists: Pane<Artist>;
  readonly #albums: Pane<Album>;
  readonly #tracks: Pane<Track>;
  readonly element: HTMLElement;

  constructor(shop: Shop) {
    this.#shop = shop;
    this.#artists = this.#makeArtists();
    this.#albums = this.#makeAlbums();
    this.#tracks = this.#makeTracks();
    this.element = h(
      'div',
      { class: 'panes', 'data-testid': 'browse' },
      this.#artists.element,
      this.#albums.element,
      this.#tracks.element,
    );
    this.#watches.set('artists', '', () =>
      shop.watch<Artist>(ARTISTS, {}, (rows) => this.#artists.show(rows)),
    );
  }

  show({ artist, album }: Route & { view: 'artists' }): void {
    this.#artist = artist;
    this.#album = album;
    // On a narrow page only the innermost pane is shown.
    this.element.dataset.depth = album !== null ? '3' : artist !== null ? '2' : '1';
    this.#albums.leadBack(linkTo({ view: 'artists', artist: null, album: null }));
    this.#tracks.leadBack(linkTo({ view: 'artists', artist, album: null }));
    this.#artists.choose(artist);
    this.#albums.choose(album);
    this.#showAlbums(artist);
    this.#showTracks(album);
  }

  end(): void {
    this.#watches.endAll();
  }

  #showAlbums(artist: number | null): void {
    if (artist === null) {
      this.#watches.end('albums');
      this.#albums.show(null);
      return;
    }
    this.#watches.set('albums', artist, () =>
      this.#shop.watch<Album>(ALBUMS, { artist }, (rows) => this.#albums.show(rows)),
    );
  }

  #showTracks(album: number | null): void {
    if (album === null) {
      this.#watches.end('tracks');
      this.#tracks.show(null);
      return;
    }
    this.#watches.set('tracks', album, () =>
      this.#shop.watch<Track>(TRACKS, { album }, (rows) => this.#tracks.show(rows)),
    );
  }

  #makeArtists(): Pane<Artist> {
    const shop = this.#shop;
    return new Pane<Artist>({
      title: 'Artists',
      testId: 'artists',
      empty: 'No artists yet.',
      link: ({ id }) => linkTo({ view: 'artists', artist: id, album: null }),
      note: ({ albums }) => (albums === 1 ? '1 album' : `${albums} albums`),
      rename: ({ id: artist }, name) => {
        shop.mutate('renameArtist', (db) => db.mutate.renameArtist({ artist, name }));
      },
      remove: ({ id: artist }) => {
        shop.mutate('removeArtist', (db) => db.mutate.removeArtist({ artist }));
      },
      addForm: addForm('artist', 'Add an artist…', (name) => {
        const artist = newKey();
        shop.mutate('addArtist', (db) => db.mutate.addArtist({ artist, name }));
        location.hash = linkTo({ view: 'artists', artist, album: null });
      }),
    });
  }

  #makeAlbums(): Pane<Album> {
    const shop = this.#shop;
    return new Pane<Album>({
      title: 'Albums',
      testId: 'albums',
      before: 'Artists',
      hint: 'Choose an artist.',
      empty: 'No albums of this artist.',
      link: ({ id }) => linkTo({ view: 'artists', artist: this.#artist, album: id }),
      note: ({ tracks, length }) =>
        tracks
          ? `${tracks} ${tracks === 1 ? 'track' : 'tracks'}, ${duration(length)}`
          : 'no tracks',
      rename: ({ id: album }, title) => {
        shop.mutate('renameAlbum', (db) => db.mutate.renameAlbum({ album, title }));
      },
      remove: ({ id: album }) => {
        shop.mutate('removeAlbum', (db) => db.mutate.removeAlbum({ album }));
      },
      addForm: addForm('album', 'Add an album…', (title) => {
        const artist = this.#artist;
        if (artist === null) return;
        const album = newKey();
        shop.mutate('addAlbum', (db) => db.mutate.addAlbum({ album, artist, title }));
        location.hash = linkTo({ view: 'artists', artist, album });
      }),
    });
  }

  #makeTracks(): Pane<Track> {
    const shop = this.#shop;
    return new Pane<Track>({
      title: 'Tracks',
      testId: 'tracks',
      before: 'Albums',
      hint: 'Choose an album.',
      empty: 'No tracks on this album.',
      note: ({ composer, genre }) => [genre, composer].filter(Boolean).join(' · '),
      tail: (track) => this.#tail(track),
      rename: ({ id: track }, name) => {
        shop.mutate('renameTrack', (db) => db.mutate.renameTrack({ track, name }));
      },
      remove: ({ id: track }) => {
        shop.mutate('removeTrack', (db) => db.mutate.removeTrack({ track }));
      },
      addForm: addForm('track', 'Add a track, as in “Low Tide 3:41”…', (text) => {
        const album = this.#album;
        if (album === null) return;
        const [, name, length] = /^(.*?)(?:\s+(\d{1,3}:\d{2}))?$/.exec(text) ?? [];
        if (!name) return;
        const milliseconds = readDuration(length ?? '') ?? 0;
        const added = { track: newKey(), album, name, milliseconds, price: 0.99 };
        shop.mutate('addTrack', (db) => db.mutate.addTrack(added));
      }),
    });
  }

  #tail({ id: track, name, milliseconds, price }: Track): HTMLElement {
    const cell: HTMLElement = h('span', { class: 'price' });
    const edit = () => {
      editInline({
        over: cell,
        value: price.toFixed(2),
        label: `New price for ${name}`,
        numeric: true,
        save: (text) => this.#setPrice(track, text),
        refocus: () => button.focus(),
      });
    };
    const button = h(
      'button',
      { type: 'button', title: 'Change the price', 'data-testid': 'price', onclick: edit },
      money(price),
    );
    cell.append(button);
    return h('span', null, h('span', { class: 'length' }, duration(milliseconds)), cell);
  }

  #setPrice(track: number, text: string): void {
    const price = readPrice(text);
    if (price === null) this.#shop.report(new Error(`“${text}” is no price`));
    else this.#shop.mutate('setPrice', (db) => db.mutate.setPrice({ track, price }));
  }
}

function addForm(what: string, placeholder: string, add: (text: string) => void): HTMLElement {
  const field = h('input', {
    class: 'field',
    placeholder,
    maxlength: 160,
    autocomplete: 'off',
    'aria-label': `New ${what}`,
    'data-testid': `add-${what}`,
  });
  const onsubmit = (event: Event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text) return;
    field.value = '';
    add(text);
  };
  return h('form', { class: 'add', onsubmit }, field);
}
