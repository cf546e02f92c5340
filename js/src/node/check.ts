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
  const ask = (it: DoctypeDefinition): string | undefined => {
    const w = new Writer();
    writeDoctype(w, it);
    return checkDoctype(w.take());
  };
  return { flaw: ask(doctype), hints: hintsOf(doctype, ask) };
}

/** What the engine says is wrong with a doctype. */
type Ask = (doctype: DoctypeDefinition) => string | undefined;

/** @internal What of a doctype will be wrong. */
export function hintsOf(doctype: DoctypeDefinition, ask: Ask): readonly string[] {
  return [...unused(doctype), ...drawn(doctype), ...lateColumns(doctype, ask)];
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
 * document are, where an earlier migration has made the table. The engine is asked, which adds the
 * same to a table with a row.
 */
function lateColumns({ name, migrations }: DoctypeDefinition, ask: Ask): readonly string[] {
  const tables = new Tables();
  return migrations.flatMap((migration, index) => {
    tables.settle();
    return statementsOf(migration).flatMap((tokens) => {
      const { table, column, definition } = tables.add(tokens, migration) ?? {};
      if (!table || !column || !definition) return [];
      const why = onlyWithoutRows(definition, ask);
      if (!why) return [];
      const what = `migration ${index + 1} of doctype ${name} adds ${table}.${column}`;
      return [`${what}, and fails in each document where ${table} has a row: ${why}`];
    });
  });
}

/** Which tables may have rows, as far as that can be told without any. */
class Tables {
  /** Those that are made by now, and whether a migration before has made or filled them. */
  readonly #made = new Map<string, boolean>();

  /** A migration has ended: who used the document then may have filled what it made. */
  settle(): void {
    for (const name of this.#made.keys()) this.#made.set(name, true);
  }

  /** Takes in a statement. Gives the column that it adds to a table which may have rows. */
  add(
    tokens: readonly SqlToken[],
    sql: string,
  ): { table: string; column: string; definition: string } | undefined {
    const is = (at: number, ...texts: string[]): boolean =>
      texts.every((text, nth) => {
        const token = tokens[at + nth];
        return token?.kind === 'word' && token.text === text;
      });
    // The name that stands there, behind that of its schema.
    const nameAt = (at: number): number => (tokens[at + 1]?.text === '.' ? at + 2 : at);
    const key = (at: number): string => tokens[at]?.text.toLowerCase() ?? '';
    if (is(0, 'create', 'table')) {
      const at = nameAt(is(2, 'if', 'not', 'exists') ? 5 : 2);
      const ofRows = tokens.some((_, nth) => nth > at && is(nth, 'as', 'select'));
      if (!this.#made.get(key(at))) this.#made.set(key(at), ofRows);
    } else if (is(0, 'drop', 'table')) {
      this.#made.delete(key(nameAt(is(2, 'if', 'exists') ? 4 : 2)));
    } else if (is(0, 'delete', 'from')) {
      const at = nameAt(2);
      if (at === tokens.length - 1) this.#made.set(key(at), false);
    } else if (tokens.some((_, nth) => is(nth, 'into'))) {
      const into = tokens.findIndex((_, nth) => is(nth, 'into'));
      this.#made.set(key(nameAt(into + 1)), true);
    } else if (is(0, 'alter', 'table')) {
      const at = nameAt(2);
      const has = this.#made.get(key(at)) === true;
      if (is(at + 1, 'rename', 'to')) {
        this.#made.delete(key(at));
        this.#made.set(key(at + 3), has);
      } else if (is(at + 1, 'add') && has) {
        const column = is(at + 2, 'column') ? at + 3 : at + 2;
        const isConstraint = column === at + 2 && (is(column, 'check') || is(column, 'constraint'));
        const [named, last] = [tokens[column], tokens.at(-1)];
        if (isConstraint || !named || !last) return undefined;
        const definition = sql.slice(named.end, last.end);
        return { table: tokens[at]!.text, column: named.text, definition };
      }
    }
    return undefined;
  }
}

function statementsOf(sql: string): SqlToken[][] {
  const statements: SqlToken[][] = [[]];
  for (const token of sqlTokens(sql)) {
    if (token.kind === 'sign' && token.text === ';') statements.push([]);
    else statements.at(-1)!.push(token);
  }
  return statements;
}

/** What the engine says where it adds a column of this definition to a table with a row alone. */
function onlyWithoutRows(definition: string, ask: Ask): string | undefined {
  const made = 'create table t (at integer) strict; insert into t (at) values (1)';
  const add = `alter table t add column more ${definition}`;
  const flaw = ask({ name: 'late', migrations: [made, add], mutations: {} });
  // Other columns are not there, which it may name.
  const [why] = flaw?.match(OF_ROWS) ?? [];
  return why;
}

/** What SQLite says of a column where there are rows, and not of one where there are none. */
const OF_ROWS = /(cannot add a|(CHECK|NOT NULL) constraint failed|type mismatch).*/i;

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
