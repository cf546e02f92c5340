// Tidelog, its peers and what is bare, driven from a page, in one run.
//
// Every system does the same in a fresh database: medians of five rounds, in which the systems take
// turns. The peers sit in a worker of their own, one message a call.

import { writeFileSync } from 'node:fs';
import { Device } from '../browser/harness/device.mjs';
import { inRoot } from '../browser/harness/places.mjs';
import { startSite } from '../browser/harness/site.mjs';
import { startServer } from '../browser/harness/tidelog-server.mjs';
import { eventually, sleep } from '../browser/harness/time.mjs';
import { buildSite, recordedSite } from './build.mjs';
import { amidChangeOver } from './change-over.mjs';
import { countWrites } from './count.mjs';
import { ISOLATED } from './isolated.mjs';
import { plot } from './plot.mjs';
import { fileOf, isMeasured, SYSTEMS } from './systems.mjs';
import {
  median,
  percentile,
  printChangeOvers,
  printTimes,
  printWorked,
  printWritten,
} from './table.mjs';
import { firstRowOf, printTimeline } from './timeline.mjs';

const BULK_ROWS = 10_000;

/** What is measured, in milliseconds. */
export const measuresOf = (calls) => [
  { name: 'inserts', says: `${calls} durable inserts, one by one` },
  { name: 'updates', says: `${calls} durable updates, one by one` },
  { name: 'removes', says: `${calls} durable deletes, one by one` },
  { name: 'wideInserts', says: `${calls / 10} durable inserts of 2,000 characters, one by one` },
  { name: 'insertsTogether', says: `${calls} durable inserts, issued together` },
  { name: 'bulk', says: `${BULK_ROWS} rows in one mutation` },
  { name: 'selects', says: `${calls} point selects, one by one` },
  { name: 'selectsTogether', says: `${calls} point selects, issued together` },
  { name: 'ranges', says: `${calls / 10} ranges of 1000 rows, one by one` },
  { name: 'first', says: `navigation to the first row of ${BULK_ROWS}` },
  { name: 'visit', says: 'first visit, no cache, to the first durable write' },
];

/** A page that a system is driven from, in a browser that runs. */
class Stage {
  constructor(device, site, server) {
    Object.assign(this, { device, site, server });
  }

