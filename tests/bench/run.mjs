// `npm run bench`: Tidelog, its peers and the limit, driven from a page, in one run.
//
//   node tests/bench/run.mjs [--rounds 3] [--browser Chromium|Firefox] [--only SYSTEM,..]
//                            [--quick]
//
// Every system does the same in a fresh database: the median of three rounds, in which the systems
// take turns. The peers sit in a worker of their own, one message a call. The limit is the same calls
// with a page written and flushed in place of SQL. Writes `bench.json` and `bench.svg` to target/.

import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Device } from '../browser/harness/device.mjs';
import { inRoot } from '../browser/harness/places.mjs';
import { startSite } from '../browser/harness/site.mjs';
import { startServer } from '../browser/harness/tidelog-server.mjs';
import { eventually, sleep } from '../browser/harness/time.mjs';
import { buildSite, downloadSizes } from './build.mjs';
import { plot } from './plot.mjs';
import { printSizes, printTimes } from './table.mjs';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    browser: { type: 'string', default: 'Chromium' },
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
  },
});
const rounds = Number(options.rounds);
const scale = options.quick ? 0.1 : 1;
const CALLS = 1000 * scale;
const BULK_ROWS = 10_000;

const SYSTEMS = [
  { name: 'limit', says: 'raw OPFS write + flush', page: 'peers', color: '#9aa0a6' },
  { name: 'tidelog', says: 'Tidelog, a local document', page: 'tidelog', color: '#0b7a75' },
  { name: 'tidelog-server', says: 'Tidelog, synced', page: 'tidelog', color: '#19b5a5' },
  { name: 'sqlite-wasm', says: 'sqlite-wasm, opfs-sahpool', page: 'peers', color: '#8c6bb1' },
  { name: 'sqlite-wasm-wal', says: 'the same, exclusive, WAL', page: 'peers', color: '#b39ddb' },
  { name: 'wa-sqlite', says: 'wa-sqlite, AccessHandlePool', page: 'peers', color: '#d98e32' },
];

const MEASURES = [
  { name: 'sequential', says: `${CALLS} durable inserts, one by one` },
  { name: 'together', says: `${CALLS} durable inserts, issued together` },
  { name: 'bulk', says: `${BULK_ROWS} rows in one mutation` },
  { name: 'selects', says: `${CALLS} point selects, one by one` },
  { name: 'selectsTogether', says: `${CALLS} point selects, issued together` },
  { name: 'first', says: `navigation to the first row of ${BULK_ROWS}` },
];

const wanted = (system) => !options.only || options.only.split(',').includes(system.name);
const systems = SYSTEMS.filter(wanted);

/** Ids all over the table, the same for everybody. */
const ids = Array.from({ length: CALLS }, (_, index) => ((index * 7919) % BULK_ROWS) + 1);

/** One system, once: milliseconds by measure. Single rows go into a database of their own, so that
 * the one of the first row holds exactly those of the bulk insert; a page of its own each time. */
async function round(device, site, server, system, database) {
  const address = (query) =>
    site.url(
      `${system.page}.html?${new URLSearchParams({ system: system.name, server, ...query })}`,
    );
  const times = {};

  let page = await opened(device, address({}), `${database}-inserts`);
  times.sequential = await page.evaluate((count) => bench.sequential(count, 1), CALLS);
  times.together = await page.evaluate((count) => bench.together(count, count + 1), CALLS);
  await page.evaluate(() => bench.settle());
  await closed(page);

  page = await opened(device, address({}), `${database}-rows`);
  times.bulk = await page.evaluate((count) => bench.bulk(count), BULK_ROWS);
  times.selects = await page.evaluate((list) => bench.selects(list), ids);
  times.selectsTogether = await page.evaluate((list) => bench.selectsTogether(list), ids);
  await page.evaluate(() => bench.settle());
  await closed(page);

  page = await device.open(address({ first: 1, database: `${database}-rows` }));
  times.first = await page.evaluate(() => globalThis.done);
  await closed(page);
  return times;
}

async function opened(device, url, database) {
  const page = await device.open(url);
  await eventually(() => page.evaluate(() => globalThis.ready));
  await page.evaluate((name) => bench.open(name), database);
  return page;
}

/** Closes a page and gives its workers the time to end, so that the next start is a cold one. */
async function closed(page) {
  await page.close();
  await sleep(500);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

function timeRows(runs) {
  return MEASURES.flatMap(({ name }) => {
    const limit = runs.get('limit') && median(runs.get('limit').map((times) => times[name]));
    return systems.map((system) => {
      const times = runs.get(system.name).map((all) => Math.round(all[name] * 100) / 100);
      const middle = median(times);
      return {
        measure: name,
        system: system.name,
        median: middle,
        runs: times,
        unit: 'ms',
        ratio: limit ? Math.round((middle / limit) * 100) / 100 : null,
      };
    });
  });
}

const built = await buildSite([...new Set(systems.map((system) => system.page))]);
const site = await startSite({ folders: { '/': built }, cache: true });
const device = await new Device(options.browser).launch();
const needsServer = systems.some((system) => system.name === 'tidelog-server');
const server = needsServer ? await startServer() : null;
const runs = new Map(systems.map((system) => [system.name, []]));
try {
  for (let number = 1; number <= rounds; number += 1) {
    for (const system of systems) {
      const database = `${system.name}-${number}`;
      runs.get(system.name).push(await round(device, site, server?.ws ?? '', system, database));
      process.stderr.write(`round ${number} of ${rounds}: ${system.says}\n`);
    }
  }
} finally {
  await device.dispose();
  await server?.dispose();
  await site.close();
}

const times = timeRows(runs);
const sizes = await downloadSizes(systems.map((system) => system.name));
mkdirSync(inRoot('target'), { recursive: true });
writeFileSync(inRoot('target/bench.json'), `${JSON.stringify([...times, ...sizes], null, 1)}\n`);
writeFileSync(inRoot('target/bench.svg'), plot(times, systems, MEASURES, options.browser));
printTimes(times, systems, MEASURES, options.browser);
printSizes(sizes);
console.log('\ntarget/bench.json and target/bench.svg were written');
