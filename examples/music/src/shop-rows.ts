// From the statements of a script to batches of rows that one mutation loads.

import { type Insert, SqlReadError } from './sql-inserts.ts';
import { type Cell, type Rows, TABLE_NAMES, TABLES, type Table } from './tables.ts';

/** Rows in one mutation: few enough that progress moves, enough that each is worth its flush. */
const BATCH_ROWS_MAX = 500;

/** All rows for the tables of the shop, in an order in which they can be loaded. */
export function shopRows(inserts: Iterable<Insert>): Rows[] {
  const found = new Map<Table, Cell[][]>(TABLE_NAMES.map((table) => [table, []]));
  for (const { table, columns, rows } of inserts) {
    const ours = TABLE_NAMES.find((name) => isSame(name, table));
    if (!ours) continue;
    const places = placesOf(ours, columns ?? TABLES[ours]);
    const all = found.get(ours)!;
    for (const row of rows) {
      if (row.length !== (columns ?? TABLES[ours]).length) {
        throw new SqlReadError(`a row for ${ours} has ${row.length} values`);
      }
      all.push(places.map((place) => (place < 0 ? null : row[place]!)));
    }
  }
  return TABLE_NAMES.map((table) => ({ table, rows: found.get(table)! })).filter(
    ({ rows }) => rows.length > 0,
  );
}

/** The same rows in pieces. */
export function* batchesOf(tables: readonly Rows[]): Generator<Rows, void, undefined> {
  for (const { table, rows } of tables) {
    for (let at = 0; at < rows.length; at += BATCH_ROWS_MAX) {
      yield { table, rows: rows.slice(at, at + BATCH_ROWS_MAX) };
    }
  }
}

/** For each column of the table its place among those given, or -1. */
function placesOf(table: Table, given: readonly string[]): number[] {
  const ours: readonly string[] = TABLES[table];
  const unknown = given.find((name) => !ours.some((column) => isSame(column, name)));
  if (unknown !== undefined) {
    throw new SqlReadError(`the table ${table} has no column ${unknown} here`);
  }
  return ours.map((column) => given.findIndex((name) => isSame(column, name)));
}

function isSame(one: string, other: string): boolean {
  return one.toLowerCase() === other.toLowerCase();
}
