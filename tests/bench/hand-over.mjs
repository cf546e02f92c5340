// The longest that a writer waits when the tab that lends the page server is closed.
//
// Goal: what a user of another tab feels of it. Method: a chain of tabs; each time the newest
// writes one durable row after the other while the oldest, which lends, is closed.

import { Device } from '../browser/harness/device.mjs';
import { startSite } from '../browser/harness/site.mjs';
import { eventually, sleep } from '../browser/harness/time.mjs';
import { median, printColumns } from './table.mjs';

/** Goals for the 99th of 100, milliseconds. */
const GOALS = { Chromium: 60, Firefox: 100 };

/** How long the next page server may take to load. */
const LOADED_MS = 700;

/**
 * Writes until told to stop; `stallMs` is the longest that it waited for one row since it was set.
 */
async function startWriting(prefix) {
  const db = await tidelog.open(doctypes.list, { document: 'hand-over' });
  const run = { rows: 0, stallMs: 0, stop: false };
  run.ended = (async () => {
    for (let last = performance.now(); !run.stop; ) {
      const id = `${prefix}-${run.rows}`;
      await db.mutate.add({ id, title: id });
      const now = performance.now();
      run.stallMs = Math.max(run.stallMs, now - last);
      run.rows += 1;
      last = now;
    }
  })();
  kept.run = run;
}

async function stopWriting() {
  kept.run.stop = true;
  await kept.run.ended;
  return kept.run.stallMs;
}

/** One device's stalls, milliseconds. */
async function stallsIn(browser, site, closings) {
  const device = await new Device(browser).launch();
  const open = async (name) => {
    const page = await device.open(site.url('app.html'));
    await eventually(() => page.evaluate(() => globalThis.ready === true).catch(() => false));
    await page.evaluate(startWriting, name);
    return page;
  };
  const rowsOf = (page) => page.evaluate(() => kept.run.rows);
  const stalls = [];
  try {
    let lending = await open('first');
    for (let number = 1; number <= closings; number += 1) {
      await lending.evaluate(stopWriting);
      const page = await open(`tab${number}`);
      await sleep(LOADED_MS);
      const before = await page.evaluate(() => {
        kept.run.stallMs = 0;
        return kept.run.rows;
      });
      await eventually(async () => (await rowsOf(page)) > before + 10);
      await lending.close();
      const closed = await rowsOf(page);
      await eventually(async () => (await rowsOf(page)) > closed + 50, { what: 'writing again' });
      stalls.push(await page.evaluate(() => kept.run.stallMs));
      lending = page;
    }
  } finally {
    await device.dispose();
  }
  return stalls;
}

/** Measures it in these browsers, prints a table and gives rows for `bench.json`. */
export async function benchHandOver(browsers, quick) {
  const closings = quick ? 5 : 50;
  const site = await startSite();
  const rows = [];
  try {
    for (const browser of browsers) {
      const stalls = (await stallsIn(browser, site, closings)).sort((a, b) => a - b);
      const p99 = stalls[Math.ceil(stalls.length * 0.99) - 1];
      for (const [name, value] of [
        ['hand-over, median stall', median(stalls)],
        ['hand-over, p99 stall', p99],
      ]) {
        const measure = `${name}, ${browser}`;
        rows.push({
          measure,
          system: 'tidelog',
          median: value,
          runs: stalls,
          unit: 'ms',
          ratio: value / GOALS[browser],
        });
      }
    }
  } finally {
    await site.close();
  }
  console.log(`\nmilliseconds that a writer waits when the lending tab closes, of ${closings}`);
  printColumns([
    ['', 'stall', 'of goal'],
    ...rows.map((row) => [row.measure, row.median.toFixed(1), row.ratio.toFixed(2)]),
  ]);
  return rows;
}
