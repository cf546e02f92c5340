// The results as text.

import { WORKED } from './count.mjs';

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** What so much of a hundred values is no more than. */
export function percentile(values, percent) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.ceil((sorted.length * percent) / 100) - 1];
}

/** Lines of cells, the first of which are names. */
export function printColumns(lines) {
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  for (const line of lines) {
    const cells = line.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]),
    );
    console.log(cells.join('  '));
  }
}

const isPeer = ({ group }) => group.includes('tab') && group !== 'tidelog';

/** The shortest time of a peer, in any setting. */
export function bestPeer(rows, systems, measure) {
  const names = systems.filter(isPeer).map(({ name }) => name);
  const times = rows.filter((row) => row.measure === measure && names.includes(row.system));
  return Math.min(...times.map((row) => row.median));
}

const ratioOf = (time, best) => (Number.isFinite(best) ? (time / best).toFixed(2) : '');

/** A table a measure: milliseconds, and how often the bare way and the best peer fit into them. */
export function printTimes({ systems, times }, measures) {
  const [{ browser, page, runs }] = times;
  console.log(`\nmilliseconds in ${browser}, on a page that is ${page}, medians of ${runs.length}`);
  for (const measure of measures) {
    const best = bestPeer(times, systems, measure.name);
    console.log('');
    printColumns([
      [measure.says, 'serves', 'median', 'p99 of a call', 'of bare way', 'of best peer', 'runs'],
      ...systems.map(({ name, says, group }) => {
        const row = times.find((one) => one.measure === measure.name && one.system === name);
        return [
          `  ${says}`,
          { 'one tab': 'one tab', bare: '' }[group] ?? 'all tabs',
          row.median.toFixed(1),
          row.p99?.toFixed(2) ?? '',
          row.ratio?.toFixed(2) ?? '',
          ratioOf(row.median, best),
          row.runs.map((run) => run.toFixed(1)).join(' '),
        ];
      }),
    ]);
  }
}

/** What a row costs the disk. */
export function printWritten({ systems, written: all }) {
  if (all.length === 0) return;
  const written = all.filter(({ measure }) => measure !== WORKED);
  const kinds = [...new Set(written.map(({ measure }) => measure))];
  const units = [...new Set(written.map(({ unit }) => unit))];
  console.log('\nwritten for one row with a text as its key, in a table of ten thousand');
  printColumns([
    ['', ...kinds.flatMap((kind) => units.map((unit) => `${kind}: ${unit}`))],
    ...systems
      .filter(({ name }) => written.some(({ system }) => system === name))
      .map(({ name, says }) => [
        `  ${says}`,
        ...kinds.flatMap((kind) =>
          units.map((unit) => {
            const row = written.find(
              (one) => one.system === name && one.measure === kind && one.unit === unit,
            );
            return row.median.toFixed(unit === 'flushes' ? 3 : 0);
          }),
        ),
      ]),
  ]);
}

/** How long the tab and its workers work on one of those mutations, besides reads and writes. */
export function printWorked({ systems, written }) {
  const rows = written.filter(({ measure }) => measure === WORKED);
  if (rows.length === 0) return;
  const units = [...new Set(rows.map(({ unit }) => unit))];
  const cell = (name, unit) => rows.find((row) => row.system === name && row.unit === unit)?.median;
  console.log('\nworked on a message for one of these, besides reads, writes and flushes');
  printColumns([
    ['', ...units],
    ...systems
      .filter(({ name }) => rows.some(({ system }) => system === name))
      .map(({ name, says }) => [`  ${says}`, ...units.map((unit) => cell(name, unit).toFixed(0))]),
  ]);
}

/** What has to come of it: at most so many times what it is measured by. */
const GOALS = [
  ['inserts', 'tidelog', 'bare-way', 1.35],
  ['inserts', 'tidelog', 'best peer', 1],
  ['inserts', 'tidelog-server', 'bare-way', 1.5],
  ['inserts', 'tidelog-server', 'best peer', 1],
  ['insertsTogether', 'tidelog', 'best peer', 0.05],
  ['bulk', 'tidelog', 'best peer', 1],
  ['selects', 'tidelog', 'best peer', 1],
  ['ranges', 'tidelog', 'best peer', 0.4],
  ['first', 'tidelog', 'best peer', 0.9],
  ['first', 'tidelog-server', 'best peer', 0.9],
];

/** What is counted of one row, in the mean: at most so much. */
const COUNTED_GOALS = [
  ['tidelog', 'bytes', 800],
  ['tidelog-server', 'bytes', 1_200],
  ['tidelog', 'flushes', 1],
  ['tidelog-server', 'flushes', 1.1],
  ['tidelog', 'us in the core', 45],
  ['tidelog', 'us in the worker', 60],
  ['tidelog', 'us in the tab', 40],
];

/** Kilobytes that a page downloads at most, as brotli packs them. */
const DOWNLOAD_GOALS = [
  ['download wasm brotli', 450],
  ['download js brotli', 13],
];

const told = (is, goal) => (is <= goal ? '' : 'missed');

/** The goals, and what came of them. */
export function printGoals({ systems, times, written }, measures) {
  const [{ browser, page }] = times;
  const of = (measure, name) =>
    times.find((row) => row.measure === measure && row.system === name)?.median;
  const lines = GOALS.flatMap(([measure, system, by, goal]) => {
    const base = by === 'best peer' ? bestPeer(times, systems, measure) : of(measure, by);
    const ratio = of(measure, system) / base;
    if (!Number.isFinite(base) || !Number.isFinite(ratio)) return [];
    const { says } = measures.find(({ name }) => name === measure);
    const who = systems.find(({ name }) => name === system).says;
    return [[`  ${says}`, who, by, ratio.toFixed(2), goal.toFixed(2), told(ratio, goal)]];
  });
  const counted = COUNTED_GOALS.flatMap(([system, unit, goal]) => {
    const row = written.find(
      (it) => it.system === system && it.unit === unit && ['mean', WORKED].includes(it.measure),
    );
    if (!row) return [];
    const who = systems.find(({ name }) => name === system).says;
    return [
      [
        '  one row, in the mean',
        who,
        unit,
        row.median.toFixed(2),
        `${goal}`,
        told(row.median, goal),
      ],
    ];
  });
  console.log(`\ngoals, in ${browser}, on a page that is ${page}`);
  printColumns([['', '', 'of', 'ratio', 'goal', ''], ...lines, ...counted]);
}

/** Kilobytes (1,000 bytes) that a page downloads. */
export function printSizes(rows) {
  const names = [...new Set(rows.map((row) => row.system))];
  const measures = [...new Set(rows.map((row) => row.measure))];
  console.log('');
  printColumns([
    ['kB', ...names],
    ...measures.map((measure) => [
      `  ${measure}`,
      ...names.map((name) => {
        const row = rows.find((one) => one.measure === measure && one.system === name);
        return (row.median / 1000).toFixed(1);
      }),
    ]),
  ]);
  console.log('');
  printColumns(
    DOWNLOAD_GOALS.map(([measure, goal]) => {
      const row = rows.find((one) => one.measure === measure && one.system === 'tidelog');
      const kB = row.median / 1000;
      return [`  ${measure}`, kB.toFixed(1), `goal ${goal}`, told(kB, goal)];
    }),
  );
}
