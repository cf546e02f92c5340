// The first row of a stored document of half a gigabyte, beside one of ten thousand rows.
//
// From the call of `open` to the row, each time in a page of its own whose workers start cold, in a
// browser whose store has nothing else: medians of nine, in turns. Goal: as long within a fifth.

import { Device } from '../browser/harness/device.mjs';
import { startSite } from '../browser/harness/site.mjs';
import { sleep } from '../browser/harness/time.mjs';
import { inAppPage } from './app-page.mjs';
import { median } from './table.mjs';

export const LARGE = 'first of 500 MB';

const ROUNDS = 9;
const ROUNDS_QUICKLY = 3;

/** Of a thousand characters each, three to a page; a document has no room for many more. */
const ROWS = [10_000, 380_000];
const ROWS_QUICKLY = [10_000, 20_000];

/** Time for the workers of a page that was closed to end. */
const END_MS = 500;

async function fill([document, rows]) {
  const db = await tidelog.open(doctypes.list, { document });
  for (let from = 0; from < rows; from += 1000) {
    const items = Array.from({ length: 1000 }, (_, n) => ({
      id: `i${String(from + n).padStart(7, '0')}`,
      title: 'x'.repeat(1000),
    }));
    await db.mutate.addMany({ items });
  }
  await db.close();
  const { usage } = await navigator.storage.estimate();
  return usage;
}

async function first(document) {
  const start = performance.now();
  const db = await tidelog.open(doctypes.list, { document });
  const rows = await db.query('select title from item order by id limit 1');
  if (rows.length !== 1) throw new Error('there is no first row');
  return performance.now() - start;
}

/** A browser with a store that has one document, of so many rows. */
async function stored(kind, site, rows) {
  const device = await new Device(kind).launch();
  const tab = async (work, argument) => {
    const answer = await inAppPage(device, site, work, argument);
    await sleep(END_MS);
    return answer;
  };
  const usage = await tab(fill, ['list', rows]);
  console.log(`${kind}: a store of ${rows} rows has ${Math.round(usage / 1e6)} MB`);
  return { device, first: () => tab(first, 'list') };
}

/** Measures it in these browsers, prints and gives rows for `bench.json`. */
export async function benchLarge(browsers, quick) {
  const [sizes, rounds] = quick ? [ROWS_QUICKLY, ROUNDS_QUICKLY] : [ROWS, ROUNDS];
  const site = await startSite();
  const rows = [];
  try {
    for (const browser of browsers) rows.push(await largeIn(browser, site, sizes, rounds));
  } finally {
    await site.close();
  }
  return rows;
}

async function largeIn(browser, site, sizes, rounds) {
  const stores = [];
  try {
    for (const rows of sizes) stores.push(await stored(browser, site, rows));
    const times = stores.map(() => []);
    for (let round = 0; round < rounds; round += 1) {
      for (const [nth, store] of stores.entries()) times[nth].push(await store.first());
    }
    const [small, large] = times.map(median);
    const ratio = large / small;
    const ms = (time) => `${time.toFixed(1)} ms`;
    console.log(`${browser}: first row ${ms(small)}, ${ms(large)}: ${ratio.toFixed(2)}`);
    const runs = times[1].map((time) => time / small);
    return {
      measure: LARGE,
      browser,
      system: 'tidelog',
      unit: 'of 10,000 rows',
      median: ratio,
      runs,
    };
  } finally {
    for (const { device } of stores) await device.dispose();
  }
}
