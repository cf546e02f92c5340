import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { command, stream, workflow } from '../src/events.js';
import { type Doctype, doctype, mutation } from '../src/index.js';
import { declare } from '../src/node/types/declarations.js';
import { Schema } from '../src/node/types/schema.js';
import { findQueries } from '../src/node/types/source-queries.js';
import { sqlite } from './query-sqlite.js';
import { asTypeScript, doctypesIn, inRoot, pages, queriesIn, samplesOf } from './samples.js';
import { run } from './stock-sqlite.js';

const samples = pages().flatMap(samplesOf);

const compilerOptions = {
  rootDir: path.parse(inRoot()).root,
  module: 'esnext',
  moduleResolution: 'bundler',
  noEmit: true,
  declaration: false,
  declarationMap: false,
  isolatedDeclarations: false,
  noUnusedLocals: false,
  noUnusedParameters: false,
  skipLibCheck: true,
  jsx: 'react-jsx',
  types: ['node', 'vite/client'],
  paths: {
    tidelog: [inRoot('js/src/index.ts')],
    'tidelog/node': [inRoot('js/src/node/index.ts')],
    'tidelog/testing': [inRoot('js/src/node/testing.ts')],
    'tidelog/*': [inRoot('js/src/*.ts')],
  },
};

test('every sample of the documentation has right types', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'tidelog-docs-'));
  try {
    for (const sample of samples) {
      const [name, code] = asTypeScript(sample);
      const file = path.join(folder, sample.page.replaceAll('/', '-'), name);
      expect(existsSync(file), `${sample.page} has ${name} twice`).toBe(false);
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, code);
    }
    symlinkSync(inRoot('node_modules'), path.join(folder, 'node_modules'));
    const include = ['**/*.ts', '**/*.tsx'];
    const config = { extends: inRoot('js/tsconfig.json'), compilerOptions, include };
    writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify(config));
    const tsc = inRoot('node_modules/typescript/bin/tsc');
    const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', folder], {
      encoding: 'utf8',
    });
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
    expect(samples.length).toBeGreaterThan(40);
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 60_000);

/** What a doctype is made with. */
const DEFINING = { doctype, mutation, stream, command, workflow };

/** What a page says that a document holds, and the SQL that it asks of it. */
function* kinds(): Generator<[string, Doctype, string[]]> {
  for (const page of pages()) {
    const ofPage = samplesOf(page);
    let latest: Doctype | undefined;
    for (const { name, code } of ofPage) {
      const found = doctypesIn(code).map((text) =>
        new Function(...Object.keys(DEFINING), `return ${text}`)(...Object.values(DEFINING)),
      );
      for (const it of found.slice(0, -1)) yield [`${page} ${name}`, it, []];
      latest = found.at(-1) ?? latest;
      if (latest) yield [`${page} ${name}`, latest, queriesIn(code)];
    }
  }
}

test('every doctype of the documentation can work, and every query has its tables', () => {
  let [doctypes, queries] = [0, 0];
  for (const [where, kind, asked] of kinds()) {
    expect(run(kind, asked), where).toEqual([]);
    doctypes += 1;
    queries += asked.length;
  }
  expect(doctypes).toBeGreaterThan(25);
  expect(queries).toBeGreaterThan(15);
});

test('the page of commands shows the types that are written', () => {
  const ofPage = samples.filter(({ page }) => page === 'docs/commands.md');
  const [doctypes, , declared] = ofPage.map(({ code }) => code);
  const [text] = doctypesIn(doctypes!);
  const kind: Doctype = new Function('doctype', 'mutation', `return ${text}`)(doctype, mutation);
  const schema = new Schema(sqlite, kind.migrations);
  const sources = ofPage.slice(0, 2).map(({ name, code }) => ({ file: name, text: code }));
  const written = declare([{ name: kind.name, schema }], findQueries(sources));
  expect([written.flaws, written.notes]).toEqual([[], []]);
  expect(`// ${ofPage[2]!.name}\n${written.text}`).toBe(declared);
});

