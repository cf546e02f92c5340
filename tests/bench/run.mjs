// `npm run bench`: Tidelog beside its peers and the limit, and its store beside the raw calls.
//
//   node tests/bench/run.mjs [--browser Chromium|Firefox] [--quick]
//                            [--rounds 3] [--only SYSTEM,..] | [--storage]
//
// `--only` leaves out other systems, and the store; `--storage` leaves out all but the store. Peers
// are measured in Chromium, the store in both browsers, unless `--browser` says otherwise. Writes
// `bench.json` to target/, and `bench.svg` if there are peers in it.

import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { inRoot } from '../browser/harness/places.mjs';
import { benchPeers } from './peers.mjs';
import { benchStorage } from './storage.mjs';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    browser: { type: 'string' },
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    storage: { type: 'boolean', default: false },
  },
});
const { browser, only, quick } = options;
mkdirSync(inRoot('target'), { recursive: true });
const rows = [];
if (!options.storage) {
  const rounds = Number(options.rounds);
  rows.push(...(await benchPeers({ only, browser: browser ?? 'Chromium', rounds, quick })));
}
if (!only) rows.push(...(await benchStorage(browser ? [browser] : ['Chromium', 'Firefox'], quick)));
writeFileSync(inRoot('target/bench.json'), `${JSON.stringify(rows, null, 1)}\n`);
console.log('\ntarget/bench.json was written');
