import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { GOALS, outcomes, unknownGoals } from './goals.mjs';
import { PARTS } from './parts.mjs';

/** Every row that something has to come of: who takes one away has to take it away here too. */
const NAMES = `
  bytes written for a row, local
  bytes written for a row, synced
  flushes for a row, local
  flushes for a row, synced
  us of the core for a row
  us of the page server for a row
  us of the tab for a row
  inserts one by one, local, of the bare way
  inserts one by one, local, of the best peer
  inserts one by one, synced, of the bare way
  inserts one by one, synced, of the best peer
  inserts together, of the best peer
  10,000 rows in one mutation, of the best peer
  selects one by one, of the best peer
  ranges of 1,000 rows, of the best peer
  first row of 10,000, local, of the best peer
  first row of 10,000, synced, of the best peer
  wasm that a page downloads
  JS that a page downloads
  256 waiting, of the raw
  256 waiting, one document, of the raw
  slowest open, log of 50 MB
  slowest open, 1,000 documents
  a page beside many, of the raw
  p99 of a hand-over, Chromium
  p99 of a hand-over, Firefox
  first row of 500 MB beside 10,000 rows
  bytes up for a row
  bytes down to a follower for a row
  bytes down to the origin, wide rows beside small ones
  rebase of 1, few rows
  rebase of 1, many rows
  rebase of 1, many rows beside few
  rebase of 100, few rows
  rebase of 100, many rows
  rebase of 100, many rows beside few
  rebase of 1000, few rows
  rebase of 1000, many rows
  rebase of 1000, many rows beside few
  client to client, p50
  client to client, p99
  catching up, of a raw socket
  mutations a second, 1 in flight
  mutations a second, 4 in flight
  KiB of an idle connection
  KiB of a small room
  KiB left of an idle connection
  KiB left of a small room
`;

const plain = { browser: 'Chromium', page: 'plain', unit: 'ms' };
const inserts = (system: string, median: number) => ({
  ...plain,
  measure: 'inserts',
  system,
  median,
});
const found = (rows: object[]) =>
  outcomes(rows).map(({ name, is, missed }) => `${name}: ${is}${missed ? ' missed' : ''}`);

describe('the goals of the benchmark', () => {
  test('are all those that there are', () => {
    expect(GOALS.map(({ name }) => name)).toEqual(
      NAMES.trim()
        .split('\n')
        .map((name) => name.trim()),
    );
  });

  test.each(GOALS)('$name is measured by a part', ({ part, figure }) => {
    const makes = PARTS.find(({ name }) => name === part)?.makes;
    expect(makes).toContain(figure.measure);
  });

  test.each([
    ['server', '../../crates/server/benches/load/main.rs'],
    ['rebase', '../../crates/document/benches/rebase.rs'],
  ])('the units of those of %s are those that the program in Rust says', (part, file) => {
    const source = readFileSync(path.join(import.meta.dirname, file), 'utf8');
    for (const { figure } of GOALS.filter((goal) => goal.part === part)) {
      expect(source).toContain(`"${figure.unit}"`);
    }
  });
});

describe('the outcome of a goal', () => {
  test('is a figure, missed if it is more than it may be at most', () => {
    const row = { measure: 'wire up', system: 'tidelog', unit: 'bytes' };
    expect(found([{ ...row, median: 194 }])).toEqual(['bytes up for a row: 194']);
    expect(found([{ ...row, median: 195 }])).toEqual(['bytes up for a row: 195 missed']);
  });

  test('is missed if it is less than it has to be at least', () => {
    const row = { measure: 'mutations, 1 in flight', system: 'tidelog', unit: 'a second' };
    const name = 'mutations a second, 1 in flight';
    expect(found([{ ...row, median: 25_000 }])).toEqual([`${name}: 25000`]);
    expect(found([{ ...row, median: 24_999 }])).toEqual([`${name}: 24999 missed`]);
  });

  test('is there also where nothing is left', () => {
    const row = { measure: 'small room', system: 'tidelog', unit: 'KiB that are left' };
    expect(found([{ ...row, median: 0 }])).toEqual(['KiB left of a small room: 0']);
  });

  test('goes by the bare way and the fastest peer of the same browser and page', () => {
    const rows = [
      inserts('tidelog', 300),
      inserts('bare-way', 200),
      inserts('wa-sqlite', 400),
      inserts('sqlite-wasm-wal', 250),
      { ...inserts('wa-sqlite-wal', 100), page: 'isolated' },
    ];
    expect(found(rows)).toEqual([
      'inserts one by one, local, of the bare way: 1.5 missed',
      'inserts one by one, local, of the best peer: 1.2 missed',
    ]);
  });

  test('is not there where nobody was measured beside it', () => {
    expect(found([inserts('tidelog', 300)])).toEqual([]);
  });

  test('that no row has is told', () => {
    expect(unknownGoals(['sizes'], [])).toEqual([
      'wasm that a page downloads',
      'JS that a page downloads',
    ]);
    const measured = [
      { measure: 'download js brotli', system: 'tidelog', unit: 'bytes', median: 1 },
    ];
    expect(unknownGoals(['sizes'], outcomes(measured))).toEqual(['wasm that a page downloads']);
  });
});
