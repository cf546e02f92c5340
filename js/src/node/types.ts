/** `npx tidelog types`: the types of an app's queries, from its migrations. */

import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { lookApart } from './apart.js';
import { AppFiles, IS_MODULE } from './app-files.js';
import { type AskedDoctype, declare, FIRST_LINE } from './types/declarations.js';
import { loadSqlite, Schema } from './types/schema.js';
import { findQueries } from './types/source-queries.js';

/** What is found out, and what is to be written. */
export interface Outcome {
  /** The file, beside the first module that defines a doctype. */
  readonly file: string;
  readonly text: string;
  /** How many queries have types there. */
  readonly count: number;
  /** What earlier runs have written below the folders, in place of the file. */
  readonly stale: readonly string[];
  readonly flaws: readonly string[];
  readonly notes: readonly string[];
}

/**
 * Finds the types of the queries in these files, and in the modules below these folders. Of such a
 * module it is no flaw if it defines no doctype after all.
 *
 * @param root the folder of the app.
 * @throws {Error} where there is nothing that could be said of any.
 */
export async function typesOf(root: string, names: readonly string[]): Promise<Outcome> {
  const sqlite = await loadSqlite();
  const files = new AppFiles(root, names);
  const { sources, modules } = files;
  if (modules.length === 0) {
    throw new Error('none of these files defines a doctype: name the one that does, too');
  }
  const paths = modules.map(({ file }) => path.resolve(root, file));
  const found = await lookApart({ root }, paths);
  const flaws: string[] = [];
  const notes: string[] = [];
  const kinds = new Map<string, AskedDoctype>();
  for (const [index, { doctypes, flaw, failure, isNone }] of found.entries()) {
    const { file } = modules[index]!;
    const isForgiven = isNone && !files.isNamed(file);
    if (failure) (isForgiven ? notes : flaws).push(`${file}: ${failure}`);
    for (const it of [flaw, ...doctypes.map((doctype) => doctype.flaw)]) {
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
  // They say why there is no doctype at all.
  if (kinds.size === 0) flaws.push(...notes.splice(0));
  const first = modules.find((_, index) => found[index]!.doctypes.length > 0) ?? modules[0]!;
  const file = first.file.replace(IS_MODULE, '.queries.d.ts');
  if (flaws.length > 0) return { file, text: '', count: 0, stale: [], flaws, notes };
  const isStale = (it: string): boolean =>
    it.endsWith('.queries.d.ts') &&
    path.resolve(root, it) !== path.resolve(root, file) &&
    readFileSync(path.resolve(root, it), 'utf8').startsWith(FIRST_LINE);
  const declared = declare([...kinds.values()], findQueries(sources));
  const stale = files.all.filter(isStale);
  return { file, stale, ...declared, notes: [...notes, ...declared.notes] };
}

/** Whether the file of an outcome is as it would be written. */
export function isFresh(root: string, { file, text }: Outcome): boolean {
  const at = path.resolve(root, file);
  return existsSync(at) && readFileSync(at, 'utf8').replaceAll('\r\n', '\n') === text;
}

/** Writes the file of an outcome, and removes those in its place. */
export function write(root: string, { file, text, stale }: Outcome): void {
  writeFileSync(path.resolve(root, file), text);
  for (const it of stale) rmSync(path.resolve(root, it));
}
