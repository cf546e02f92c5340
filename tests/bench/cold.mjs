// Queries whose pages are not in memory, through the package: each fault is a way to the page
// server and back, and the query runs again.
//
//   node tests/bench/cold.mjs
//
// After `npm run build`. A scan of 20 MiB and 1,000 lookups all over it, right after the engine has
// started, and the same again with all of it in the pool: the median of five engines each.

import { Device } from '../browser/harness/device.mjs';
import { startSite } from '../browser/harness/site.mjs';
import { inAppPage } from './app-page.mjs';

const ROUNDS = 5;
const ROWS = 20_000;

const median = (times) => times.sort((a, b) => a - b)[Math.floor(times.length / 2)];

/** Writes rows of a kilobyte. */
async function fill(rows) {
  const db = await tidelog.open(doctypes.list, { document: 'cold' });
  for (let from = 0; from < rows; from += 1000) {
    const items = Array.from({ length: 1000 }, (_, n) => ({
      id: `i${((from + n) * 7919) % rows}`,
      title: 'x'.repeat(1000),
    }));
    await db.mutate.addMany({ items });
  }
  await db.close();
}

/** Milliseconds of the first time and the second. */
async function measure([what, rows]) {
  const db = await tidelog.open(doctypes.list, { document: 'cold' });
  const scan = () => db.query('select sum(length(title)) as sum from item');
  const lookups = async () => {
    for (let n = 0; n < 1000; n += 1) {
      const found = await db.query('select title from item where id = ?', [`i${(n * 17) % rows}`]);
      if (found.length !== 1) throw new Error(`i${(n * 17) % rows} is not there`);
    }
  };
  const times = [];
  for (let round = 0; round < 2; round += 1) {
    const start = performance.now();
    await (what === 'scan' ? scan() : lookups());
    times.push(performance.now() - start);
  }
  return times;
}

const site = await startSite();
for (const kind of ['Chromium', 'Firefox']) {
  const device = await new Device(kind).launch();
  const tab = (work, argument) => inAppPage(device, site, work, argument);
  await tab(fill, ROWS);
  for (const what of ['scan', 'lookups']) {
    const rounds = [];
    // The engine ends with its last tab.
    for (let n = 0; n < ROUNDS; n += 1) rounds.push(await tab(measure, [what, ROWS]));
    const [cold, warm] = [0, 1].map((nth) => median(rounds.map((times) => times[nth])));
    const ratio = (cold / warm).toFixed(2);
    console.log(`${kind}, ${what}: cold ${cold.toFixed(1)} ms, warm ${warm.toFixed(1)}, ${ratio}`);
  }
  await device.dispose();
}
await site.close();
