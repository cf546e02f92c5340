// The store beside the raw calls of the browser, in both browsers: see `site/storage`.

import { Device } from '../browser/harness/device.mjs';
import { inRoot } from '../browser/harness/places.mjs';
import { startSite } from '../browser/harness/site.mjs';
import { eventually } from '../browser/harness/time.mjs';
import { ISOLATED } from './isolated.mjs';
import { median, printColumns } from './table.mjs';

/** What the page is asked for, in turn. */
const MEASURES = [
  'append1',
  'append16',
  'append256',
  'calls256',
  'append256New',
  'read',
  'open50MB',
  'open1000Documents',
  'checkpoint',
  'appendByPort',
  'onePageBesideMany',
];

/** What comes of it. */
export const ROWS = [
  { name: 'append-1', says: 'durable append, 1 waiting' },
  { name: 'append-16', says: 'durable append, 16 waiting' },
  { name: 'append-256', says: 'durable append, 256 waiting' },
  { name: 'calls-256', says: 'the same, all of one document' },
  { name: 'append-256-new', says: '256 waiting, in a new store' },
  { name: 'read-bulk', says: 'read of 10,000 pages' },
  { name: 'read-hit', says: 'read of a page, hit' },
  { name: 'read-miss', says: 'read of a page, miss' },
  { name: 'open-50MB', says: 'open after crash, log of 50 MB' },
  { name: 'open-50MB-slowest', says: 'the slowest of them' },
  { name: 'open-1000', says: 'open after crash, 1,000 documents' },
  { name: 'open-1000-slowest', says: 'the slowest of them' },
  { name: 'checkpoint', says: 'checkpoint of 4 MiB' },
  { name: 'checkpoint-slice', says: 'p99 of its slices' },
  { name: 'port-append-256', says: '256 appends in a message to its worker' },
  { name: 'port-one-beside-many', says: 'p99 of a page while 10,000 are read' },
  { name: 'port-one-beside-many-median', says: 'median of the same' },
];

/** Measures in each of these browsers, prints a table for each, and gives rows for `bench.json`. */
export async function benchStorage(browsers, quick) {
  const folders = {
    '/storage/': inRoot('tests/bench/site/storage'),
    '/bench-storage/': inRoot('target/bench-storage'),
  };
  const site = await startSite({ folders, headers: ISOLATED });
  const rows = [];
  try {
    for (const browser of browsers) {
      const measured = await measureIn(browser, site, quick);
      print(browser, measured);
      rows.push(...measured.flatMap((row) => resultsOf(browser, row)));
    }
  } finally {
    await site.close();
  }
  return rows;
}

/** All rows, each with what was found. */
async function measureIn(browser, site, quick) {
  const device = await new Device(browser).launch();
  const found = new Map();
  try {
    const page = await device.open(site.url('/storage/index.html'));
    page.on('console', (message) => process.stderr.write(`${message.text()}\n`));
    await eventually(() => page.evaluate(() => globalThis.ready && globalThis.crossOriginIsolated));
    for (const measure of MEASURES) {
      const rows = await page.evaluate((name, quickly) => bench(name, quickly), measure, quick);
      for (const row of rows) found.set(row.name, row);
      process.stderr.write(`${browser}: ${measure}\n`);
    }
  } finally {
    await device.dispose();
  }
  return ROWS.map((row) => {
    const { ours, raw } = found.get(row.name) ?? {};
    const isWhole = (times) => times?.length > 0 && times.every((time) => time > 0);
    if (![ours, ...Object.values(raw ?? {})].every(isWhole)) {
      throw new Error(`${browser} gave no ${row.name}`);
    }
    return compared({ ...row, ours, raw });
  });
}

/** The same beside the quickest of the raw calls. */
function compared(row) {
  const raws = Object.entries(row.raw).map(([name, times]) => ({ name, ms: median(times) }));
  const [best] = raws.sort((one, other) => one.ms - other.ms);
  const ms = median(row.ours);
  return { ...row, median: ms, best, ratio: best && ms / best.ms, raws };
}

const shown = (ms) => (ms < 0.1 ? `${(ms * 1000).toFixed(2)} us` : `${ms.toFixed(2)} ms`);

function print(browser, rows) {
  console.log(`\nthe store in ${browser}, beside the raw calls for the same bytes in the same run`);
  printColumns([
    ['', 'ours', 'raw', 'ratio', 'all raw'],
    ...rows.map(({ says, median: ms, best, ratio, raws }) => [
      says,
      shown(ms),
      best ? shown(best.ms) : '',
      ratio?.toFixed(2) ?? '',
      raws.map((raw) => `${raw.name} ${shown(raw.ms)}`).join(', '),
    ]),
  ]);
}

const rounded = (value) => Number(value.toPrecision(4));

/** Rows for `bench.json`: ours, and each of the raw ones, as a ratio to the best of these. */
function resultsOf(browser, { name, ours, raw, best }) {
  const row = (system, times) => ({
    measure: `storage ${name}`,
    system,
    browser,
    median: rounded(median(times)),
    runs: times.map(rounded),
    unit: 'ms',
    ratio: best ? rounded(median(times) / best.ms) : null,
  });
  const raws = Object.entries(raw).map(([call, times]) => row(`raw: ${call}`, times));
  return [row('page server', ours), ...raws];
}
