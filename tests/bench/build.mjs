// The benchmark's pages as an app would publish them, and the sizes of what a page downloads.

import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { build } from 'vite';
import { inRoot } from '../browser/harness/places.mjs';
import { record } from './site/record.mjs';

/** Bundles as an app is published, but for what is `external`; the folder of what came of it. */
export async function bundle(root, input, outDir, external = []) {
  rmSync(outDir, { recursive: true, force: true });
  await build({
    root,
    configFile: false,
    logLevel: 'error',
    base: './',
    worker: { format: 'es' },
    build: {
      outDir,
      target: 'es2022',
      // A wasm file inlined as text would be counted, and compiled, as something else.
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
      chunkSizeWarningLimit: 10_000,
      rolldownOptions: { input, external },
    },
  });
  return outDir;
}

/** Builds the pages; the folder they are in. */
export function buildSite(pages) {
  const root = inRoot('tests/bench/site');
  const input = pages.map((name) => path.join(root, `${name}.html`));
  return bundle(root, input, inRoot('target/bench-site'));
}

/** The same pages, whose scripts note what they do: see `site/record.mjs`. The folder they are in. */
export function recordedSite(built) {
  const folder = inRoot('target/bench-site-recorded');
  rmSync(folder, { recursive: true, force: true });
  cpSync(built, folder, { recursive: true });
  for (const file of filesBelow(folder)) {
    const text = /\.(m?js|html)$/.test(file) && readFileSync(file, 'utf8');
    if (!text) continue;
    const recording = `(${record})();`;
    if (file.endsWith('.html')) {
      writeFileSync(
        file,
        text.replace('<script', () => `<script>${recording}</script><script`),
      );
    } else if (/worker|async-proxy/.test(path.basename(file))) {
      writeFileSync(file, `${recording}\n${text}`);
    }
  }
  return folder;
}

/** What of each system a page downloads. A peer's worker is a few lines and the peer. */
const DOWNLOADS = [
  { system: 'tidelog', entry: 'sizes/tidelog.mjs' },
  { system: 'sqlite-wasm', entry: 'site/sqlite-wasm.worker.mjs', leaveOut: /worker1|async-proxy/ },
  { system: 'wa-sqlite', entry: 'site/wa-sqlite.worker.mjs' },
];

export function filesBelow(folder) {
  return readdirSync(folder, { recursive: true }).map((name) => path.join(folder, name));
}

/** Bytes of a file as it travels. */
export const brotli = (bytes) =>
  brotliCompressSync(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: 11,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  }).length;

const ENCODINGS = {
  raw: (bytes) => bytes.length,
  gzip: (bytes) => gzipSync(bytes, { level: 9 }).length,
  brotli,
};

/** Rows of sizes in bytes, of all systems or of these: each file compressed by itself, as it
 * travels. */
export async function downloadSizes(only) {
  const rows = [];
  for (const { system, entry, leaveOut } of DOWNLOADS) {
    if (only && !only.includes(system)) continue;
    const root = inRoot('tests/bench');
    const folder = await bundle(
      root,
      inRoot('tests/bench', entry),
      inRoot('target/bench-sizes', system),
    );
    for (const [kind, pattern] of [
      ['wasm', /\.wasm$/],
      ['js', /\.m?js$/],
    ]) {
      const files = filesBelow(folder).filter(
        (file) => pattern.test(file) && !leaveOut?.test(file),
      );
      for (const [encoding, size] of Object.entries(ENCODINGS)) {
        const total = files.reduce((sum, file) => sum + size(readFileSync(file)), 0);
        rows.push({
          measure: `download ${kind} ${encoding}`,
          system,
          median: total,
          runs: [total],
          unit: 'bytes',
          ratio: null,
        });
      }
    }
  }
  return rows;
}
