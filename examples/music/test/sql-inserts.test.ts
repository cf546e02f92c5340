import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { batchesOf, shopRows } from '../src/shop-rows.ts';
import { decodeSql, readInserts, SqlReadError } from '../src/sql-inserts.ts';

const rowsOf = (sql: string) => [...readInserts(sql)].flatMap(({ rows }) => rows);
const valuesOf = (list: string) => rowsOf(`INSERT INTO t VALUES (${list})`)[0];

describe('reading INSERT statements', () => {
  test('names come in brackets, quotes, backticks, with a schema, or bare', () => {
    for (const name of [
      '[Artist]',
      '"Artist"',
      '`Artist`',
      'Artist',
      '[dbo].[Artist]',
      "'Artist'",
    ]) {
      const sql = `INSERT INTO ${name} ([ArtistId], "Name") VALUES (1, 'x');`;
      expect([...readInserts(sql)]).toEqual([
        { table: 'Artist', columns: ['ArtistId', 'Name'], rows: [[1, 'x']] },
      ]);
    }
    expect([...readInserts('insert or ignore into "a""b" values (1)')][0]).toEqual({
      table: 'a"b',
      columns: null,
      rows: [[1]],
    });
  });

  test('one statement holds several rows', () => {
    expect(rowsOf("INSERT INTO t (a, b) VALUES (1, 'a'),\n  (2, 'b') , (3,'c');")).toEqual([
      [1, 'a'],
      [2, 'b'],
      [3, 'c'],
    ]);
  });

  test('strings keep quotes, semicolons, brackets, line ends and letters of all kinds', () => {
    expect(
      valuesOf("N'Let''s Get It Up', '', '''', 'a;b) -- c /* d', 'x\ny', 'Antônio 🎧'"),
    ).toEqual(["Let's Get It Up", '', "'", 'a;b) -- c /* d', 'x\ny', 'Antônio 🎧']);
    expect(valuesOf("n'a', 'N''b'")).toEqual(['a', "N'b"]);
  });

  test('dates stay the text that they are', () => {
    expect(valuesOf("'2009-01-01 00:00:00', '2009/1/1'")).toEqual([
      '2009-01-01 00:00:00',
      '2009/1/1',
    ]);
  });

  test('numbers and words', () => {
    expect(valuesOf('0, -7, +3, 0.99, -.5, 1e3, 1.98, 0x1F, NULL, null, true, FALSE')).toEqual([
      0,
      -7,
      3,
      0.99,
      -0.5,
      1000,
      1.98,
      31,
      null,
      null,
      1,
      0,
    ]);
  });

  test('an integer that a double cannot hold keeps its digits', () => {
    expect(valuesOf('9007199254740993, -9223372036854775808')).toEqual([
      '9007199254740993',
      '-9223372036854775808',
    ]);
  });

  test('comments and other statements are passed over', () => {
    const sql = `
      /* INSERT INTO t VALUES (1); it's */ -- INSERT INTO t VALUES (2);
      PRAGMA foreign_keys=OFF; DROP TABLE IF EXISTS [t];
      CREATE TABLE t (a INTEGER DEFAULT (1), b TEXT DEFAULT 'x;y');
      BEGIN TRANSACTION;
      CREATE TRIGGER r AFTER INSERT ON t BEGIN
        UPDATE t SET a = CASE WHEN a > 1 THEN 2 ELSE 3 END;
        INSERT INTO t VALUES (new.a);
      END;
      INSERT INTO t VALUES (3) -- a comment after the row
      ;
      COMMIT;`;
    expect(rowsOf(sql)).toEqual([[3]]);
  });

  test('statements need no semicolon between them', () => {
    const sql = 'INSERT INTO t VALUES (1)\nGO\nINSERT INTO t VALUES (2)\nINSERT INTO t VALUES (3)';
    expect(rowsOf(sql)).toEqual([[1], [2], [3]]);
  });

  test('what follows the rows does not matter', () => {
    expect(
      rowsOf('INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING; INSERT INTO t VALUES (2)'),
    ).toEqual([[1], [2]]);
  });

  test('an empty script has no statements', () => {
    expect(rowsOf('')).toEqual([]);
    expect(rowsOf('\uFEFF -- nothing')).toEqual([]);
  });

  test.each([
    ['INSERT INTO t VALUES (1, );', 'line 1: a number, a string or NULL was expected, found )'],
    ["\n\nINSERT INTO t VALUES ('a;", 'line 3: a string has no end'],
    ['/* a', 'line 1: a comment has no end'],
    ['INSERT INTO t\nSELECT 1;', 'line 2: VALUES was expected'],
    ['INSERT INTO t VALUES (date());', 'found date'],
    ["INSERT INTO t VALUES (x'00');", 'found x'],
    ['INSERT INTO t (a, b) VALUES (1);', 'a row of 2 values was expected, not of 1'],
    ['INSERT INTO t VALUES (1, 2), (3);', 'a row of 2 values was expected, not of 1'],
    ['INSERT INTO t VALUES (1', 'the file ends'],
  ])('%j is refused in words', (sql, message) => {
    expect(() => rowsOf(sql)).toThrow(SqlReadError);
    expect(() => rowsOf(sql)).toThrow(message);
  });
});

