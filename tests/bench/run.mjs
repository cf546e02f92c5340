// `npm run bench`: Tidelog beside its peers, beside what is bare, and beside its goals.
//
//   node tests/bench/run.mjs [--PART ..] [--quick] [--browser Chromium|Firefox]
//                            [--page plain|isolated] [--only SYSTEM,..] [--rounds 5]
//
// A PART is one of `parts.mjs`; without any, all are run:
//
//   --peers      other databases; pages are plain, as most are, and in Chromium isolated as well
//   --sizes      what a page downloads
//   --storage    the store beside the browser's own file calls
//   --hand-over  how long a writer waits when the lending tab closes
//   --large      the first row of a document of half a gigabyte
//   --wire       bytes that travel for a mutation
//   --rebase     a rebase beside running its mutations first (`cargo bench`)
//   --server     what a server does, beside a bare relay (`cargo bench`)
//
// `--only` leaves out other systems, and without a PART all but the peers and the sizes. `--quick`
// sees that a part works; its figures say little. Writes `bench.json` to target/: rows of what was
// measured, and one for each goal, which says `missed` where it was; and `bench.svg` of the peers.
// Fails where a part fails, or makes no figure for one of its goals.

import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { inRoot } from '../browser/harness/places.mjs';
import { outcomes, unknownGoals } from './goals.mjs';
import { PARTS } from './parts.mjs';
import { printGoals } from './table.mjs';

const flag = { type: 'boolean', default: false };
const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string' },
    browser: { type: 'string' },
    page: { type: 'string' },
    only: { type: 'string' },
    quick: flag,
    ...Object.fromEntries(PARTS.map(({ name }) => [name, flag])),
  },
});
const { quick, browser, page } = options;
const only = options.only?.split(',');
const settings = {
  quick,
  only,
  page,
  browsers: ['Chromium', 'Firefox'].filter((name) => !browser || browser === name),
  rounds: Number(options.rounds ?? (quick ? 1 : 5)),
};
const named = PARTS.filter(({ name }) => options[name]);
const ofSystems = PARTS.filter(({ name }) => ['peers', 'sizes'].includes(name));
const parts = [named, only ? ofSystems : PARTS].find(({ length }) => length > 0);

const rows = [];
const failed = [];

/** What is known so far: a part that fails takes nothing of the others with it. */
function save() {
  const all = [...rows, ...outcomes(rows)];
  writeFileSync(inRoot('target/bench.json'), `${JSON.stringify(all, null, 1)}\n`);
}

async function runPart({ name, says, run }, nth) {
  const began = performance.now();
  process.stderr.write(`\npart ${nth} of ${parts.length}, ${name}: ${says}\n`);
  try {
    rows.push(...(await run(settings)));
  } catch (error) {
    console.error(error);
    failed.push(name);
  }
  const minutes = (performance.now() - began) / 60_000;
  rows.push({ measure: 'took', part: name, quick, unit: 'minutes', median: minutes });
  process.stderr.write(`${name} took ${minutes.toFixed(1)} minutes\n`);
  save();
}

const minutesOf = ({ minutes }) => (quick ? minutes.quick : minutes.whole);
const minutes = parts.reduce((sum, part) => sum + minutesOf(part), 0);
const list = parts.map((part) => `${part.name} ${minutesOf(part)}`).join(', ');
console.log(`this takes about ${minutes} minutes: ${list}`);
mkdirSync(inRoot('target'), { recursive: true });
for (const part of parts) await part.prepare?.();
for (const [index, part] of parts.entries()) await runPart(part, index + 1);

const judged = outcomes(rows);
printGoals(judged);
if (quick) console.log('a quick run: it says that all works, and little of how fast');
const unknown = unknownGoals(
  parts.map(({ name }) => name),
  judged,
);
const isLimited = only || browser || page;
if (unknown.length > 0 && !isLimited) {
  console.log(`\nno figure was made for: ${unknown.join('; ')}`);
  process.exitCode = 1;
}
if (failed.length > 0) {
  console.log(`\nfailed: ${failed.join(', ')}`);
  process.exitCode = 1;
}
console.log('\ntarget/bench.json was written');