test('a key of the cookbook sorts between its neighbours, however often', async () => {
  const { code } = samples.find((it) => it.code.includes('function keyBetween'))!;
  const file = path.join(mkdtempSync(path.join(tmpdir(), 'tidelog-key-')), 'key.ts');
  writeFileSync(file, code);
  const { keyBetween } = await import(file);
  const keys: string[] = [];
  // The places are drawn by a small generator, so that each run has the same ones.
  let drawn = 1;
  for (let count = 0; count < 2_000; count += 1) {
    drawn = (drawn * 48_271) % 2_147_483_647;
    const places = [0, keys.length, drawn % (keys.length + 1), Math.min(7, keys.length)];
    const at = places[count % places.length]!;
    const key = keyBetween(keys[at - 1], keys[at]);
    if (at > 0) expect(key > keys[at - 1]!).toBe(true);
    if (at < keys.length) expect(key < keys[at]!).toBe(true);
    keys.splice(at, 0, key);
  }
  expect(new Set(keys).size).toBe(keys.length);
  expect(keys).toEqual([...keys].sort());
  // What was not made by it may leave no room.
  const others = [
    ['', ''],
    ['', '0'],
    ['a', 'a'],
    ['c', 'a'],
    ['A', 'b'],
    ['a', 'a0'],
  ];
  for (const [before, after] of others) expect(() => keyBetween(before, after)).toThrow(/key/);
  rmSync(path.dirname(file), { recursive: true });
});

const UNITS = {
  bytes: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  s: 1000,
  min: 60_000,
  hours: 3_600_000,
  days: 86_400_000,
} as Record<string, number>;

/** What `crates/types/src/limits.rs` says of a name. */
function limit(name: string): number {
  const source = readFileSync(inRoot('crates/types/src/limits.rs'), 'utf8');
  const [, text] =
    source.match(new RegExp(`const ${name}: \\w+ = ([^;]+);`)) ??
    source.match(new RegExp(`^ {8}${name}: ([^,]+),`, 'm')) ??
    [];
  if (!text) throw new Error(`there is no limit ${name}`);
  // A shift to the left has 32 bits in JavaScript.
  const figures = text
    .replaceAll(/[A-Z][A-Z_]+/g, (other) => String(limit(other)))
    .replaceAll('<<', '* 2 **');
  return new Function(`return ${figures}`)();
}

test('the page of limits has the figures of the source', () => {
  const page = readFileSync(inRoot('docs/limits.md'), 'utf8');
  const rows = [...page.matchAll(/^\| .* \| ([\d,]+) ?(\w*) \| `(\w+)` \|$/gm)];
  for (const [, figure, unit, name] of rows) {
    const told = Number(figure!.replaceAll(',', '')) * (unit ? UNITS[unit]! : 1);
    const pages = /pages_max/i.test(name!) ? limit('PAGE_SIZE') : 1;
    expect([name, told]).toEqual([name, limit(name!) * pages]);
  }
  expect(rows.length).toBeGreaterThan(20);
});

test('the page of limits lacks none of the constants of the source', () => {
  const page = readFileSync(inRoot('docs/limits.md'), 'utf8');
  const source = readFileSync(inRoot('crates/types/src/limits.rs'), 'utf8');
  const names = [...source.matchAll(/^pub const (\w+):/gm)].map(([, name]) => name!);
  expect(names.filter((name) => !page.includes(`\`${name}\` |`))).toEqual([]);
  expect(names.length).toBeGreaterThan(100);
});

test('every link from one page to another file leads somewhere', () => {
  for (const page of pages()) {
    const text = readFileSync(inRoot(page), 'utf8').replaceAll(/^```[\s\S]*?^```$/gm, '');
    for (const [, target] of text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)) {
      const file = inRoot(path.dirname(page), target!);
      expect(existsSync(file), `${page} links to ${target}`).toBe(true);
    }
  }
});
