// The results as text.

import { WORKED } from './count.mjs';
import { bestPeer } from './goals.mjs';

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

const ratioOf = (time, best) => (Number.isFinite(best) ? (time / best).toFixed(2) : '');

/** A table a measure: milliseconds, and how often the bare way and the best peer fit into them. */
export function printTimes({ systems, times }, measures) {
  const [{ browser, page, runs }] = times;
  console.log(`\nmilliseconds in ${browser}, on a page that is ${page}, medians of ${runs.length}`);
  for (const measure of measures) {
    const best = bestPeer(times, measure.name);
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

/** Calls beside a change-over of the log and amid it. */
export function printChangeOvers(rows) {
  if (rows.length === 0) return;
  const units = [...new Set(rows.map(({ unit }) => unit))];
  const systems = [...new Set(rows.map(({ system }) => system))];
  console.log(
    '\ndurable updates one by one, until the log was changed over, while steps are noted',
  );
  printColumns([
    ['', ...units],
    ...systems.map((system) => [
      `  ${system}`,
      ...units.map((unit) => {
        const row = rows.find((one) => one.system === system && one.unit === unit);
        return row.median.toFixed(unit.startsWith('ms') ? 2 : 0);
      }),
    ]),
  ]);
}

const shown = (figure) => figure.toFixed(figure < 10 ? 3 : figure < 1_000 ? 1 : 0);

/** The goals, and what came of them. */
export function printGoals(outcomes) {
  if (outcomes.length === 0) return;
  console.log('');
  printColumns([
    ['goals', '', 'is', '', 'goal', ''],
    ...outcomes.map(({ name, where, is, most, least, missed }) => [
      `  ${name}`,
      where,
      shown(is),
      most === undefined ? 'at least' : 'at most',
      `${most ?? least}`,
      missed ? 'missed' : '',
    ]),
  ]);
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
}
