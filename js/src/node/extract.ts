/** `npx tidelog extract`: the doctypes of an app as a server takes them. */

import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { lookApart } from './apart.js';
import { AppFiles } from './app-files.js';
import type { Found } from './modules.js';

/** A doctype as it is sent to a server. */
export interface Extracted {
  readonly name: string;
  /** What `JSON.stringify` makes of it. */
  readonly json: string;
}

/** What modules export, and what is wrong there. */
export interface Extraction {
  /** Each once, sorted by name. */
  readonly doctypes: readonly Extracted[];
  /** Why none of it may be sent. */
  readonly flaws: readonly string[];
}

/**
 * Finds the doctypes that these modules, and those below these folders, export. They are checked
 * as by `npx tidelog check`.
 *
 * @param root the folder of the app.
 * @throws {Error} where there is nothing of a name.
 */
export async function extract(root: string, names: readonly string[]): Promise<Extraction> {
  const files = new AppFiles(root, names);
  const below = files.modules.map(({ file }) => file);
  // A file that is named is loaded whatever its text says.
  const all = [...new Set([...files.all.filter((file) => files.isNamed(file)), ...below])];
  const found = await lookApart(
    { root },
    all.map((file) => path.resolve(root, file)),
  );
  return extractionOf(
    found.map((it, index) => ({ ...it, file: all[index]! })),
    (file) => files.isNamed(file),
  );
}

/** What was found, each doctype once; a module that was not named may export none. */
export function extractionOf(
  found: readonly Found[],
  isNamed: (file: string) => boolean,
): Extraction {
  const flaws: string[] = [];
  const doctypes = new Map<string, Extracted>();
  for (const { file, flaw, failure, isNone, doctypes: exported } of found) {
    const isForgiven = isNone && !isNamed(file);
    const wrong = flaw ?? failure;
    if (wrong && !isForgiven) flaws.push(`${file}: ${wrong}`);
    for (const { name, json, flaw } of exported) {
      if (flaw) flaws.push(`${file}: ${flaw}`);
      const other = doctypes.get(name);
      if (other && other.json !== json) {
        flaws.push(`${file}: there are two doctypes ${name}: name the module of the one to send`);
      }
      doctypes.set(name, { name, json });
    }
  }
  const byName = (one: Extracted, other: Extracted): number => (one.name < other.name ? -1 : 1);
  return { doctypes: [...doctypes.values()].sort(byName), flaws };
}

/** The file of a doctype, for any name that a doctype may have. */
const fileOf = (name: string): string => `${encodeURIComponent(name)}.json`;

/**
 * Writes each doctype into a file of this folder, which is made if it is not there. Says which.
 *
 * @throws {Error} where two would be one file, and nothing is written.
 */
export function writeInto(folder: string, doctypes: readonly Extracted[]): readonly string[] {
  const files = new Map<string, string>();
  for (const { name } of doctypes) {
    // Where the file system tells no upper from lower case, they are one.
    const file = fileOf(name).toLowerCase();
    const other = files.get(file);
    if (other !== undefined) {
      throw new Error(`doctypes ${other} and ${name} differ in case alone: name one by --name`);
    }
    files.set(file, name);
  }
  mkdirSync(folder, { recursive: true });
  return doctypes.map(({ name, json }) => {
    const file = path.join(folder, fileOf(name));
    writeFileSync(file, `${json}\n`);
    return file;
  });
}
