// Reads the INSERT statements of a SQL script, in the dialects that dumps come in: names in
// brackets, quotes or backticks, N'national' strings, several rows to a statement, statements
// with and without a semicolon. Whatever else the script does is skipped.

import type { Cell } from './tables.ts';

/** One INSERT statement. */
export interface Insert {
  table: string;
  /** As the statement names them, or null where it leaves them out. */
  columns: string[] | null;
  rows: Cell[][];
}

/** The script cannot be read; the message says where. */
export class SqlReadError extends Error {
  override name = 'SqlReadError';
}

/** The text of a script, which dumps write in UTF-8 or UTF-16, with and without a mark. */
export function decodeSql(bytes: Uint8Array): string {
  const [first, second] = bytes;
  let encoding = 'utf-8';
  if (first === 0xff && second === 0xfe) encoding = 'utf-16le';
  if (first === 0xfe && second === 0xff) encoding = 'utf-16be';
  return new TextDecoder(encoding).decode(bytes);
}

/** The INSERT statements of `sql`, in their order. */
export function* readInserts(sql: string): Generator<Insert, void, undefined> {
  const scanner = new Scanner(sql);
  for (;;) {
    const token = scanner.next();
    if (token.kind === 'end') return;
    if (isWord(token, 'INSERT') || isWord(token, 'REPLACE')) yield readInsert(scanner);
    // A separator of batches, which stands where others write a semicolon.
    else if (!isSymbol(token, ';') && !isWord(token, 'GO')) skipStatement(scanner, token);
  }
}

type Token =
  | { kind: 'word' | 'name' | 'string' | 'number' | 'symbol'; text: string }
  | { kind: 'end' };

function readInsert(scanner: Scanner): Insert {
  // INSERT [OR IGNORE] INTO [schema.]table
  let token = scanner.next();
  while (token.kind === 'word' && !isWord(token, 'INTO')) token = scanner.next();
  if (!isWord(token, 'INTO')) scanner.fail('INTO was expected', token);
  let table = readName(scanner);
  token = scanner.next();
  while (isSymbol(token, '.')) {
    table = readName(scanner);
    token = scanner.next();
  }
  let columns: string[] | null = null;
  if (isSymbol(token, '(')) {
    columns = [];
    do {
      columns.push(readName(scanner));
      token = scanner.next();
    } while (isSymbol(token, ','));
    if (!isSymbol(token, ')')) scanner.fail('a comma or a bracket was expected', token);
    token = scanner.next();
  }
  if (!isWord(token, 'VALUES')) {
    scanner.fail('VALUES was expected: rows that are computed cannot be read', token);
  }
  const rows: Cell[][] = [];
  do rows.push(readRow(scanner, columns?.length ?? rows[0]?.length));
  while (scanner.take(','));
  scanner.take(';');
  return { table, columns, rows };
}

function readRow(scanner: Scanner, length: number | undefined): Cell[] {
  const cells: Cell[] = [];
  let token = scanner.next();
  if (!isSymbol(token, '(')) scanner.fail('a row in brackets was expected', token);
  do {
    cells.push(readCell(scanner));
    token = scanner.next();
  } while (isSymbol(token, ','));
  if (!isSymbol(token, ')')) scanner.fail('a comma or a bracket was expected', token);
  if (length !== undefined && cells.length !== length) {
    scanner.fail(`a row of ${length} values was expected, not of ${cells.length}`, token);
  }
  return cells;
}

function readCell(scanner: Scanner): Cell {
  let token = scanner.next();
  if (token.kind === 'string') return token.text;
  if (isWord(token, 'NULL')) return null;
  if (isWord(token, 'TRUE')) return 1;
  if (isWord(token, 'FALSE')) return 0;
  let sign = '';
  if (isSymbol(token, '-') || isSymbol(token, '+')) {
    sign = token.text === '-' ? '-' : '';
    token = scanner.next();
  }
  if (token.kind !== 'number') {
    return scanner.fail('a number, a string or NULL was expected', token);
  }
  const number = Number(sign + token.text);
  const isInteger = /^\d+$/.test(token.text);
  // The column's affinity makes the number of it that a double cannot hold.
  return isInteger && !Number.isSafeInteger(number) ? sign + token.text : number;
}

