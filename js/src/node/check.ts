/** Checks doctypes in Node with the engine itself: what it refuses there no browser opens. */

import { readFileSync } from 'node:fs';
import { Writer } from '../codec.js';
import { type DoctypeDefinition, flawOf, writeDoctype } from '../doctype.js';
import { type SqlToken, sqlTokens } from './types/sql-tokens.js';

/** What is used of `core.js`, which is compiled from crate `browser`. */
interface Engine {
  initSync(from: { module: WebAssembly.Module }): unknown;
  checkDoctype(doctype: Uint8Array): string | undefined;
}

let engine: Promise<Engine> | undefined;

async function load(): Promise<Engine> {
  const wasm = new URL('../wasm/', import.meta.url);
  const core: Engine = await import(new URL('core.js', wasm).href);
  core.initSync({ module: new WebAssembly.Module(readFileSync(new URL('core_bg.wasm', wasm))) });
  return core;
}

/** What is found out about a doctype. */
export interface Finding {
  /** What is wrong with it, as a tab would be told that opens a document of it. */
  readonly flaw: string | undefined;
  /** What will be wrong: once an argument is left out, say, or a document has rows. */
  readonly hints: readonly string[];
}

/** Checks a doctype. */
export async function check(doctype: DoctypeDefinition): Promise<Finding> {
  engine ??= load();
  const { checkDoctype } = await engine;
  const w = new Writer();
  writeDoctype(w, doctype);
  return { flaw: checkDoctype(w.take()), hints: hintsOf(doctype) };
}

/** @internal What of a doctype will be wrong. */
export function hintsOf(doctype: DoctypeDefinition): readonly string[] {
  return [...unused(doctype), ...drawn(doctype), ...lateColumns(doctype)];
}

/** One line for each parameter that stands in no statement of its mutation. */
function unused({ name, mutations }: DoctypeDefinition): readonly string[] {
  return Object.entries(mutations).flatMap(([mutation, { params, sql }]) => {
    const used = sql.join('\n').matchAll(/[:@$]([\p{L}\p{N}_$]+)/gu);
    const names = new Set([...used].map(([, param]) => param));
    const left = Object.keys(params).filter((param) => !names.has(param));
    return left.map(
      (param) => `mutation ${mutation} of doctype ${name} does not use its parameter ${param}`,
    );
  });
}

/**
 * One line for each parameter of kind `uuid` of a mutation that inserts nothing: left out, it is
 * drawn, and whatever that was to change or delete is not found.
 */
function drawn({ name, mutations }: DoctypeDefinition): readonly string[] {
  return Object.entries(mutations).flatMap(([mutation, { params, sql }]) => {
    if (sql.some((it) => /\b(insert|replace)\s+(or\s+\w+\s+)?into\b/i.test(it))) return [];
    const uuids = Object.keys(params).filter((param) => params[param] === 'uuid');
    return uuids.map(
      (param) =>
        `mutation ${mutation} of doctype ${name} inserts nothing, and its parameter ${param} is a` +
        ` 'uuid', which is drawn where it is left out: make it 'text', so that it is missed`,
    );
  });
}

/**
 * One line for each column that SQLite adds to a table without rows alone, as those of a new
 * document are, where an earlier migration has made the table.
 */
function lateColumns({ name, migrations }: DoctypeDefinition): readonly string[] {
  const made = new Set<string>();
  return migrations.flatMap((migration, index) => {
    const statements = statementsOf(sqlTokens(migration));
    const hints = statements.flatMap((tokens) => {
      const [table, column, ...definition] = addedColumn(tokens);
      const why = column && made.has(table!.text.toLowerCase()) && onlyWithoutRows(definition);
      if (!why) return [];
      const what = `migration ${index + 1} of doctype ${name} adds ${table!.text}.${column.text}`;
      return [`${what}, ${why}: it fails in each document whose ${table!.text} has a row`];
    });
    for (const tokens of statements) {
      const at = tokens.findIndex(({ text }) => text === 'table');
      const isMade = tokens[0]?.text === 'create' && at > 0;
      const names = tokens.slice(at + 1).filter(({ text }) => !/^(if|not|exists)$/.test(text));
      if (isMade && names[0]) made.add(names[0].text.toLowerCase());
    }
    return hints;
  });
}

function statementsOf(tokens: readonly SqlToken[]): SqlToken[][] {
  const statements: SqlToken[][] = [[]];
  for (const token of tokens) {
    if (token.kind === 'sign' && token.text === ';') statements.push([]);
    else statements.at(-1)!.push(token);
  }
  return statements;
}

/** The table to which a statement adds a column, that, and how it is defined. */
function addedColumn(tokens: readonly SqlToken[]): readonly SqlToken[] {
  const [alter, of, table, add, ...rest] = tokens;
  if (alter?.text !== 'alter' || of?.text !== 'table' || add?.text !== 'add') return [];
  const isSaid = rest[0]?.kind === 'word' && rest[0].text === 'column';
  return [table!, ...rest.slice(isSaid ? 1 : 0)];
}

/** Why SQLite adds a column of this definition to no table with rows, if it does not. */
function onlyWithoutRows(definition: readonly SqlToken[]): string | undefined {
  const at = (...texts: string[]): number =>
    definition.findIndex((_, index) =>
      texts.every((text, nth) => {
        const token = definition[index + nth];
        return token?.kind === 'word' && token.text === text;
      }),
    );
  const given = at('default');
  const value = given < 0 ? undefined : definition[given + 1];
  const hasNone = value === undefined || value.text === 'null';
  if (at('stored') >= 0) return 'which is generated and stored';
  if (at('not', 'null') >= 0 && hasNone && at('as') < 0)
    return 'which is NOT NULL and has no default';
  if (at('references') >= 0 && !hasNone) return 'which references a table and has a default';
  const isSigned =
    value?.text === '(' &&
    !/^\(\s*[+-]?\s*('(''|[^'])*'|[\w.]+)\s*\)$/.test(spelt(definition, given + 1));
  const isOfNow = /^current_/.test(value?.text ?? '');
  return isSigned || isOfNow ? 'whose default is no constant' : undefined;
}

/** What stands in the parentheses that open here, with them. */
function spelt(tokens: readonly SqlToken[], open: number): string {
  let depth = 0;
  const inside: string[] = [];
  for (const { kind, text } of tokens.slice(open)) {
    inside.push(text);
    if (kind === 'sign' && text === '(') depth += 1;
    if (kind === 'sign' && text === ')' && --depth === 0) break;
  }
  return inside.join(' ');
}

/** The doctypes among what a module exports, each once. */
export function doctypesOf(exports: object): readonly DoctypeDefinition[] {
  return [...new Set(Object.values(exports))].filter((it) => !flawOf(it));
}

/** Why something that a module exports is no doctype, though it is much like one. */
export function flawAmong(exports: object): string | undefined {
  const isAlike = (it: unknown): boolean =>
    ['name', 'migrations', 'mutations'].every((field) => Object.hasOwn(Object(it), field));
  const flaws = Object.values(exports).filter(isAlike).map(flawOf);
  return flaws.find((flaw) => flaw !== undefined);
}
