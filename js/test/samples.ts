// The code that the documentation shows, as files that a compiler takes.
//
// A fence may say two things behind its language: `joined`, it goes on where the last block with a
// doctype ended; `fragment`, it is no whole and left out. A first line of `// src/todos.ts` names a
// file, which the other blocks of the page import by that.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { compile } from 'svelte/compiler';
import { compileScript, parse } from 'vue/compiler-sfc';

export const inRoot = (...parts: string[]): string =>
  path.join(fileURLToPath(new URL('../..', import.meta.url)), ...parts);

const LANGUAGES = ['ts', 'tsx', 'vue', 'svelte'];

/** Code of one page that is one file. */
export interface Sample {
  /** The page's path in the repository. */
  readonly page: string;
  /** A name that its page has once, or that the page gave it. */
  readonly name: string;
  readonly code: string;
}

/** All Markdown that is for users, as paths in the repository. */
export function pages(): string[] {
  const list = ['ls-files', '-co', '--exclude-standard', '*.md'];
  const listed = execFileSync('git', list, { cwd: inRoot(), encoding: 'utf8' }).split('\n');
  const isForUsers = /^docs\/|^((js|examples|create)\/(.*\/)?)?README\.md$/;
  // A file may be listed and deleted.
  return listed.filter((it) => isForUsers.test(it) && existsSync(inRoot(it)));
}

/** The samples of a page, those that are joined as one. */
export function samplesOf(page: string): Sample[] {
  const text = readFileSync(inRoot(page), 'utf8');
  const found: Sample[] = [];
  for (const [, language, marks, code] of text.matchAll(/^```(\w+) ?(.*)\n([\s\S]*?)^```$/gm)) {
    if (!LANGUAGES.includes(language!) || marks === 'fragment') continue;
    if (marks === 'joined') {
      const at = found.map((it) => it.code.includes('doctype(')).lastIndexOf(true);
      const { name, code: before } = found[at]!;
      found[at] = { page, name: name.replace(/ts$/, language!), code: `${before}\n${code}` };
      continue;
    }
    if (marks !== '') throw new Error(`${page}: a block cannot be ${marks}`);
    const [, given] = code!.match(/^(?:\/\/|<!--) (\S+\.\w+)/) ?? [];
    found.push({ page, name: given ?? `src/${found.length}.${language}`, code: code! });
  }
  return found;
}

/** The file as TypeScript: its path in the folder of its page, and what is in it. */
export function asTypeScript({ name, code }: Sample): [string, string] {
  if (name.endsWith('.vue')) return [`${name}.ts`, fromVue(name, code)];
  if (name.endsWith('.svelte')) return [`${name}.ts`, fromSvelte(name, code)];
  const isOfSolid = /from '(solid-js|tidelog\/solid)/.test(code);
  const text = isOfSolid && name.endsWith('x') ? `/** @jsxImportSource solid-js */\n${code}` : code;
  // Without an import it would share its names with all files.
  return [name, `${text}\nexport {};\n`];
}

/** Script and template, which Vue makes into calls that a compiler checks with it. */
function fromVue(filename: string, code: string): string {
  const { descriptor, errors } = parse(code, { filename });
  if (errors.length > 0) throw errors[0];
  return compileScript(descriptor, { id: filename, inlineTemplate: true }).content;
}

/** The script; of the markup only that Svelte takes it. */
function fromSvelte(filename: string, code: string): string {
  const { warnings } = compile(code, { filename, generate: 'client' });
  if (warnings.length > 0) throw new Error(`${filename}: ${warnings[0]!.message}`);
  const [, script] = code.match(/<script lang="ts">\n([\s\S]*?)<\/script>/)!;
  const component = `import type { Component } from 'svelte';\nexport default {} as Component;\n`;
  const runes = `declare function $state<T>(value: T): T;\n`;
  return component + runes + script;
}

const OPENING = /[([{]/;
const CLOSING = /[)\]}]/;

/** The text of each call of `doctype` in a sample, to the parenthesis that ends it. */
export function doctypesIn(code: string): string[] {
  return [...code.matchAll(/\bdoctype\(\{/g)].map(({ index }) => {
    let depth = 0;
    let quote = '';
    for (let at = index; at < code.length; at += 1) {
      const it = code[at]!;
      if (quote) {
        if (it === '\\') at += 1;
        else if (it === quote) quote = '';
      } else if (/['"`]/.test(it)) quote = it;
      else if (code.startsWith('//', at)) at = code.indexOf('\n', at);
      else if (OPENING.test(it)) depth += 1;
      else if (CLOSING.test(it) && --depth === 0) return code.slice(index, at + 1);
    }
    throw new Error('a call of doctype does not end');
  });
}

/** The SQL of queries in a sample: what is given as a text, or stands in an `sql` template. */
export function queriesIn(code: string): string[] {
  const given = [
    ...code.matchAll(/\.?\b(?:query|live|values|use\w*Live)(?:<[^(]*>)?\(\s*'([^']*)'/g),
  ];
  const named = [...code.matchAll(/const ALL = '([^']*)'/g)];
  const built = [...code.matchAll(/\bsql<[^`]*>`([^`]*)`/g)];
  return [
    ...[...given, ...named].map(([, sql]) => sql!),
    ...built
      .map(([, sql]) => sql!)
      .filter((sql) => !/\$\{is/.test(sql))
      .map(withoutValues),
  ];
}

/** A template's SQL with a parameter in the place of each value. */
function withoutValues(sql: string): string {
  let text = '';
  let depth = 0;
  for (const [index, it] of [...sql].entries()) {
    if (it === '{' && (depth > 0 || sql[index - 1] === '$')) {
      if (depth === 0) text = `${text.slice(0, -1)}?`;
      depth += 1;
    } else if (it === '}' && depth > 0) depth -= 1;
    else if (depth === 0) text += it;
  }
  return text;
}
