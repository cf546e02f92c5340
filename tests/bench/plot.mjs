// The results as a picture: a group of bars a measure, each bar a system, lengths on a logarithmic
// scale, so that 3 ms and 300 ms can both be read. Behind them, a line for the page and each worker,
// where the time to the first row goes.

const LEFT = 250;
const WIDTH = 900;
const BAR = 16;
const GAP = 30;
const TOP = 50;

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

/** An SVG of all that was measured in milliseconds. */
export function plot(results, measures) {
  const parts = [];
  let y = 0;
  for (const result of results) {
    y = bars(parts, y, result, measures);
    for (const timeline of result.timelines) y = lanes(parts, y, timeline);
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}">`,
    '<style>text{font:12px system-ui,sans-serif;fill:#333}.measure{font-weight:600}</style>',
    `<rect width="${WIDTH}" height="${y}" fill="#fff"/>`,
    ...parts,
    '</svg>\n',
  ].join('\n');
}

function bars(parts, from, { systems, times }, measures) {
  const values = times.map((row) => Math.max(row.median, 0.1));
  const low = Math.log10(Math.min(...values)) - 0.2;
  const high = Math.log10(Math.max(...values));
  const length = (ms) =>
    ((Math.log10(Math.max(ms, 0.1)) - low) / (high - low)) * (WIDTH - LEFT - 90);
  const [{ browser, page }] = times;
  const title = `${browser}, ${page} page: milliseconds, logarithmic; shorter is better`;
  parts.push(`<text x="8" y="${from + 18}">${escaped(title)}</text>`);
  let y = from + TOP;
  for (const measure of measures) {
    parts.push(`<text x="8" y="${y - 6}" class="measure">${escaped(measure.says)}</text>`);
    for (const system of systems) {
      const row = times.find((one) => one.measure === measure.name && one.system === system.name);
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
  return y;
}

/** Steps lie over each other: what is waited for is pale, and what is worked on is not. */
function lanes(parts, from, timeline) {
  const scale = (WIDTH - LEFT - 90) / timeline.time;
  const title = `to the first row, ${timeline.says}: ${timeline.time.toFixed(1)} ms`;
  parts.push(`<text x="8" y="${from + 12}" class="measure">${escaped(title)}</text>`);
  let y = from + 20;
  for (const { who, spans } of timeline.lanes) {
    for (const { what, from: start, to } of spans.long) {
      const x = LEFT + Math.max(start, 0) * scale;
      const width = Math.max((Math.min(to, timeline.time) - Math.max(start, 0)) * scale, 1);
      const color = /message|start|read|write|flush/.test(what) ? '#0b7a75' : '#b7dcd9';
      const span = `${who}: ${what}, ${(to - start).toFixed(1)} ms`;
      parts.push(
        `<text x="${LEFT - 8}" y="${y + 9}" text-anchor="end">${escaped(span)}</text>`,
        `<rect x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="10" fill="${color}"/>`,
      );
      y += 13;
    }
  }
  return y + GAP;
}