function readName(scanner: Scanner): string {
  const token = scanner.next();
  if (token.kind === 'word' || token.kind === 'name' || token.kind === 'string') return token.text;
  return scanner.fail('a name was expected', token);
}

/** Reads on behind the semicolon. Those inside a trigger do not count. */
function skipStatement(scanner: Scanner, first: Token): void {
  let isTrigger = false;
  let depth = 0;
  for (let token = first; token.kind !== 'end'; token = scanner.next()) {
    if (isWord(first, 'CREATE') && isWord(token, 'TRIGGER')) isTrigger = true;
    if (isTrigger && (isWord(token, 'BEGIN') || isWord(token, 'CASE'))) depth++;
    if (isTrigger && isWord(token, 'END')) depth--;
    if (depth <= 0 && isSymbol(token, ';')) return;
  }
}

function isWord(token: Token, word: string): boolean {
  return token.kind === 'word' && token.text.toUpperCase() === word;
}

function isSymbol(token: Token, symbol: string): token is { kind: 'symbol'; text: string } {
  return token.kind === 'symbol' && token.text === symbol;
}

const SPACE = /[\s\uFEFF]+/y;
const LINE_COMMENT = /--[^\n]*/y;
const STRING = /[Nn]?('[^']*(?:''[^']*)*')/y;
const NAME = /\[([^\]]*)\]|"([^"]*(?:""[^"]*)*)"|`([^`]*(?:``[^`]*)*)`/y;
const NUMBER = /0[xX][\da-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?/y;
const WORD = /[\p{L}_][\p{L}\p{N}_$]*/uy;

class Scanner {
  readonly #text: string;
  #at = 0;
  /** Where the latest token began, for messages. */
  #began = 0;

  constructor(text: string) {
    this.#text = text;
  }

  next(): Token {
    this.#skipSpace();
    this.#began = this.#at;
    if (this.#at >= this.#text.length) return { kind: 'end' };
    const string = this.#match(STRING)?.[1];
    if (string) return { kind: 'string', text: string.slice(1, -1).replaceAll("''", "'") };
    const name = this.#match(NAME);
    if (name) return { kind: 'name', text: unquoted(name) };
    const number = this.#match(NUMBER)?.[0];
    if (number) return { kind: 'number', text: number };
    const word = this.#match(WORD)?.[0];
    if (word) return { kind: 'word', text: word };
    const symbol = this.#text[this.#at++]!;
    if (symbol === "'") this.fail('a string has no end');
    return { kind: 'symbol', text: symbol };
  }

  /** Goes over `symbol` if that comes next. */
  take(symbol: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#at] !== symbol) return false;
    this.#at++;
    return true;
  }

  fail(what: string, found?: Token): never {
    const line = this.#text.slice(0, this.#began).split('\n').length;
    let instead = '';
    if (found) instead = found.kind === 'end' ? ', the file ends' : `, found ${found.text}`;
    throw new SqlReadError(`line ${line}: ${what}${instead}`);
  }

  #skipSpace(): void {
    for (;;) {
      if (this.#match(SPACE) || this.#match(LINE_COMMENT)) continue;
      if (!this.#text.startsWith('/*', this.#at)) return;
      this.#began = this.#at;
      const end = this.#text.indexOf('*/', this.#at + 2);
      if (end < 0) this.fail('a comment has no end');
      this.#at = end + 2;
    }
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match) this.#at = pattern.lastIndex;
    return match;
  }
}

function unquoted([, bracketed, quoted, ticked]: RegExpExecArray): string {
  return bracketed ?? quoted?.replaceAll('""', '"') ?? ticked?.replaceAll('``', '`') ?? '';
}
