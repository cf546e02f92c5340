/** Rows of an answer, from their bytes; unchanged ones keep their identity. */

import { type Bytes, Reader, type Value } from './codec.js';
import { QueryError } from './errors.js';

/** One row: its cells by the names of their columns. */
export type Row = Record<string, Value>;

/** An answer before its cells are looked at. */
export interface RowBytes {
  readonly columns: readonly string[];
  readonly count: number;
  /** Row after row, each with its size (u32) before it. */
  readonly cells: Bytes;
}

/** Reads a `Rows`. */
export function readRowBytes(r: Reader): RowBytes {
  return { columns: r.list(() => r.text()), count: r.u32(), cells: compact(r.bytes()) };
}

/** A view that is kept keeps its whole buffer: a copy is less where it is a small part of that. */
function compact(bytes: Bytes): Bytes {
  return 2 * bytes.length < bytes.buffer.byteLength ? bytes.slice() : bytes;
}

/** The rows as objects. */
export function decodeRows(rows: RowBytes): Row[] {
  mustDiffer(rows.columns);
  return decode(rows, decodeRow);
}

/** The rows as arrays. */
export function decodeValues(rows: RowBytes): Value[][] {
  return decode(rows, (reader, columns) => columns.map(() => reader.cell()));
}

function decode<R>(
  { columns, count, cells }: RowBytes,
  decodeOne: (reader: Reader, columns: readonly string[]) => R,
): R[] {
  const reader = new Reader(cells);
  const rows: R[] = [];
  while (rows.length < count) {
    reader.u32();
    rows.push(decodeOne(reader, columns));
  }
  return rows;
}

/** An object has one value of each name, and the others would be gone without a word. */
function mustDiffer(columns: readonly string[]): void {
  const twice = columns.find((name, index) => columns.indexOf(name) < index);
  if (twice === undefined) return;
  throw new QueryError(
    `two columns are named ${twice}: name one "... as another", or ask values()`,
  );
}

function decodeRow(reader: Reader, columns: readonly string[]): Row {
  const row: Row = {};
  for (const column of columns) {
    const value = reader.cell();
    if (column === '__proto__') own(row, column, value);
    else row[column] = value;
  }
  return row;
}

/** Assigned, this one name would be the row's prototype. */
function own(row: Row, column: string, value: Value): void {
  const how = { enumerable: true, configurable: true, writable: true };
  Object.defineProperty(row, column, { ...how, value });
}

/** Every byte has a letter of its own in it, so equal keys are equal bytes. */
const keys = new TextDecoder('latin1');

/** An answer with what is needed to compare it with the next one. */
export class Answered {
  /** The rows as objects. */
  readonly rows: readonly Row[];
  /** Whether these are the rows of the answer before, every one in its place. */
  readonly same: boolean;
  readonly #columns: string;
  readonly #cells: Bytes;
  /** Where each row begins, and where the last one ends. */
  readonly #starts: Uint32Array;

  /** Decodes `bytes`, and takes from `before` the objects of rows that it has already. */
  constructor({ columns, count, cells }: RowBytes, before?: Answered) {
    mustDiffer(columns);
    this.#columns = columns.join('\0');
    this.#cells = cells;
    this.#starts = startsOf(cells, count);
    const old = before && before.#columns === this.#columns ? before : undefined;
    const reader = new Reader(cells);
    const rows: Row[] = new Array(count);
    const decode = (index: number): Row => {
      reader.seek(this.#starts[index]! + 4);
      return decodeRow(reader, columns);
    };

    let head = 0;
    const shared = Math.min(count, old?.rows.length ?? 0);
    for (; head < shared && this.#equals(head, old!, head); head++) rows[head] = old!.rows[head]!;
    let end = count;
    const ahead = (old?.rows.length ?? 0) - count;
    while (end > head && end + ahead > head && this.#equals(end - 1, old!, end - 1 + ahead)) {
      end--;
      rows[end] = old!.rows[end + ahead]!;
    }
    const known = head < end && old ? old.#index(head, end + ahead) : undefined;
    for (let index = head; index < end; index++) {
      rows[index] = known?.get(this.#key(index)) ?? decode(index);
    }
    // One list is told to all who listen, and is what the next one is compared with.
    this.rows = Object.freeze(rows);
    this.same = old !== undefined && head === count && ahead === 0;
  }

  /** The rows of `start..end` by their bytes. */
  #index(start: number, end: number): Map<string, Row> {
    const index = new Map<string, Row>();
    for (let at = start; at < end; at++) index.set(this.#key(at), this.rows[at]!);
    return index;
  }

  #key(index: number): string {
    return keys.decode(this.#cells.subarray(this.#starts[index], this.#starts[index + 1]));
  }

  #equals(index: number, other: Answered, otherIndex: number): boolean {
    let mine = this.#starts[index]!;
    let theirs = other.#starts[otherIndex]!;
    const end = this.#starts[index + 1]!;
    if (end - mine !== other.#starts[otherIndex + 1]! - theirs) return false;
    while (mine < end && this.#cells[mine] === other.#cells[theirs]) {
      mine++;
      theirs++;
    }
    return mine === end;
  }
}

function startsOf(cells: Bytes, count: number): Uint32Array {
  const starts = new Uint32Array(count + 1);
  const view = new DataView(cells.buffer, cells.byteOffset);
  for (let index = 0, at = 0; index < count; index++) {
    at += 4 + view.getUint32(at, true);
    starts[index + 1] = at;
  }
  return starts;
}
