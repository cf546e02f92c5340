/** `npx tidelog types`: the types of an app's queries, from its migrations. */

import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { lookApart } from './apart.js';
import { definesDoctype } from './modules.js';
import { type AskedDoctype, declare } from './types/declarations.js';
import { loadSqlite, Schema } from './types/schema.js';
import { findQueries, type Source } from './types/source-queries.js';

/** What is found out, and what is to be written. */
export interface Outcome {
  /** The file, beside the first module that defines a doctype. */
  readonly file: string;
  readonly text: string;
  /** How many queries have types there. */
  readonly count: number;
  readonly flaws: readonly string[];
  readonly notes: readonly string[];
}

/** What is read of an app: its modules, and what has them inside. */
const IS_SOURCE = /\.([cm]?[jt]s|[jt]sx|vue|svelte)$/;
const IS_DECLARATION = /\.d\.([cm]?ts|\w+\.ts)$/;
/** What can be run in Node, or by Vite, to see what it exports. */
const IS_MODULE = /\.([cm]?[jt]s|[jt]sx)$/;

/**
 * Finds the types of the queries in these files, and in the modules below these folders.
 *
 * @param root the folder of the app.
 * @throws {Error} where there is nothing that could be said of any.
 */
export async function typesOf(root: string, names: readonly string[]): Promise<Outcome> {
  const sqlite = await loadSqlite();
  const sources = names.flatMap((name) => sourcesBelow(root, name));
  const modules = sources.filter(({ file, text }) => IS_MODULE.test(file) && definesDoctype(text));
  const [first] = modules;
  if (!first) throw new Error('none of these files defines a doctype: name the one that does, too');
  const paths = modules.map(({ file }) => path.resolve(root, file));
  const found = await lookApart({ root }, paths);
  const flaws: string[] = [];
  const kinds = new Map<string, AskedDoctype>();
  for (const [index, { doctypes, flaw, failure }] of found.entries()) {
    const { file } = modules[index]!;
    for (const it of [flaw, failure, ...doctypes.map((doctype) => doctype.flaw)]) {
      if (it) flaws.push(`${file}: ${it}`);
    }
    for (const { name, schema, flaw } of doctypes) {
      if (flaw) continue;
      try {
        kinds.set(JSON.stringify([name, schema]), { name, schema: new Schema(sqlite, schema) });
      } catch (error) {
        const { message } = error as Error;
        flaws.push(`${file}: doctype ${name} does not run in the SQLite of Node: ${message}`);
      }
    }
  }
  const file = first.file.replace(IS_MODULE, '.queries.d.ts');
  if (flaws.length > 0) return { file, text: '', count: 0, flaws, notes: [] };
  return { file, ...declare([...kinds.values()], findQueries(sources)) };
}

/** Whether the file of an outcome is as it would be written. */
export function isFresh(root: string, { file, text }: Outcome): boolean {
  const at = path.resolve(root, file);
  return existsSync(at) && readFileSync(at, 'utf8').replaceAll('\r\n', '\n') === text;
}

/** Writes the file of an outcome. */
export function write(root: string, { file, text }: Outcome): void {
  writeFileSync(path.resolve(root, file), text);
}

function sourcesBelow(root: string, name: string): Source[] {
  const at = path.resolve(root, name);
  if (!statSync(at).isDirectory()) return [{ file: name, text: readFileSync(at, 'utf8') }];
  const entries = readdirSync(at).sort();
  return entries.flatMap((entry) => {
    const isForeign = entry.startsWith('.') || entry === 'node_modules' || entry === 'dist';
    const file = path.join(name, entry);
    if (isForeign || IS_DECLARATION.test(entry)) return [];
    const isFolder = statSync(path.join(at, entry)).isDirectory();
    return isFolder || IS_SOURCE.test(entry) ? sourcesBelow(root, file) : [];
  });
}
