// The results as text.

const PEERS = ['sqlite-wasm', 'sqlite-wasm-wal', 'wa-sqlite'];

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
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

/** A table a measure: milliseconds, and how often the limit and the best peer fit into them. */
export function printTimes(rows, systems, measures, browser) {
  console.log(`\nmilliseconds in ${browser}, the median of ${rows[0].runs.length}`);
  for (const measure of measures) {
    const of = (name) => rows.find((row) => row.measure === measure.name && row.system === name);
    const peers = PEERS.map(of).filter(Boolean);
    const best = Math.min(...peers.map((row) => row.median));
    console.log('');
    printColumns([
      [measure.says, 'median', 'of limit', 'of best peer', 'runs'],
      ...systems.map(({ name, says }) => {
        const row = of(name);
        return [
          `  ${says}`,
          row.median.toFixed(1),
          row.ratio === null ? '' : row.ratio.toFixed(2),
          Number.isFinite(best) ? (row.median / best).toFixed(2) : '',
          row.runs.map((run) => run.toFixed(1)).join(' '),
        ];
      }),
    ]);
  }
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
