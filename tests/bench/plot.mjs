// The results as a picture: a group of bars a measure, each bar a system, lengths on a logarithmic
// scale, so that 3 ms and 300 ms can both be read.

const LEFT = 250;
const WIDTH = 900;
const BAR = 16;
const GAP = 30;
const TOP = 50;

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

/** An SVG of all rows measured in milliseconds. */
export function plot(rows, systems, measures, browser) {
  const values = rows.map((row) => Math.max(row.median, 0.1));
  const low = Math.log10(Math.min(...values)) - 0.2;
  const high = Math.log10(Math.max(...values));
  const length = (ms) =>
    ((Math.log10(Math.max(ms, 0.1)) - low) / (high - low)) * (WIDTH - LEFT - 90);

  const parts = [];
  let y = TOP;
  for (const measure of measures) {
    parts.push(`<text x="8" y="${y - 6}" class="measure">${escaped(measure.says)}</text>`);
    for (const system of systems) {
      const row = rows.find((one) => one.measure === measure.name && one.system === system.name);
      const width = length(row.median).toFixed(1);
      const middle = y + BAR - 5;
      parts.push(
        `<text x="${LEFT - 8}" y="${middle}" text-anchor="end">${escaped(system.says)}</text>`,
        `<rect x="${LEFT}" y="${y}" width="${width}" height="${BAR - 3}" fill="${system.color}"/>`,
        `<text x="${LEFT + Number(width) + 6}" y="${middle}">${row.median.toFixed(1)} ms</text>`,
      );
      y += BAR;
    }
    y += GAP;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}">`,
    '<style>text{font:12px system-ui,sans-serif;fill:#333}.measure{font-weight:600}</style>',
    `<rect width="${WIDTH}" height="${y}" fill="#fff"/>`,
    `<text x="8" y="18">${escaped(browser)}, milliseconds, logarithmic; shorter is better</text>`,
    ...parts,
    '</svg>\n',
  ].join('\n');
}