  #address(system, query) {
    const options = new URLSearchParams({ system: system.name, server: this.server, ...query });
    return this.site.url(`${fileOf(system)}.html?${options}`);
  }

  /** A page that has opened this database. */
  async opened(system, database, isText = false) {
    const page = await this.device.open(this.#address(system, {}));
    await eventually(() => page.evaluate(() => globalThis.ready));
    await page.evaluate((...args) => bench.open(...args), database, isText);
    return page;
  }

  /** Closes a page and gives its workers the time to end, so that the next start is a cold one. */
  async close(page) {
    await page.close();
    await sleep(500);
  }

  /** A page that does something by itself; and when that was done. */
  async did(system, task, database, isText = false) {
    const query = { task, database, ...(isText && { text: 1 }) };
    const page = await this.device.open(this.#address(system, query));
    return { page, time: await page.evaluate(() => globalThis.done) };
  }
}

/** One system, once: milliseconds by measure, and of each call. Single rows go into a database of
 * their own, so that the one of the first row holds exactly those of the bulk insert; a page of its
 * own each time. */
async function round(stage, calls, system, database) {
  const numbers = Array.from({ length: calls }, (_, index) => index + 1);
  let page = await stage.opened(system, `${database}-inserts`);
  const inserts = await page.evaluate((count) => bench.inserts(count, 1), calls);
  const updates = await page.evaluate((list) => bench.updates(list), numbers);
  const removes = await page.evaluate((list) => bench.removes(list), numbers);
  const wideInserts = await page.evaluate((count) => bench.wideInserts(count, 1), calls / 10);
  const insertsTogether = await page.evaluate(
    (count) => bench.insertsTogether(count, count + 1),
    calls,
  );
  await page.evaluate(() => bench.settle());
  await stage.close(page);

  // Numbers all over the table, the same for everybody.
  const spread = numbers.map((number) => ((number * 7919) % BULK_ROWS) + 1);
  const starts = spread.slice(0, calls / 10).map((number) => Math.max(number - 1000, 1));
  page = await stage.opened(system, `${database}-rows`);
  const bulk = await page.evaluate((count) => bench.bulk(count), BULK_ROWS);
  const selects = await page.evaluate((list) => bench.selects(list), spread);
  const selectsTogether = await page.evaluate((list) => bench.selectsTogether(list), spread);
  const ranges = await page.evaluate((list) => bench.ranges(list), starts);
  await page.evaluate(() => bench.settle());
  await stage.close(page);

  const { page: last, time: first } = await stage.did(system, 'first', `${database}-rows`);
  await stage.close(last);
  const times = { inserts, updates, removes, wideInserts, selects, ranges };
  return { ...times, insertsTogether, bulk, selectsTogether, first };
}

/** A browser that has never been here, to the first durable write. */
async function visit({ site, server }, system, browser, database) {
  const device = await new Device(browser).launch();
  try {
    const stage = new Stage(device, site, server);
    return (await stage.did(system, 'insert', database)).time;
  } finally {
    await device.dispose();
  }
}

function rowsOf(runs, systems, measures, where) {
  const rounded = (time) => Math.round(time * 100) / 100;
  return measures.flatMap(({ name }) => {
    const all = (system) => runs.get(system.name).map((times) => times[name]);
    const wholes = (system) => all(system).map((time) => rounded(time.all ?? time));
    const bare = systems.find((system) => system.name === 'bare-way');
    return systems.map((system) => {
      const each = all(system).flatMap((time) => time.each ?? []);
      const middle = median(wholes(system));
      return {
        ...where,
        measure: name,
        system: system.name,
        median: middle,
        p99: each.length > 0 ? rounded(percentile(each, 99)) : null,
        runs: wholes(system),
        unit: 'ms',
        ratio: bare ? rounded(middle / median(wholes(bare))) : null,
      };
    });
  });
}

/**
 * Measures all systems, or those that `only` names, in a browser on a kind of page, `plain` or
 * `isolated`: rows of times for `bench.json`, rows of what was written, and where the time to the
 * first row goes. Nothing if none of these is measured there.
 */
async function peersOn({ only, browser, page, rounds, calls, quick }) {
  const systems = SYSTEMS.filter(
    (system) => isMeasured(system, browser, page) && (!only || only.includes(system.name)),
  );
  if (systems.length === 0) return undefined;
  const built = await buildSite([...new Set(systems.map(fileOf))]);
  const headers = page === 'isolated' ? ISOLATED : {};
  const site = await startSite({ folders: { '/': built }, cache: true, headers });
  const recorded = await startSite({ folders: { '/': recordedSite(built) }, cache: true, headers });
  const device = await new Device(browser).launch();
  const server = await startServer();
  const runs = new Map(systems.map((system) => [system.name, []]));
  const where = { browser, page };
  try {
    const stage = new Stage(device, site, server.ws);
    for (let number = 1; number <= rounds; number += 1) {
      for (const system of systems) {
        const times = await round(stage, calls, system, `${system.name}-${page}-${number}`);
        times.visit = await visit(stage, system, browser, `${system.name}-${page}-${number}-visit`);
        runs.get(system.name).push(times);
        process.stderr.write(`${browser}, ${page}, ${number} of ${rounds}: ${system.says}\n`);
      }
    }
    const times = rowsOf(runs, systems, measuresOf(calls), where);
    const noting = new Stage(device, recorded, server.ws);
    const written = [];
    const timelines = [];
    const changeOvers = [];
    for (const system of systems.filter(({ name }) => name !== 'bare-write')) {
      const counts = await countWrites(noting, system, quick);
      written.push(...counts.map((row) => ({ ...where, ...row })));
      if (system.group === 'tidelog') {
        timelines.push({ ...where, ...(await firstRowOf(noting, system)) });
        const calls = await amidChangeOver(noting, system);
        changeOvers.push(...calls.map((row) => ({ ...where, ...row })));
      }
    }
    return { systems, times, written, timelines, changeOvers };
  } finally {
    await device.dispose();
    await server.dispose();
    await site.close();
    await recorded.close();
  }
}

/** Measures all of them on each kind of page, prints tables and a plot, and gives rows for
 * `bench.json`. */
export async function benchPeers({ only, browsers, page, rounds, quick }) {
  const calls = quick ? 100 : 1_000;
  const measures = measuresOf(calls);
  const results = [];
  for (const [browser, kind] of [
    ['Chromium', 'plain'],
    ['Chromium', 'isolated'],
    ['Firefox', 'plain'],
  ]) {
    if (!browsers.includes(browser) || (page && page !== kind)) continue;
    const result = await peersOn({ only, browser, page: kind, rounds, calls, quick });
    if (result) results.push(result);
  }
  for (const result of results) {
    printTimes(result, measures);
    printWritten(result);
    printWorked(result);
    printChangeOvers(result.changeOvers);
    result.timelines.forEach(printTimeline);
  }
  writeFileSync(inRoot('target/bench.svg'), plot(results, measures));
  return results.flatMap(({ times, written, timelines, changeOvers }) => [
    ...times,
    ...written,
    ...changeOvers,
    ...timelines.map((timeline) => ({ measure: 'timeline', ...timeline })),
  ]);
}
