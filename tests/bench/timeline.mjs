// Where the time from the navigation to the first row goes, in the page and in both workers.

/** Shorter ones of these are added up, or nobody could see the others. */
const SHORT_MS = 0.3;

/** What the page and the workers did until the first row was there, of the database in which writes
 * were counted; milliseconds since the navigation. */
export async function firstRowOf(stage, system) {
  const { page, time } = await stage.did(system, 'first', `${system.name}-counted`, true);
  const began = await page.evaluate(() => performance.timeOrigin);
  const all = await page.evaluate(() => recorded());
  await page.close();
  const lanes = all.map(({ who, spans }) => ({ who, spans: shown(spans, began, time) }));
  return { system: system.name, says: system.says, time, lanes };
}

function shown(spans, began, time) {
  const inTime = spans
    .map(({ what, from, to }) => ({ what, from: from - began, to: to - began }))
    .filter(({ from, to }) => from < time && to > 0)
    .sort((one, other) => one.from - other.from);
  const isShort = ({ from, to }) => to - from < SHORT_MS;
  const sums = new Map();
  for (const { what, from, to } of inTime.filter(isShort)) {
    const sum = sums.get(what) ?? { count: 0, ms: 0 };
    sums.set(what, { count: sum.count + 1, ms: sum.ms + to - from });
  }
  return { long: inTime.filter((span) => !isShort(span)), short: [...sums] };
}

export function printTimeline({ says, time, lanes }) {
  console.log(`\nto the first row, ${says}: ${time.toFixed(1)} ms, while its steps are noted`);
  for (const { who, spans } of lanes) {
    console.log(`  ${who}`);
    for (const { what, from, to } of spans.long) {
      const span = `${from.toFixed(1).padStart(7)} - ${to.toFixed(1).padStart(6)}`;
      console.log(`    ${span}  ${(to - from).toFixed(1).padStart(6)} ms  ${what}`);
    }
    for (const [what, { count, ms }] of spans.short) {
      console.log(`    ${String(count).padStart(16)} x ${ms.toFixed(1).padStart(6)} ms  ${what}`);
    }
  }
}
