// A shop of our own making, for where the Chinook file is not at hand. Every name is invented.

import type { Cell, Rows } from './tables.ts';

const GENRES = ['Harbour Folk', 'Slow Electronica', 'Brass', 'Night Jazz', 'Loud'];

/** Artist, genre (counted from 1), and albums: a title, and five tracks. */
const CATALOGUE: [string, number, [string, string[]][]][] = [
  [
    'The Tidekeepers',
    1,
    [
      ['Low Water', ['Salt Road', 'Nets', 'The Long Jetty', 'Half a Harbour', 'Low Water']],
      ['Ferry Songs', ['Last Ferry', 'Rope and Tar', 'Ada at the Rail', 'Two Bells', 'Ashore']],
    ],
  ],
  [
    'Quiet Modem',
    2,
    [
      ['Handshake', ['Dial', 'Carrier', '2400', 'Echo Cancelled', 'Hang Up']],
      ['Packet Loss', ['Resend', 'Window of Eight', 'Ack', 'Out of Order', 'Good Night, Router']],
    ],
  ],
  [
    'Orchestre du Hangar 9',
    3,
    [
      ['Tôle ondulée', ['Ouverture', 'La grue', 'Pluie sur le zinc', "L'équipe de nuit", 'Sirène']],
      ['Marche lente', ['Pas à pas', 'Le quai', 'Cuivres', 'Huit heures', 'Rideau']],
    ],
  ],
  [
    'Mirela Voss Trio',
    4,
    [
      ['After the Kitchen', ['Blue Plate', 'Steam', 'Waiter, Waltz', 'Table Four', 'Lights']],
      ['Corner Seat', ['Rain Check', 'Small Talk', 'Olive', 'The Other Door', 'One for the Tram']],
    ],
  ],
  [
    'Gravel Parade',
    5,
    [
      ['Louder Than the Fridge', ['Plug', 'Fuse', 'Neighbours', 'Eviction', 'Louder']],
      ['Third Garage on the Left', ['Rust', 'Oil Can', 'Borrowed Amp', 'Curfew', 'Again!']],
    ],
  ],
  [
    'Nine Small Lakes',
    2,
    [
      ['Shoreline Study', ['Reed', 'Heron', 'Thin Ice', 'A Map of Mist', 'Evening Count']],
      ['Winter Instruments', ['Frost', 'Glass Piano', 'Woodstove', 'Snow Plough', 'Thaw']],
    ],
  ],
];

const CUSTOMERS: [string, string, string, string, string][] = [
  ['Ines', 'Okafor', 'Lisboa', 'Portugal', 'Rua do Sal 14'],
  ['Jonas', 'Hallström', 'Umeå', 'Sweden', 'Storgatan 3'],
  ['Priya', 'Nair', 'Kochi', 'India', '8 Bazaar Road'],
  ['Tomás', 'Rey', 'Valparaíso', 'Chile', 'Cerro Alegre 220'],
  ['Wren', 'Abbott', 'Galway', 'Ireland', '5 Quay Lane'],
];

const TRACKS_PER_ALBUM = 5;
const INVOICES_COUNT = 9;
const LINES_PER_INVOICE = 3;

/** All rows of the shop, in an order in which they can be loaded. Always the same ones. */
export function smallShop(): Rows[] {
  const artists: Cell[][] = [];
  const albums: Cell[][] = [];
  const tracks: Cell[][] = [];
  for (const [artist, genre, discography] of CATALOGUE) {
    artists.push([artists.length + 1, artist]);
    for (const [title, names] of discography) {
      albums.push([albums.length + 1, title, artists.length]);
      for (const name of names) {
        const id = tracks.length + 1;
        const milliseconds = 121_000 + ((id * 37_717) % 240_000);
        const bytes = milliseconds * 24;
        const media = 1 + (id % 2);
        const composer = id % 3 === 0 ? null : artist;
        const price = priceOf(id) / 100;
        const track = [id, name, albums.length, media, genre, composer, milliseconds, bytes, price];
        tracks.push(track);
      }
    }
  }
  const { invoices, lines } = sales(tracks.length);
  return [
    { table: 'Genre', rows: GENRES.map((name, index) => [index + 1, name]) },
    {
      table: 'MediaType',
      rows: [1, 2].map((id) => [id, ['Lossless file', 'Compact file'][id - 1]!]),
    },
    { table: 'Artist', rows: artists },
    { table: 'Album', rows: albums },
    { table: 'Track', rows: tracks },
    { table: 'Employee', rows: employees() },
    { table: 'Customer', rows: CUSTOMERS.map(customer) },
    { table: 'Invoice', rows: invoices },
    { table: 'InvoiceLine', rows: lines },
    {
      table: 'Playlist',
      rows: [
        [1, 'Closing time'],
        [2, 'Counter favourites'],
      ],
    },
    { table: 'PlaylistTrack', rows: playlists(tracks.length) },
  ];
}

/** In cents: every album has one track that costs more. */
function priceOf(track: number): number {
  return track % TRACKS_PER_ALBUM === 1 ? 129 : 99;
}

function sales(tracks: number): { invoices: Cell[][]; lines: Cell[][] } {
  const invoices: Cell[][] = [];
  const lines: Cell[][] = [];
  for (let invoice = 1; invoice <= INVOICES_COUNT; invoice++) {
    let total = 0;
    for (let line = 0; line < LINES_PER_INVOICE; line++) {
      const track = 1 + ((invoice * 17 + line * 23) % tracks);
      const quantity = 1 + ((invoice + line) % 2);
      total += priceOf(track) * quantity;
      lines.push([lines.length + 1, invoice, track, priceOf(track) / 100, quantity]);
    }
    const buyer = (invoice * 2) % CUSTOMERS.length;
    const [, , city, country, street] = CUSTOMERS[buyer]!;
    const date = `2025-0${invoice}-1${invoice % 9} 00:00:00`;
    invoices.push([invoice, buyer + 1, date, street, city, null, country, null, total / 100]);
  }
  return { invoices, lines };
}

function employees(): Cell[][] {
  const address = ['1 Counter Street', 'Galway', null, 'Ireland', null, null, null];
  const person = (id: number, last: string, first: string, title: string, boss: number | null) => {
    const email = `${first.toLowerCase()}@shop.example`;
    return [id, last, first, title, boss, null, '2024-05-01 00:00:00', ...address, email];
  };
  return [
    person(1, 'Quill', 'Marta', 'Owner', null),
    person(2, 'Dunne', 'Felix', 'Sales', 1),
    person(3, 'Sato', 'Emi', 'Sales', 1),
  ];
}

function customer(
  [first, last, city, country, street]: [string, string, string, string, string],
  index: number,
): Cell[] {
  const email = `${first.toLowerCase()}@mail.example`.normalize('NFD').replace(/\p{M}/gu, '');
  const [company, state, postalCode, phone, fax] = [null, null, null, null, null];
  const rep = 2 + (index % 2);
  const place = [street, city, state, country, postalCode];
  return [index + 1, first, last, company, ...place, phone, fax, email, rep];
}

function playlists(tracks: number): Cell[][] {
  const rows: Cell[][] = [];
  for (let track = 1; track <= tracks; track += 4) rows.push([1 + (track % 2), track]);
  return rows;
}
