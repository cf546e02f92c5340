// The parts of the benchmark. Each has the name that chooses it, says what it is about, which
// measures it makes (`measure` in the rows of `bench.json`) and about how many minutes it takes,
// and runs.

import { downloadSizes } from './build.mjs';
import { CHANGE_OVER } from './change-over.mjs';
import { WORKED } from './count.mjs';
import { benchHandOver, STALLS } from './hand-over.mjs';
import { benchLarge, LARGE } from './large.mjs';
import { benchNative, buildNative } from './native.mjs';
import { benchPeers, measuresOf } from './peers.mjs';
import { benchStorage, ROWS } from './storage.mjs';
import { printSizes } from './table.mjs';
import { benchWire, WAYS, WIDE_WAY } from './wire.mjs';

const REBASE = { crate: 'tidelog-document', bench: 'rebase' };
const LOAD = { crate: 'tidelog-server', bench: 'load' };

/** `minutes`: about so many of a whole run and of a quick one, on two cores that do nothing else.
 * `prepare` is done before anything is measured. */
export const PARTS = [
  {
    name: 'peers',
    says: 'beside other databases: times, what is written, where the time to the first row goes',
    makes: [...measuresOf(1).map(({ name }) => name), 'mean', WORKED, CHANGE_OVER],
    minutes: { whole: 45, quick: 15 },
    run: benchPeers,
  },
  {
    name: 'sizes',
    says: 'what a page downloads',
    makes: ['wasm', 'js'].map((kind) => `download ${kind} brotli`),
    minutes: { whole: 1, quick: 1 },
    async run({ only }) {
      const rows = await downloadSizes(only);
      if (rows.length > 0) printSizes(rows);
      return rows;
    },
  },
  {
    name: 'storage',
    says: "the store beside the browser's own file calls",
    makes: ROWS.map(({ name }) => `storage ${name}`),
    minutes: { whole: 10, quick: 3 },
    run: ({ browsers, quick }) => benchStorage(browsers, quick),
  },
  {
    name: 'hand-over',
    says: 'how long a writer waits when the lending tab closes',
    makes: Object.keys(STALLS),
    minutes: { whole: 10, quick: 1 },
    run: ({ browsers, quick }) => benchHandOver(browsers, quick),
  },
  {
    name: 'large',
    says: 'the first row of a stored document of half a gigabyte',
    makes: [LARGE],
    minutes: { whole: 10, quick: 1 },
    run: ({ browsers, quick }) => benchLarge(browsers, quick),
  },
  {
    name: 'wire',
    says: 'bytes that travel for a mutation',
    makes: [...WAYS, WIDE_WAY],
    minutes: { whole: 1, quick: 1 },
    run: ({ quick }) => benchWire(quick),
  },
  {
    name: 'rebase',
    says: 'a rebase beside running its mutations first',
    makes: [1, 100, 1_000].flatMap((pending) =>
      ['few rows', 'many rows', 'many rows beside few'].map(
        (what) => `rebase of ${pending}, ${what}`,
      ),
    ),
    minutes: { whole: 5, quick: 1 },
    prepare: () => buildNative(REBASE),
    run: ({ quick }) => benchNative(REBASE, { args: quick ? ['--quick'] : [] }),
  },
  {
    name: 'server',
    says: 'what a server does, beside what nobody can do without',
    makes: [
      ...['mutations, 1 in flight', 'mutations, 4 in flight', 'relay p50', 'relay p99'],
      ...['catching up', 'idle connection', 'small room'],
    ],
    minutes: { whole: 5, quick: 2 },
    prepare: () => buildNative(LOAD),
    run: ({ quick }) =>
      benchNative(LOAD, {
        args: ['mutations', 'relay', 'catch-up', 'memory'],
        env: quick ? { TIDELOG_LOAD_PART: '50' } : {},
      }),
  },
];
