import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { extractionOf, writeInto } from '../src/node/extract.js';
import type { Found, FoundDoctype } from '../src/node/modules.js';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'tidelog-extract-'));
});

afterEach(() => rmSync(folder, { recursive: true }));

const of = (name: string, json = `{"name":"${name}"}`, flaw?: string): FoundDoctype => {
  return { name, json, flaw, migrations: 0, mutations: 0, schema: [], hints: [] };
};

const found = (file: string, ...doctypes: FoundDoctype[]): Found => ({ file, doctypes });

const isNamed = (file: string): boolean => file === 'named.ts';

test('a doctype that several modules export is extracted once', () => {
  const modules = [found('a.ts', of('b'), of('a')), found('b.ts', of('b'))];
  const { doctypes, flaws } = extractionOf(modules, isNamed);
  expect(flaws).toEqual([]);
  expect(doctypes.map(({ name }) => name)).toEqual(['a', 'b']);
});

test('of two doctypes of one name neither is silently the one', () => {
  const { flaws } = extractionOf([found('a.ts', of('a')), found('b.ts', of('a', '{}'))], isNamed);
  expect(flaws).toEqual(['b.ts: there are two doctypes a: name the module of the one to send']);
});

test('what is wrong is told, and a module below a folder may export none', () => {
  const none = { doctypes: [], failure: 'it exports no doctype', isNone: true } as const;
  const modules: Found[] = [
    { file: 'named.ts', ...none },
    { file: 'below.ts', ...none },
    { file: 'broken.ts', doctypes: [], failure: 'it does not load' },
    found('wrong.ts', of('a', '{}', 'it does not run')),
  ];
  expect(extractionOf(modules, isNamed).flaws).toEqual([
    'named.ts: it exports no doctype',
    'broken.ts: it does not load',
    'wrong.ts: it does not run',
  ]);
});

test('each becomes a file by its name, whatever that is', () => {
  const into = path.join(folder, 'made/here');
  const files = writeInto(into, [of('notes'), of('../é x')]);
  expect(files.map((file) => path.relative(into, file))).toEqual([
    'notes.json',
    '..%2F%C3%A9%20x.json',
  ]);
  expect(readFileSync(files[0]!, 'utf8')).toBe('{"name":"notes"}\n');
  expect(JSON.parse(readFileSync(files[1]!, 'utf8'))).toEqual({ name: '../é x' });
});

test('two that some file systems take for one are not written', () => {
  const into = path.join(folder, 'made');
  expect(() => writeInto(into, [of('Notes'), of('notes')])).toThrow(/Notes and notes differ in/);
  expect(existsSync(into)).toBe(false);
});
