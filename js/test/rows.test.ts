import { expect, test } from 'vitest';
import { Reader, Writer } from '../src/codec.js';
import { Answered, decodeRows, decodeValues, type RowBytes, readRowBytes } from '../src/rows.js';

/** Rows of one text column, as `Rows::push` of crate `types` encodes them. */
function rowsOf(texts: readonly string[], columns: readonly string[] = ['a']): RowBytes {
  const writer = new Writer();
  for (const text of texts) {
    const bytes = new TextEncoder().encode(text);
    writer.u32(5 + bytes.length);
    writer.u8(3);
    writer.u32(bytes.length);
    writer.raw(bytes);
  }
  return { columns, count: texts.length, cells: writer.take() };
}

const letters = (text: string): RowBytes => rowsOf([...text]);

test.each([
  ['one is added at the end', 'abc', 'abcd'],
  ['one is added at the start', 'abc', 'xabc'],
  ['one in the middle changes', 'abc', 'axc'],
  ['one is removed', 'abcd', 'abd'],
  ['all move', 'abcde', 'edcba'],
  ['some repeat', 'aabba', 'abab'],
  ['none are left', 'abc', ''],
  ['there were none', '', 'abc'],
  ['all are new', 'abc', 'xyz'],
])('rows that did not change keep their identity when %s', (_, before, after) => {
  const first = new Answered(letters(before));
  const second = new Answered(letters(after), first);
  expect(second.rows).toEqual([...after].map((a) => ({ a })));
  expect(second.same).toBe(false);
  for (const row of second.rows) {
    const equal = first.rows.filter((old) => old.a === row.a);
    expect(equal.length === 0 || equal.includes(row)).toBe(true);
  }
});

test('rows that are kept do not keep the whole list of messages that they came in', () => {
  const { cells } = letters('abc');
  for (const [others, kept] of [
    [1 << 16, cells.length],
    [8, cells.length + 28],
  ] as const) {
    const writer = new Writer();
    writer.raw(new Uint8Array(others));
    writer.list([], () => {});
    writer.u32(3);
    writer.bytes(cells);
    const reader = new Reader(writer.take());
    reader.seek(others);
    const rows = readRowBytes(reader);
    expect(decodeRows({ ...rows, columns: ['a'] })).toEqual([{ a: 'a' }, { a: 'b' }, { a: 'c' }]);
    expect(rows.cells.buffer.byteLength).toBe(kept);
  }
});

test.each(['__proto__', 'constructor', 'toString'])('a column %s is like any other', (name) => {
  const rows = rowsOf(['abc'], [name]);
  for (const [row] of [decodeRows(rows), new Answered(rows).rows]) {
    expect(Object.entries(row!)).toEqual([[name, 'abc']]);
    expect(Object.getPrototypeOf(row)).toBe(Object.prototype);
  }
});

test('a list that is told cannot be changed by whoever is told it', () => {
  const { rows } = new Answered(letters('ab'));
  expect(() => (rows as unknown[]).reverse()).toThrow(TypeError);
  expect(new Answered(letters('abc'), new Answered(letters('ab'))).rows).toHaveLength(3);
});

test('the same rows again are known to be the same', () => {
  const first = new Answered(letters('abc'));
  const second = new Answered(letters('abc'), first);
  expect(second.same).toBe(true);
  expect(second.rows.every((row, index) => row === first.rows[index])).toBe(true);
});

test('rows under other columns are other rows', () => {
  const first = new Answered(rowsOf(['x']));
  const second = new Answered(rowsOf(['x'], ['b']), first);
  expect(second.rows).toEqual([{ b: 'x' }]);
  expect(second.same).toBe(false);
});

test('a row that begins like another one is another one', () => {
  const first = new Answered(rowsOf(['abc', 'abcd']));
  const second = new Answered(rowsOf(['abcd', 'abce']), first);
  expect(second.rows).toEqual([{ a: 'abcd' }, { a: 'abce' }]);
  expect(second.rows[0]).toBe(first.rows[1]);
});

test('two columns of one name are told of, and both are there in arrays', () => {
  const { cells } = letters('ab');
  const writer = new Writer();
  // Both cells in one row: each of the two had its size before it.
  writer.u32(cells.length - 8);
  writer.raw(cells.slice(4, 10));
  writer.raw(cells.slice(14));
  const rows: RowBytes = { columns: ['id', 'id'], count: 1, cells: writer.take() };
  expect(() => decodeRows(rows)).toThrow('two columns are named id');
  expect(() => new Answered(rows)).toThrow('two columns are named id');
  expect(decodeValues(rows)).toEqual([['a', 'b']]);
});
