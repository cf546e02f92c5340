/** Which files of an app are looked into. */

import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import { definesDoctype } from './modules.js';

/** A file of an app, by its path from there, in what was named or below that. */
export interface AppFile {
  readonly file: string;
  readonly text: string;
}

/** What is read of an app: its modules, and what has them inside. */
const IS_SOURCE = /\.([cm]?[jt]s|[jt]sx|vue|svelte)$/;
const IS_DECLARATION = /\.d\.([cm]?ts|\w+\.ts)$/;
/** What has doctypes of its own, as modules that are named by hand may. */
const IS_TEST = /\.(test|spec)\.\w+$/;
/** What can be run in Node, or by Vite, to see what it exports. */
export const IS_MODULE: RegExp = /\.([cm]?[jt]s|[jt]sx)$/;

/** The files of these names, and those below the folders of these names. */
export class AppFiles {
  /** Of every kind. */
  readonly all: readonly string[];
  readonly sources: readonly AppFile[];
  readonly #named: ReadonlySet<string>;

  /** @throws {Error} where there is nothing of a name. */
  constructor(root: string, names: readonly string[]) {
    this.#named = new Set(names.map((name) => path.normalize(name)));
    this.all = [...new Set([...this.#named].flatMap((name) => filesBelow(root, name)))];
    const isRead = (file: string): boolean =>
      this.isNamed(file) ||
      (IS_SOURCE.test(file) && !IS_DECLARATION.test(file) && !IS_TEST.test(file));
    const textOf = (file: string): string => readFileSync(path.resolve(root, file), 'utf8');
    this.sources = this.all.filter(isRead).map((file) => ({ file, text: textOf(file) }));
  }

  /** The modules that may define a doctype. */
  get modules(): readonly AppFile[] {
    return this.sources.filter(({ file, text }) => IS_MODULE.test(file) && definesDoctype(text));
  }

  /** Whether the file itself was named, and no folder above it. */
  isNamed(file: string): boolean {
    return this.#named.has(file);
  }
}

/**
 * The file of this name, or those of the app in the folder of this name: links that lead nowhere
 * are passed over, and each folder is looked through once.
 */
function filesBelow(root: string, name: string, seen = new Set<string>()): string[] {
  const at = path.resolve(root, name);
  if (!statSync(at).isDirectory()) return [name];
  const folder = realpathSync(at);
  if (seen.has(folder)) return [];
  seen.add(folder);
  const isForeign = (entry: string): boolean =>
    entry.startsWith('.') || entry === 'node_modules' || entry === 'dist';
  const isThere = (entry: string): boolean => existsSync(path.join(at, entry));
  const entries = readdirSync(at).filter((entry) => !isForeign(entry) && isThere(entry));
  return entries.sort().flatMap((entry) => filesBelow(root, path.join(name, entry), seen));
}