test('scripts are in UTF-8 or UTF-16, with and without a mark', () => {
  const text = "INSERT INTO t VALUES ('é');";
  const utf8 = new TextEncoder().encode(text);
  const utf16 = (mark: number[], littleEndian: boolean) => {
    const bytes = new Uint8Array(2 + text.length * 2);
    bytes.set(mark);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < text.length; i++) {
      view.setUint16(2 + i * 2, text.charCodeAt(i), littleEndian);
    }
    return bytes;
  };
  for (const bytes of [
    utf8,
    new Uint8Array([0xef, 0xbb, 0xbf, ...utf8]),
    utf16([0xff, 0xfe], true),
    utf16([0xfe, 0xff], false),
  ]) {
    expect(decodeSql(bytes)).toBe(text);
  }
});

describe('rows for the shop', () => {
  test('tables come in an order in which they can be loaded, others are left out', () => {
    const sql = `INSERT INTO Album VALUES (1, 'x', 7); INSERT INTO sqlite_sequence VALUES ('a', 1);
                 INSERT INTO ARTIST (name, ARTISTID) VALUES ('y', 7);
                 INSERT INTO Genre VALUES (1, NULL);`;
    expect(shopRows(readInserts(sql))).toEqual([
      { table: 'Genre', rows: [[1, null]] },
      { table: 'Artist', rows: [[7, 'y']] },
      { table: 'Album', rows: [[1, 'x', 7]] },
    ]);
  });

  test('a column that is left out is null, one that is unknown is refused', () => {
    expect(shopRows(readInserts('INSERT INTO Artist (ArtistId) VALUES (1)'))[0]?.rows).toEqual([
      [1, null],
    ]);
    expect(() => shopRows(readInserts('INSERT INTO Artist (Nick) VALUES (1)'))).toThrow(
      'the table Artist has no column Nick here',
    );
    expect(() => shopRows(readInserts('INSERT INTO Artist VALUES (1)'))).toThrow(SqlReadError);
  });

  test('batches hold at most 500 rows of one table', () => {
    const rows = Array.from({ length: 1001 }, (_, index) => [index, null]);
    const batches = [
      ...batchesOf([
        { table: 'Genre', rows },
        { table: 'Artist', rows: [[1, 'x']] },
      ]),
    ];
    expect(batches.map((batch) => [batch.table, batch.rows.length])).toEqual([
      ['Genre', 500],
      ['Genre', 500],
      ['Genre', 1],
      ['Artist', 1],
    ]);
  });
});

const data = process.env.TIDELOG_DATA ?? join(import.meta.dirname, '../../../../shared/data');
const chinook = join(data, 'sql/Chinook_Sqlite.sql');

test.skipIf(!existsSync(chinook))('the Chinook file is read whole', () => {
  const tables = shopRows(readInserts(decodeSql(readFileSync(chinook))));
  expect(Object.fromEntries(tables.map(({ table, rows }) => [table, rows.length]))).toEqual({
    Genre: 25,
    MediaType: 5,
    Artist: 275,
    Album: 347,
    Track: 3503,
    Employee: 8,
    Customer: 59,
    Invoice: 412,
    InvoiceLine: 2240,
    Playlist: 18,
    PlaylistTrack: 8715,
  });
});
