// What a music shop is: the Chinook schema, and every change that can be made to it. The types of
// the columns are those of Chinook, so that rows come out as they do in any other SQLite.

import { doctype, mutation } from 'tidelog';
import { TABLE_NAMES, TABLES, type Table } from './tables.ts';

const SCHEMA = `
  create table Genre (GenreId integer not null primary key, Name nvarchar(120));

  create table MediaType (MediaTypeId integer not null primary key, Name nvarchar(120));

  create table Artist (ArtistId integer not null primary key, Name nvarchar(120));

  create table Album (
    AlbumId integer not null primary key,
    Title nvarchar(160) not null,
    ArtistId integer not null references Artist
  );
  create index AlbumArtist on Album (ArtistId);

  create table Track (
    TrackId integer not null primary key,
    Name nvarchar(200) not null,
    AlbumId integer references Album,
    MediaTypeId integer not null references MediaType,
    GenreId integer references Genre,
    Composer nvarchar(220),
    Milliseconds integer not null,
    Bytes integer,
    UnitPrice numeric(10, 2) not null
  );
  create index TrackAlbum on Track (AlbumId);
  create index TrackGenre on Track (GenreId);
  create index TrackMediaType on Track (MediaTypeId);

  create table Employee (
    EmployeeId integer not null primary key,
    LastName nvarchar(20) not null,
    FirstName nvarchar(20) not null,
    Title nvarchar(30),
    ReportsTo integer references Employee,
    BirthDate datetime,
    HireDate datetime,
    Address nvarchar(70),
    City nvarchar(40),
    State nvarchar(40),
    Country nvarchar(40),
    PostalCode nvarchar(10),
    Phone nvarchar(24),
    Fax nvarchar(24),
    Email nvarchar(60)
  );
  create index EmployeeReportsTo on Employee (ReportsTo);

  create table Customer (
    CustomerId integer not null primary key,
    FirstName nvarchar(40) not null,
    LastName nvarchar(20) not null,
    Company nvarchar(80),
    Address nvarchar(70),
    City nvarchar(40),
    State nvarchar(40),
    Country nvarchar(40),
    PostalCode nvarchar(10),
    Phone nvarchar(24),
    Fax nvarchar(24),
    Email nvarchar(60) not null,
    SupportRepId integer references Employee
  );
  create index CustomerSupportRep on Customer (SupportRepId);

  create table Invoice (
    InvoiceId integer not null primary key,
    CustomerId integer not null references Customer,
    InvoiceDate datetime not null,
    BillingAddress nvarchar(70),
    BillingCity nvarchar(40),
    BillingState nvarchar(40),
    BillingCountry nvarchar(40),
    BillingPostalCode nvarchar(10),
    Total numeric(10, 2) not null
  );
  create index InvoiceCustomer on Invoice (CustomerId);

  create table InvoiceLine (
    InvoiceLineId integer not null primary key,
    InvoiceId integer not null references Invoice,
    TrackId integer not null references Track,
    UnitPrice numeric(10, 2) not null,
    Quantity integer not null
  );
  create index InvoiceLineInvoice on InvoiceLine (InvoiceId);
  create index InvoiceLineTrack on InvoiceLine (TrackId);

  create table Playlist (PlaylistId integer not null primary key, Name nvarchar(120));

  create table PlaylistTrack (
    PlaylistId integer not null references Playlist,
    TrackId integer not null references Track,
    primary key (PlaylistId, TrackId)
  );
  create index PlaylistTrackTrack on PlaylistTrack (TrackId);
`;

/**
 * Loads rows, each a JSON array of cells. Rows whose key is taken stay as they are, so that an
 * import can be done again after it was cut short.
 */
function load(table: Table) {
  const columns = TABLES[table];
  const cells = columns.map((_, index) => `value ->> ${index}`);
  return mutation(
    { rows: 'json' },
    `insert into ${table} (${columns.join(', ')})
     select ${cells.join(', ')} from json_each(:rows) where true
     on conflict do nothing`,
  );
}

/** Rejects with `reason` unless there is a row. */
function mustExist(table: Table, key: string, reason: string): string {
  return `select reject('${reason}')
          where not exists (select 1 from ${table} where ${table}Id = :${key})`;
}

const ARTIST_EXISTS = mustExist('Artist', 'artist', 'the artist was removed meanwhile');
const ALBUM_EXISTS = mustExist('Album', 'album', 'the album was removed meanwhile');
const TRACK_EXISTS = mustExist('Track', 'track', 'the track was removed meanwhile');
const LINE_EXISTS = mustExist('InvoiceLine', 'line', 'the line was removed meanwhile');

const needsText = (parameter: string) =>
  `select reject('a ${parameter} is needed') where trim(:${parameter}) = ''`;

const PRICE_FITS = `select reject('a price lies between 0 and 1000')
                    where :price not between 0 and 1000`;

/** A total is what its lines come to; `round` takes away what binary fractions add. */
const newTotal = (invoice: string) =>
  `update Invoice set Total = coalesce(
     (select round(sum(UnitPrice * Quantity), 2) from InvoiceLine l
      where l.InvoiceId = Invoice.InvoiceId), 0)
   where InvoiceId = ${invoice}`;

