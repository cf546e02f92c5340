// What a system writes for a row, and how often it flushes: counted at the browser's own calls.
//
// Zeros at the end of a write are counted apart: a log is laid out ahead of what comes, and fills up
// the block that it has written to. What the tab and its workers work besides is added up as well.

import { sleep } from '../browser/harness/time.mjs';

const ROWS = 10_000;

/** Of each kind: enough that a log is checkpointed. */
const CALLS = 2_000;
const CALLS_QUICKLY = 200;

/** What follows a verdict may be written this much later. */
const LATE_MS = 3_000;

/** Of the rows of `bench.json`, which tell how long the tab and its workers work. */
export const WORKED = 'worked';

/** A row for `bench.json` for each kind of mutation, and one for all of them together: of rows with
 * texts as keys, one after the other, in a table of ten thousand. And one for the tab and each of
 * its workers, of how long it works on a message in the mean of all, besides reads, writes and
 * flushes: but for peers, whose workers go on behind their messages. */
export async function countWrites(stage, system, quick) {
  const calls = quick ? CALLS_QUICKLY : CALLS;
  const page = await stage.opened(system, `${system.name}-counted`, true);
  const lanes = async () => {
    await page.evaluate(() => bench.settle());
    await sleep(LATE_MS);
    return page.evaluate(() => recorded());
  };
  const counted = async () => (await lanes()).map(({ counts }) => counts).reduce(sum);
  await page.evaluate((count) => bench.bulk(count), ROWS);
  const numbers = Array.from({ length: calls }, (_, nth) => ROWS + 1 + nth);
  const rows = [];
  const began = await lanes();
  let before = began.map(({ counts }) => counts).reduce(sum);
  const all = {};
  for (const [measure, run] of [
    ['insert', (list) => bench.inserts(list.length, list[0])],
    ['update', (list) => bench.updates(list)],
    ['remove', (list) => bench.removes(list)],
  ]) {
    await page.evaluate(run, numbers);
    const after = await counted();
    for (const [name, unit] of [
      ['writtenBytes', 'bytes'],
      ['zeroBytes', 'zeros behind'],
      ['flushes', 'flushes'],
    ]) {
      const each = (after[name] - before[name]) / calls;
      all[unit] = (all[unit] ?? 0) + each / 3;
      rows.push({ measure, system: system.name, unit, median: each });
    }
    before = after;
  }
  const ended = await lanes();
  const workedMs = (all, who) => {
    const { workMs, diskMs } = all.find((lane) => lane.who === who)?.counts ?? {};
    return workMs - diskMs;
  };
  for (const { who } of /bare|tidelog/.test(system.group) ? began : []) {
    const each = (1_000 * (workedMs(ended, who) - workedMs(began, who))) / (3 * calls);
    rows.push({ measure: WORKED, system: system.name, unit: `us in the ${who}`, median: each });
  }
  await stage.close(page);
  const means = Object.entries(all);
  rows.push(
    ...means.map(([unit, each]) => ({ measure: 'mean', system: system.name, unit, median: each })),
  );
  return rows;
}

const sum = (one, other) =>
  Object.fromEntries(Object.entries(one).map(([name, count]) => [name, count + other[name]]));
