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
      const added = tables.add(tokens, migration);
      const why = added && onlyWithoutRows(added, ask);
      if (!why) return [];
      const what = `migration ${index + 1} of doctype ${name} adds ${added.table}.${added.column}`;
      return [`${what}, and fails in each document where ${added.table} has a row: ${why}`];
    });
  });
}

/** A table that a migration has made. */
interface Made {
  /** Whether a migration before has made or filled it. */
  readonly mayHaveRows: boolean;
  readonly isStrict: boolean;
}

/** A column that a statement adds to a table which may have rows. */
interface Added {
  readonly table: string;
  readonly column: string;
  /** Its name and what follows. */
  readonly definition: string;
  readonly isStrict: boolean;
}

/** Which tables may have rows, as far as that can be told without any. */
class Tables {
  readonly #made = new Map<string, Made>();

  /** A migration has ended: who used the document then may have filled what it made. */
  settle(): void {
    for (const [name, made] of this.#made) this.#made.set(name, { ...made, mayHaveRows: true });
  }

  /** Takes in a statement. */
  add(tokens: readonly SqlToken[], sql: string): Added | undefined {
    const is = (at: number, ...texts: string[]): boolean =>
      texts.every((text, nth) => isWord(tokens[at + nth], text));
    // The name that stands there, behind that of its schema.
    const nameAt = (at: number): number => (tokens[at + 1]?.text === '.' ? at + 2 : at);
    const key = (at: number): string => tokens[at]?.text.toLowerCase() ?? '';
    const set = (at: number, made: Partial<Made>): void => {
      const before = this.#made.get(key(at)) ?? { mayHaveRows: false, isStrict: false };
      this.#made.set(key(at), { ...before, ...made });
    };
    if (is(0, 'create', 'table')) {
      const at = nameAt(is(2, 'if', 'not', 'exists') ? 5 : 2);
      const close = tokens.map((token) => token.text).lastIndexOf(')');
      const isStrict = tokens.slice(close).some((token) => isWord(token, 'strict'));
      if (!this.#made.has(key(at))) set(at, { mayHaveRows: is(at + 1, 'as'), isStrict });
    } else if (is(0, 'drop', 'table')) {
      this.#made.delete(key(nameAt(is(2, 'if', 'exists') ? 4 : 2)));
    } else if (is(0, 'delete', 'from')) {
      const at = nameAt(2);
      if (at === tokens.length - 1) set(at, { mayHaveRows: false });
    } else if (is(0, 'alter', 'table')) {
      return this.#alter(nameAt(2), tokens, sql);
    } else if (!is(0, 'create')) {
      const into = tokens.findIndex((token) => isWord(token, 'into'));
      if (into > 0) set(nameAt(into + 1), { mayHaveRows: true });
    }
    return undefined;
  }

  /** The same of one that alters the table whose name stands there. */
  #alter(at: number, tokens: readonly SqlToken[], sql: string): Added | undefined {
    const name = tokens[at]?.text ?? '';
    const made = this.#made.get(name.toLowerCase());
    const [first, second, named, last] = [at + 1, at + 2, at + 3, -1].map((it) => tokens.at(it));
    if (!made || !first || !second || !last) return undefined;
    if (isWord(first, 'rename') && isWord(second, 'to') && named) {
      this.#made.delete(name.toLowerCase());
      this.#made.set(named.text.toLowerCase(), made);
    }
    if (!isWord(first, 'add') || !made.mayHaveRows) return undefined;
    const isSaid = isWord(second, 'column');
    const column = isSaid ? named : second;
    const isConstraint = !isSaid && (isWord(second, 'check') || isWord(second, 'constraint'));
    if (!column || isConstraint) return undefined;
    const definition = sql.slice(column.at, last.end);
    return { table: name, column: column.text, definition, isStrict: made.isStrict };
  }
}

const isWord = (token: SqlToken | undefined, text: string): boolean =>
  token?.kind === 'word' && token.text === text;

/** The statements of a migration; the body of a trigger is of its own. */
function statementsOf(sql: string): SqlToken[][] {
  const statements: SqlToken[][] = [[]];
  for (const token of sqlTokens(sql)) {
    const statement = statements.at(-1)!;
    const makes = isWord(statement[0], 'create');
    const isOfTrigger = makes && statement.slice(1, 3).some((it) => isWord(it, 'trigger'));
    const last = statement.at(-1);
    const isWithin = isOfTrigger && !(isWord(last, 'end') && last!.pair === undefined);
    const isEnd = token.kind === 'sign' && token.text === ';' && !isWithin;
    if (isEnd) statements.push([]);
    else statement.push(token);
  }
  return statements;
}

/** What the engine says where it adds this column to a table with a row alone. */
function onlyWithoutRows({ definition, isStrict }: Added, ask: Ask): string | undefined {
  if (!/\b(not|default|references|check|as|generated)\b/i.test(definition)) return undefined;
  const table = '"tidelog probe"';
  const made = `create table ${table} (${table} integer)${isStrict ? ' strict' : ''}`;
  const filled = `${made}; insert into ${table} values (1)`;
  const add = `alter table ${table} add column ${definition}`;
  // Other columns are not there, which it may name.
  const [why] =
    ask({ name: 'probe', migrations: [filled, add], mutations: {} })?.match(OF_ROWS) ?? [];
  return why;
}

/** What SQLite says of a column where there are rows, and not of one where there are none. */
const OF_ROWS =
  /(cannot add a (?!UNIQUE|PRIMARY)|(CHECK|NOT NULL) constraint failed|type mismatch).*/i;

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
