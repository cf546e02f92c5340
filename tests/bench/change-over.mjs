// How long a row takes while the log is changed over, beside how long it takes otherwise.
//
// Goal: the checkpoint is made in slices beside what somebody waits for, so nobody should feel it.
// Method: rows are changed one by one, without a rest, more of them than the log has room for; all
// steps are noted meanwhile, which takes its time of all calls alike. A change-over begins with its
// writes to the page file, which it flushes, and ends with the last write to the log before it. So
// it is told from the room that is made in both files now and then. Few calls fall into one.

import { percentile } from './table.mjs';

export const CHANGE_OVER = 'change-over';

const ROWS = 10_000;

/** Each takes a block of 4 KiB, and a device's log has 32 MiB. */
const CALLS = 12_000;

/** Between two writes of a change-over to a file there is less. */
const GAP_MS = 300;

/** Rows for `bench.json`. */
export async function amidChangeOver(stage, system) {
  const page = await stage.opened(system, `${system.name}-change-over`, true);
  await page.evaluate((count) => bench.bulk(count), ROWS);
  const numbers = Array.from({ length: CALLS }, (_, nth) => (nth % ROWS) + 1);
  await page.evaluate(startUpdates, numbers);
  let calls;
  // A call of the page may take three minutes at most, and all of these on a busy machine longer.
  while (!calls) calls = await page.evaluate(awaitUpdates);
  const lanes = await page.evaluate(() => recorded());
  await page.evaluate(() => bench.settle());
  await stage.close(page);
  const range = changeOver(lanes.flatMap(({ spans }) => spans).filter(isWithin(calls)));
  if (!range) throw new Error(`${system.name} did not change its log over`);
  const isAmid = ({ from, ms }) => from < range.to && from + ms > range.from;
  const sorted = (calls) => calls.map(({ ms }) => ms).sort((one, other) => one - other);
  const amid = sorted(calls.filter(isAmid));
  const beside = sorted(calls.filter((call) => !isAmid(call)));
  const row = (unit, median) => ({ measure: CHANGE_OVER, system: system.name, unit, median });
  return [
    row('calls beside', beside.length),
    row('ms, p50 beside', percentile(beside, 50)),
    row('ms, p99 beside', percentile(beside, 99)),
    row('calls amid it', amid.length),
    row('ms, longest amid it', amid.at(-1)),
  ];
}

/** In the page: begins with these updates. */
function startUpdates(numbers) {
  const from = performance.timeOrigin + performance.now();
  globalThis.updating = bench.updates(numbers).then(({ each }) => ({ from, each }));
}

/** In the page: when each of them began and how long it took, or nothing if they still go on. */
async function awaitUpdates() {
  const pause = new Promise((resolve) => setTimeout(resolve, 10_000));
  const updated = await Promise.race([globalThis.updating, pause]);
  let from = updated?.from;
  return updated?.each.map((ms) => {
    const call = { from, ms };
    from += ms;
    return call;
  });
}

const isWithin = (calls) => (span) =>
  span.from > calls[0].from && span.to < calls.at(-1).from + calls.at(-1).ms;

/** From when to when the first of these spans' change-overs went on; nothing if there was none. */
export function changeOver(spans) {
  const flush = spans.find(({ what }) => what === 'flush pages');
  if (!flush) return undefined;
  let { from, to } = flush;
  const pages = spans.filter(({ what }) => what === 'write pages');
  for (const write of pages.reverse()) {
    if (write.from < from && write.to > from - GAP_MS) from = write.from;
  }
  const logs = spans.filter(({ what }) => /^write log-/.test(what));
  const before = logs.findLast((write) => write.from < from)?.what;
  for (const write of logs.filter(({ what }) => what === before)) {
    if (write.to > to && write.from < to + GAP_MS) to = write.to;
  }
  return { from, to };
}
