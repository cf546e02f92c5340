// The longest that a writer waits when the tab that lends the page server is closed.
//
// Goal: what a user of another tab feels of it, and how much of that is the browser's own. Method:
// two chains of tabs that take turns, one of Tidelog and one with no more than a lock and files
// (`site/hand-over`); each time the newest tab writes one durable row after the other while the
// oldest, which lends, is closed. The ratio of the two is what is ours.

import { Device } from '../browser/harness/device.mjs';
import { inRoot } from '../browser/harness/places.mjs';
import { startSite } from '../browser/harness/site.mjs';
import { eventually, sleep } from '../browser/harness/time.mjs';
import { median, percentile, printColumns } from './table.mjs';

/** How long the next page server may take to load. */
const LOADED_MS = 700;

const SYSTEMS = ['tidelog', 'bare'];

/** What is said of the stalls. */
export const STALLS = {
  'hand-over, median stall': median,
  'hand-over, p99 stall': (sorted) => percentile(sorted, 99),
  'hand-over, longest stall': (sorted) => sorted.at(-1),
};

/**
 * Writes until told to stop; `stallMs` is the longest that it waited for one row since it was set.
 */
async function startWriting([system, prefix]) {
  let write;
  if (system === 'tidelog') {
    const db = await tidelog.open(doctypes.list, { document: 'hand-over' });
    write = (id) => db.mutate.add({ id, title: id });
  } else {
    const bare = await import('/bare/bare.mjs');
    kept.worker = bare.lend();
    write = bare.write;
  }
  const run = { rows: 0, stallMs: 0, stop: false };
  run.ended = (async () => {
    for (let last = performance.now(); !run.stop; ) {
      await write(`${prefix}-${run.rows}`);
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

/** Tabs of one system, of which the newest outlives the one before it. */
class Chain {
  #open;
  #lending;
  #tabs = 0;
  stalls = [];

  constructor(device, site, system) {
    this.#open = async () => {
      const page = await device.open(site.url('app.html'));
      await eventually(() => page.evaluate(() => globalThis.ready === true).catch(() => false));
      this.#tabs += 1;
      await page.evaluate(startWriting, [system, `${system}-${this.#tabs}`]);
      return page;
    };
  }

  async close() {
    this.#lending ??= await this.#open();
    await this.#lending.evaluate(stopWriting);
    const page = await this.#open();
    const rows = () => page.evaluate(() => kept.run.rows);
    await sleep(LOADED_MS);
    const before = await page.evaluate(() => {
      kept.run.stallMs = 0;
      return kept.run.rows;
    });
    await eventually(async () => (await rows()) > before + 10);
    await this.#lending.close();
    const closed = await rows();
    await eventually(async () => (await rows()) > closed + 50, { what: 'writing again' });
    this.stalls.push(await page.evaluate(stopWriting));
    this.#lending = page;
  }
}

/** One device's stalls by system, milliseconds. */
async function stallsIn(browser, site, closings) {
  const device = await new Device(browser).launch();
  const chains = SYSTEMS.map((system) => new Chain(device, site, system));
  try {
    for (let closing = 0; closing < closings; closing += 1) {
      for (const chain of chains) await chain.close();
    }
  } finally {
    await device.dispose();
  }
  return chains.map(({ stalls }) => stalls.sort((a, b) => a - b));
}

/** Measures it in these browsers, prints a table and gives rows for `bench.json`. */
export async function benchHandOver(browsers, quick) {
  const closings = quick ? 5 : 50;
  const site = await startSite({ folders: { '/bare/': inRoot('tests/bench/site/hand-over') } });
  const rows = [];
  try {
    for (const browser of browsers) {
      const [stalls, bare] = await stallsIn(browser, site, closings);
      for (const [measure, of] of Object.entries(STALLS)) {
        const row = { measure, browser, unit: 'ms' };
        rows.push({ ...row, system: 'bare', median: of(bare), runs: bare, ratio: null });
        const ratio = of(stalls) / of(bare);
        rows.push({ ...row, system: 'tidelog', median: of(stalls), runs: stalls, ratio });
      }
    }
  } finally {
    await site.close();
  }
  console.log(`\nmilliseconds that a writer waits when the lending tab closes, of ${closings}`);
  printColumns([
    ['', '', '', 'stall', 'of bare'],
    ...rows.map(({ measure, browser, system, median, ratio }) => [
      measure,
      browser,
      system,
      median.toFixed(1),
      ratio?.toFixed(2) ?? '',
    ]),
  ]);
  return rows;
}
