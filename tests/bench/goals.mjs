// What has to come of the benchmark, and what came of it: pure functions of the rows of
// `bench.json`, so that a goal is judged in the same way whoever made its figure.

import { WORKED } from './count.mjs';
import { isPeer } from './systems.mjs';

const written = (system, unit) => ({ measure: 'mean', system, unit });
const worked = (unit) => ({ measure: WORKED, system: 'tidelog', unit });
const local = (measure) => ({ measure, system: 'tidelog' });
const synced = (measure) => ({ measure, system: 'tidelog-server' });
const stored = (name) => ({ measure: `storage ${name}`, system: 'page server' });
const stalled = (browser) => ({ measure: 'hand-over, p99 stall', system: 'tidelog', browser });
const figure = (measure, unit) => ({ measure, unit });

/** Each has a `name`, the part of the run that makes its figure, which rows that figure is in, and
 * how much it may be at most, or has to be at least. `of` says what it is divided by first: the
 * `bare way`, the `best peer`, or the best `raw` call, which its row has divided it by already. */
export const GOALS = [
  ['bytes written for a row, local', 'peers', written('tidelog', 'bytes'), { most: 800 }],
  ['bytes written for a row, synced', 'peers', written('tidelog-server', 'bytes'), { most: 1_200 }],
  ['flushes for a row, local', 'peers', written('tidelog', 'flushes'), { most: 1 }],
  ['flushes for a row, synced', 'peers', written('tidelog-server', 'flushes'), { most: 1.1 }],
  ['us of the core for a row', 'peers', worked('us in the core'), { most: 45 }],
  ['us of the page server for a row', 'peers', worked('us in the worker'), { most: 60 }],
  ['us of the tab for a row', 'peers', worked('us in the tab'), { most: 40 }],
  ['inserts one by one, local', 'peers', local('inserts'), { most: 1.35, of: 'bare way' }],
  ['inserts one by one, local', 'peers', local('inserts'), { most: 1, of: 'best peer' }],
  ['inserts one by one, synced', 'peers', synced('inserts'), { most: 1.5, of: 'bare way' }],
  ['inserts one by one, synced', 'peers', synced('inserts'), { most: 1, of: 'best peer' }],
  ['inserts together', 'peers', local('insertsTogether'), { most: 0.05, of: 'best peer' }],
  ['10,000 rows in one mutation', 'peers', local('bulk'), { most: 1, of: 'best peer' }],
  ['selects one by one', 'peers', local('selects'), { most: 1, of: 'best peer' }],
  ['ranges of 1,000 rows', 'peers', local('ranges'), { most: 0.4, of: 'best peer' }],
  ['first row of 10,000, local', 'peers', local('first'), { most: 0.9, of: 'best peer' }],
  ['first row of 10,000, synced', 'peers', synced('first'), { most: 0.9, of: 'best peer' }],
  ['wasm that a page downloads', 'sizes', local('download wasm brotli'), { most: 450_000 }],
  ['JS that a page downloads', 'sizes', local('download js brotli'), { most: 13_000 }],
  ['256 waiting', 'storage', stored('append-256'), { most: 1.25, of: 'raw' }],
  ['256 waiting, one document', 'storage', stored('calls-256'), { most: 1.25, of: 'raw' }],
  ['slowest open, log of 50 MB', 'storage', stored('open-50MB-slowest'), { most: 1_000 }],
  ['slowest open, 1,000 documents', 'storage', stored('open-1000-slowest'), { most: 1_000 }],
  ['a page beside many', 'storage', stored('port-one-beside-many'), { most: 5, of: 'raw' }],
  ['p99 of a hand-over, Chromium', 'hand-over', stalled('Chromium'), { most: 60 }],
  ['p99 of a hand-over, Firefox', 'hand-over', stalled('Firefox'), { most: 100 }],
  [
    'first row of 500 MB beside 10,000 rows',
    'large',
    figure('first of 500 MB', 'of 10,000 rows'),
    { most: 1.2 },
  ],
  ['bytes up for a row', 'wire', figure('wire up', 'bytes'), { most: 194 }],
  [
    'bytes down to a follower for a row',
    'wire',
    figure('wire down to a follower', 'bytes'),
    { most: 600 },
  ],
  // An entry that has pages is longer where the row is.
  [
    'bytes down to the origin, wide rows beside small ones',
    'wire',
    figure('wire down to the origin, wide rows', 'of small ones'),
    { most: 1.05 },
  ],
  ...[1, 100, 1_000].flatMap((pending) => [
    ...['few rows', 'many rows'].map((rows) => [
      `rebase of ${pending}, ${rows}`,
      'rebase',
      figure(`rebase of ${pending}, ${rows}`, 'of running them first'),
      { most: 1.5 },
    ]),
    [
      `rebase of ${pending}, many rows beside few`,
      'rebase',
      figure(`rebase of ${pending}, many rows beside few`, 'of the one of few'),
      { most: 1.2 },
    ],
  ]),
  ['client to client, p50', 'server', figure('relay p50', 'of a bare relay'), { most: 1.2 }],
  ['client to client, p99', 'server', figure('relay p99', 'of a bare relay'), { most: 1.5 }],
  [
    'catching up, of a raw socket',
    'server',
    figure('catching up', "of a socket's bytes a second"),
    { least: 0.5 },
  ],
  [
    'mutations a second, 1 in flight',
    'server',
    figure('mutations, 1 in flight', 'a second'),
    { least: 25_000 },
  ],
  [
    'mutations a second, 4 in flight',
    'server',
    figure('mutations, 4 in flight', 'a second'),
    { least: 40_000 },
  ],
  ['KiB of an idle connection', 'server', figure('idle connection', 'KiB'), { most: 32 }],
  ['KiB of a small room', 'server', figure('small room', 'KiB'), { most: 48 }],
  // Given back is what leaves no more than a tenth of what may be taken.
  [
    'KiB left of an idle connection',
    'server',
    figure('idle connection', 'KiB that are left'),
    { most: 3.2 },
  ],
  ['KiB left of a small room', 'server', figure('small room', 'KiB that are left'), { most: 4.8 }],
].map(([name, part, figure, { of, ...bound }]) => ({
  name: of ? `${name}, of the ${of}` : name,
  part,
  figure,
  of,
  ...bound,
}));

