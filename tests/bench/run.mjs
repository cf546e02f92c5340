// `npm run bench`: Tidelog beside its peers and what is bare, and its store beside the raw calls.
//
//   node tests/bench/run.mjs [--browser Chromium|Firefox] [--page plain|isolated] [--quick]
//                            [--rounds 5] [--only SYSTEM,..] | [--storage] | [--hand-over]
//
// `--only` leaves out other systems, the store and the hand-over; `--storage` and `--hand-over`
// leave out all but the one. Pages are plain, as most are, and in Chromium cross-origin isolated as
// well. Writes `bench.json` to target/, and `bench.svg` if there are peers in it.

import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { inRoot } from '../browser/harness/places.mjs';
import { downloadSizes } from './build.mjs';
import { benchHandOver } from './hand-over.mjs';
import { benchPeers, measuresOf } from './peers.mjs';
import { plot } from './plot.mjs';
import { benchStorage } from './storage.mjs';
import { printGoals, printSizes, printTimes, printWorked, printWritten } from './table.mjs';
import { printTimeline } from './timeline.mjs';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    browser: { type: 'string' },
    page: { type: 'string' },
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    storage: { type: 'boolean', default: false },
    'hand-over': { type: 'boolean', default: false },
  },
});
const { quick, storage, 'hand-over': handOver } = options;
const only = options.only?.split(',');
const isAll = !storage && !handOver;
const isWanted = (option, value) => option === undefined || option === value;
const browsers = ['Chromium', 'Firefox'].filter((name) => isWanted(options.browser, name));
const calls = quick ? 100 : 1000;
const rows = [];

async function peers() {
  const results = [];
  for (const [browser, page] of [
    ['Chromium', 'plain'],
    ['Chromium', 'isolated'],
    ['Firefox', 'plain'],
  ]) {
    if (!browsers.includes(browser) || !isWanted(options.page, page)) continue;
    const rounds = Number(options.rounds);
    const result = await benchPeers({ only, browser, page, rounds, calls });
    if (result) results.push(result);
  }
  const measures = measuresOf(calls);
  for (const result of results) {
    printTimes(result, measures);
    printWritten(result);
    printWorked(result);
    result.timelines.forEach(printTimeline);
  }
  for (const result of results) printGoals(result, measures);
  const sizes = await downloadSizes(results.flatMap(({ systems }) => systems.map((it) => it.name)));
  printSizes(sizes);
  writeFileSync(inRoot('target/bench.svg'), plot(results, measures));
  rows.push(...results.flatMap(({ times, written }) => [...times, ...written]), ...sizes);
  rows.push(
    ...results.flatMap(({ timelines }) => timelines.map((it) => ({ measure: 'timeline', ...it }))),
  );
}

mkdirSync(inRoot('target'), { recursive: true });
if (isAll) await peers();
if (storage || (isAll && !only)) rows.push(...(await benchStorage(browsers, quick)));
if (handOver || (isAll && !only)) rows.push(...(await benchHandOver(browsers, quick)));
writeFileSync(inRoot('target/bench.json'), `${JSON.stringify(rows, null, 1)}\n`);
console.log('\ntarget/bench.json was written');
