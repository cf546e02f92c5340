// The eleven tables of the Chinook database and their columns, in an order in which rows can be
// loaded: what is referred to comes first.

export const TABLES = {
  Genre: ['GenreId', 'Name'],
  MediaType: ['MediaTypeId', 'Name'],
  Artist: ['ArtistId', 'Name'],
  Album: ['AlbumId', 'Title', 'ArtistId'],
  Track: [
    'TrackId',
    'Name',
    'AlbumId',
    'MediaTypeId',
    'GenreId',
    'Composer',
    'Milliseconds',
    'Bytes',
    'UnitPrice',
  ],
  Employee: [
    'EmployeeId',
    'LastName',
    'FirstName',
    'Title',
    'ReportsTo',
    'BirthDate',
    'HireDate',
    'Address',
    'City',
    'State',
    'Country',
    'PostalCode',
    'Phone',
    'Fax',
    'Email',
  ],
  Customer: [
    'CustomerId',
    'FirstName',
    'LastName',
    'Company',
    'Address',
    'City',
    'State',
    'Country',
    'PostalCode',
    'Phone',
    'Fax',
    'Email',
    'SupportRepId',
  ],
  Invoice: [
    'InvoiceId',
    'CustomerId',
    'InvoiceDate',
    'BillingAddress',
    'BillingCity',
    'BillingState',
    'BillingCountry',
    'BillingPostalCode',
    'Total',
  ],
  InvoiceLine: ['InvoiceLineId', 'InvoiceId', 'TrackId', 'UnitPrice', 'Quantity'],
  Playlist: ['PlaylistId', 'Name'],
  PlaylistTrack: ['PlaylistId', 'TrackId'],
} as const satisfies Record<string, readonly string[]>;

export type Table = keyof typeof TABLES;

export const TABLE_NAMES = Object.keys(TABLES) as Table[];

/** What stands in one column of one row, in a form that JSON can carry. */
export type Cell = string | number | null;

/** Rows of one table, their cells in the order of its columns. */
export interface Rows {
  table: Table;
  rows: Cell[][];
}