const isFigure = (figure) => (row) =>
  Object.entries(figure).every(([key, value]) => row[key] === value);

/** The shortest time of a peer, in any setting; not a number where there is none. */
export function bestPeer(rows, measure) {
  const times = rows.filter((row) => row.measure === measure && isPeer(row.system));
  return times.length > 0 ? Math.min(...times.map((row) => row.median)) : Number.NaN;
}

/** What is judged of a row: its figure, or that beside what it is measured by. */
function judged(row, of, rows) {
  if (of === 'raw') return row.ratio;
  if (of === undefined) return row.median;
  const beside = rows.filter((it) => it.browser === row.browser && it.page === row.page);
  const bare = beside.find(isFigure({ measure: row.measure, system: 'bare-way' }));
  return row.median / (of === 'best peer' ? bestPeer(beside, row.measure) : bare?.median);
}

/** A row for `bench.json` for each goal, in each browser and on each kind of page that it was
 * measured in; `missed` where it was. */
export function outcomes(rows) {
  return GOALS.flatMap(({ name, figure, of, most, least }) =>
    rows.filter(isFigure(figure)).flatMap((row) => {
      const is = judged(row, of, rows);
      // Nobody was measured beside it.
      if (!Number.isFinite(is)) return [];
      const where = [row.browser, row.page].filter(Boolean).join(', ');
      const isMissed = most === undefined ? is < least : is > most;
      const goal = most === undefined ? { least } : { most };
      return [{ measure: 'goal', name, where, is, ...goal, ...(isMissed && { missed: true }) }];
    }),
  );
}

/** The names of those of these parts' goals that have no outcome. */
export function unknownGoals(parts, outcomes) {
  const known = new Set(outcomes.map(({ name }) => name));
  return GOALS.filter(({ name, part }) => parts.includes(part) && !known.has(name)).map(
    ({ name }) => name,
  );
}
