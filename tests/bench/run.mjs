// `npm run bench`: Tidelog beside its peers and the limit, and its store beside the raw calls.
//
//   node tests/bench/run.mjs [--browser Chromium|Firefox] [--quick]
//                            [--rounds 3] [--only SYSTEM,..] | [--storage] | [--hand-over]
//
// `--only` leaves out other systems, the store and the hand-over; `--storage` and `--hand-over`
// leave out all but the one. Peers are measured in Chromium, the others in both browsers, unless
// `--browser` says otherwise. Writes `bench.json` to target/, and `bench.svg` if there are peers
// in it.

import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { inRoot } from '../browser/harness/places.mjs';
import { benchHandOver } from './hand-over.mjs';
import { benchPeers } from './peers.mjs';
import { benchStorage } from './storage.mjs';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    browser: { type: 'string' },
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    storage: { type: 'boolean', default: false },
    'hand-over': { type: 'boolean', default: false },
  },
});
const { browser, only, quick, storage, 'hand-over': handOver } = options;
const isAll = !storage && !handOver;
const browsers = browser ? [browser] : ['Chromium', 'Firefox'];
mkdirSync(inRoot('target'), { recursive: true });
const rows = [];
if (isAll) {
  const rounds = Number(options.rounds);
  rows.push(...(await benchPeers({ only, browser: browser ?? 'Chromium', rounds, quick })));
}
if (storage || (isAll && !only)) rows.push(...(await benchStorage(browsers, quick)));
if (handOver || (isAll && !only)) rows.push(...(await benchHandOver(browsers, quick)));
writeFileSync(inRoot('target/bench.json'), `${JSON.stringify(rows, null, 1)}\n`);
console.log('\ntarget/bench.json was written');
