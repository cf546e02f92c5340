// Tidelog, its peers and the limit, driven from a page, in one run.
//
// Every system does the same in a fresh database: the median of three rounds, in which the systems
// take turns. The peers sit in a worker of their own, one message a call. The limit is the same
// calls with a page written and flushed in place of SQL.

import { writeFileSync } from 'node:fs';
import { Device } from '../browser/harness/device.mjs';
import { inRoot } from '../browser/harness/places.mjs';
import { startSite } from '../browser/harness/site.mjs';
import { startServer } from '../browser/harness/tidelog-server.mjs';
import { eventually, sleep } from '../browser/harness/time.mjs';
import { buildSite, downloadSizes } from './build.mjs';
import { plot } from './plot.mjs';
import { median, printSizes, printTimes } from './table.mjs';

const BULK_ROWS = 10_000;

const SYSTEMS = [
  { name: 'limit', says: 'raw OPFS write + flush', page: 'peers', color: '#9aa0a6' },
  { name: 'tidelog', says: 'Tidelog, a local document', page: 'tidelog', color: '#0b7a75' },
  { name: 'tidelog-server', says: 'Tidelog, synced', page: 'tidelog', color: '#19b5a5' },
  { name: 'sqlite-wasm', says: 'sqlite-wasm, opfs-sahpool', page: 'peers', color: '#8c6bb1' },
  { name: 'sqlite-wasm-wal', says: 'the same, exclusive, WAL', page: 'peers', color: '#b39ddb' },
  { name: 'wa-sqlite', says: 'wa-sqlite, AccessHandlePool', page: 'peers', color: '#d98e32' },
];

const measuresOf = (calls) => [
  { name: 'sequential', says: `${calls} durable inserts, one by one` },
  { name: 'together', says: `${calls} durable inserts, issued together` },
  { name: 'bulk', says: `${BULK_ROWS} rows in one mutation` },
  { name: 'selects', says: `${calls} point selects, one by one` },
  { name: 'selectsTogether', says: `${calls} point selects, issued together` },
  { name: 'first', says: `navigation to the first row of ${BULK_ROWS}` },
];

/** One system, once: milliseconds by measure. Single rows go into a database of their own, so that
 * the one of the first row holds exactly those of the bulk insert; a page of its own each time. */
async function round({ device, site, server, calls }, system, database) {
  const address = (query) =>
    site.url(
      `${system.page}.html?${new URLSearchParams({ system: system.name, server, ...query })}`,
    );
  const times = {};

  let page = await opened(device, address({}), `${database}-inserts`);
  times.sequential = await page.evaluate((count) => bench.sequential(count, 1), calls);
  times.together = await page.evaluate((count) => bench.together(count, count + 1), calls);
  await page.evaluate(() => bench.settle());
  await closed(page);

  // Ids all over the table, the same for everybody.
  const ids = Array.from({ length: calls }, (_, index) => ((index * 7919) % BULK_ROWS) + 1);
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

function timeRows(runs, systems, measures) {
  return measures.flatMap(({ name }) => {
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

/** Milliseconds of each system by measure, of each round. */
async function measureAll(systems, { browser, rounds, calls }) {
  const built = await buildSite([...new Set(systems.map((system) => system.page))]);
  const site = await startSite({ folders: { '/': built }, cache: true });
  const device = await new Device(browser).launch();
  const needsServer = systems.some((system) => system.name === 'tidelog-server');
  const server = needsServer ? await startServer() : null;
  const runs = new Map(systems.map((system) => [system.name, []]));
  const stage = { device, site, server: server?.ws ?? '', calls };
  try {
    for (let number = 1; number <= rounds; number += 1) {
      for (const system of systems) {
        const database = `${system.name}-${number}`;
        runs.get(system.name).push(await round(stage, system, database));
        process.stderr.write(`round ${number} of ${rounds}: ${system.says}\n`);
      }
    }
  } finally {
    await device.dispose();
    await server?.dispose();
    await site.close();
  }
  return runs;
}

/** Measures all systems, or those that `only` names, prints tables, draws `bench.svg`, and gives
 * rows for `bench.json`. */
export async function benchPeers({ only, browser, rounds, quick }) {
  const wanted = (system) => !only || only.split(',').includes(system.name);
  const systems = SYSTEMS.filter(wanted);
  const calls = quick ? 100 : 1000;
  const measures = measuresOf(calls);
  const runs = await measureAll(systems, { browser, rounds, calls });
  const times = timeRows(runs, systems, measures);
  const sizes = await downloadSizes(systems.map((system) => system.name));
  writeFileSync(inRoot('target/bench.svg'), plot(times, systems, measures, browser));
  printTimes(times, systems, measures, browser);
  printSizes(sizes);
  return [...times, ...sizes];
}