const INVOICE_OF_LINE = `(select InvoiceId from InvoiceLine where InvoiceLineId = :line)`;

export const chinook = doctype({
  name: 'chinook',
  migrations: [SCHEMA],
  mutations: {
    loadGenre: load('Genre'),
    loadMediaType: load('MediaType'),
    loadArtist: load('Artist'),
    loadAlbum: load('Album'),
    loadTrack: load('Track'),
    loadEmployee: load('Employee'),
    loadCustomer: load('Customer'),
    loadInvoice: load('Invoice'),
    loadInvoiceLine: load('InvoiceLine'),
    loadPlaylist: load('Playlist'),
    loadPlaylistTrack: load('PlaylistTrack'),
    empty: mutation(
      {},
      TABLE_NAMES.toReversed().map((table) => `delete from ${table}`),
    ),

    addArtist: mutation({ artist: 'integer', name: 'text' }, [
      needsText('name'),
      `insert into Artist (ArtistId, Name) values (:artist, trim(:name))`,
    ]),
    renameArtist: mutation({ artist: 'integer', name: 'text' }, [
      ARTIST_EXISTS,
      needsText('name'),
      `update Artist set Name = trim(:name) where ArtistId = :artist`,
    ]),
    // The foreign keys would refuse these too, in words that say less.
    removeArtist: mutation({ artist: 'integer' }, [
      `select reject('this artist has ' || count(*) || ' albums: remove those first')
       from Album where ArtistId = :artist having count(*) > 0`,
      `delete from Artist where ArtistId = :artist`,
    ]),

    addAlbum: mutation({ album: 'integer', artist: 'integer', title: 'text' }, [
      ARTIST_EXISTS,
      needsText('title'),
      `insert into Album (AlbumId, Title, ArtistId) values (:album, trim(:title), :artist)`,
    ]),
    renameAlbum: mutation({ album: 'integer', title: 'text' }, [
      ALBUM_EXISTS,
      needsText('title'),
      `update Album set Title = trim(:title) where AlbumId = :album`,
    ]),
    removeAlbum: mutation({ album: 'integer' }, [
      `select reject('this album has ' || count(*) || ' tracks: remove those first')
       from Track where AlbumId = :album having count(*) > 0`,
      `delete from Album where AlbumId = :album`,
    ]),

    // A new track is of the kind that its album is of, or else of the first kind there is.
    addTrack: mutation(
      { track: 'integer', album: 'integer', name: 'text', milliseconds: 'integer', price: 'real' },
      [
        ALBUM_EXISTS,
        needsText('name'),
        PRICE_FITS,
        `insert into MediaType (MediaTypeId, Name) select 1, 'Audio file'
         where not exists (select 1 from MediaType)`,
        `insert into Track (TrackId, Name, AlbumId, MediaTypeId, GenreId, Milliseconds, UnitPrice)
         values (
           :track, trim(:name), :album,
           coalesce((select min(MediaTypeId) from Track where AlbumId = :album),
                    (select min(MediaTypeId) from MediaType)),
           (select min(GenreId) from Track where AlbumId = :album),
           :milliseconds, :price
         )`,
      ],
    ),
    renameTrack: mutation({ track: 'integer', name: 'text' }, [
      TRACK_EXISTS,
      needsText('name'),
      `update Track set Name = trim(:name) where TrackId = :track`,
    ]),
    setPrice: mutation({ track: 'integer', price: 'real' }, [
      TRACK_EXISTS,
      PRICE_FITS,
      `update Track set UnitPrice = :price where TrackId = :track`,
    ]),
    removeTrack: mutation({ track: 'integer' }, [
      `select reject('this track has been sold, on ' || count(*) || ' invoice line'
                     || iif(count(*) > 1, 's', '') || ', and has to stay')
       from InvoiceLine where TrackId = :track having count(*) > 0`,
      `delete from PlaylistTrack where TrackId = :track`,
      `delete from Track where TrackId = :track`,
    ]),

    setQuantity: mutation({ line: 'integer', quantity: 'integer' }, [
      LINE_EXISTS,
      `select reject('a quantity lies between 1 and 99') where :quantity not between 1 and 99`,
      `update InvoiceLine set Quantity = :quantity where InvoiceLineId = :line`,
      newTotal(INVOICE_OF_LINE),
    ]),
    removeLine: mutation({ line: 'integer', invoice: 'integer' }, [
      `delete from InvoiceLine where InvoiceLineId = :line and InvoiceId = :invoice`,
      newTotal(':invoice'),
    ]),
    removeInvoice: mutation({ invoice: 'integer' }, [
      `delete from InvoiceLine where InvoiceId = :invoice`,
      `delete from Invoice where InvoiceId = :invoice`,
    ]),
  },
});

/**
 * A key for a new row that no other device will choose: two that add while offline must not get
 * the same, as they would with the next free number.
 */
export function newKey(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high! % 2 ** 20) * 2 ** 32 + low! + 1;
}
