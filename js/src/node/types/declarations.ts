/** The file that declares the types of an app's queries. */

import { type Column, type Parameter, QueryTypes } from './query-types.js';
import type { Schema } from './schema.js';
import { ALTERNATIVES_MAX, type FoundQuery, type Hole } from './source-queries.js';
import { sqlTokens } from './sql-tokens.js';
import { either, type Kind, UNKNOWN, written, writtenParameter } from './value-type.js';

/** A doctype whose documents are asked. */
export interface AskedDoctype {
  readonly name: string;
  readonly schema: Schema;
}

/** What is said of the queries of an app. */
export interface Declarations {
  /** The file's text. */
  readonly text: string;
  /** How many queries have types there. */
  readonly count: number;
  /** What is wrong, each with its place. */
  readonly flaws: readonly string[];
  /** What could not be looked at, each with its place. */
  readonly notes: readonly string[];
}

/** By this a file is known as one of ours. */
export const FIRST_LINE = '// Written by "npx tidelog types", which writes it anew.';

const HEAD = `${FIRST_LINE}
/* eslint-disable */
import type { Param, Params, Query, Value } from 'tidelog';

declare module 'tidelog' {
  interface Queries {`;

const TAIL = `  }
}
`;

/** Declares the types of these queries. */
export function declare(
  doctypes: readonly AskedDoctype[],
  queries: readonly FoundQuery[],
): Declarations {
  const flaws: string[] = [];
  const notes: string[] = [];
  const known = new Map<string, string>();
  const asked = new Map<string, string>();
  for (const query of queries) {
    const { file, line, key, alternatives } = query;
    const place = `${file}:${line}`;
    const answer = typesOf(doctypes, query);
    if ('flaw' in answer) flaws.push(`${place}: ${answer.flaw}`);
    else if ('note' in answer) notes.push(`${place}: ${answer.note}`);
    else if (key !== undefined) {
      // However their lines are broken.
      const tokens = alternatives.map(({ sql }) => sqlTokens(sql).map((token) => token.text));
      const query = JSON.stringify([tokens, answer.text]);
      const isTaken = asked.has(key) && asked.get(key) !== query;
      if (isTaken) flaws.push(`${place}: another query is called ${key}, too`);
      else {
        asked.set(key, query);
        known.set(key, answer.text);
      }
    }
  }
  const declared = [...known].sort(([one], [other]) => (one < other ? -1 : 1));
  const body = declared.map(([key, text]) => `    ${JSON.stringify(key)}: ${text};\n`);
  const text = `${HEAD}\n${body.join('')}${TAIL}`;
  return { text, count: known.size, flaws, notes };
}

type Answer = { readonly text: string } | { readonly flaw: string } | { readonly note: string };

/** What a query is to each doctype whose documents can be asked it. */
function typesOf(doctypes: readonly AskedDoctype[], query: FoundQuery): Answer {
  if (query.alternatives.length === 0) {
    return { note: `not looked at: its parts make more than ${ALTERNATIVES_MAX} queries` };
  }
  const texts = new Set<string>();
  const flaws: string[] = [];
  for (const { name, schema } of doctypes) {
    try {
      texts.add(typeIn(schema, query));
    } catch (error) {
      const of = doctypes.length > 1 ? ` (doctype ${name})` : '';
      flaws.push(`${(error as Error).message}${of}`);
    }
  }
  if (texts.size > 0) return { text: [...texts].join(' | ') };
  const mayBePart = query.alternatives.some(({ holes }) => holes?.some(({ isPart }) => !isPart));
  if (mayBePart && flaws.some((flaw) => flaw.includes('near "?": syntax error'))) {
    return { note: 'not looked at: a part of it is SQL from elsewhere' };
  }
  return { flaw: flaws.join('; ') };
}

/** A query as it may be, of the types that a schema gives it. */
interface Asked {
  readonly columns: readonly Column[];
  readonly parameters: readonly Parameter[];
  readonly holes: readonly Hole[] | undefined;
}

function typeIn(schema: Schema, { alternatives, isForValues }: FoundQuery): string {
  const asked = alternatives.map(({ sql, holes }): Asked => {
    const types = new QueryTypes(schema, sql);
    const columns = types.columns();
    if (columns.length === 0 || schema.writes(sql)) {
      throw new Error('it does not only read: what changes a document is a mutation');
    }
    const names = columns.map(({ name }) => name);
    const twice = names.find((name, index) => names.indexOf(name) < index);
    if (twice !== undefined && !isForValues) {
      throw new Error(`two columns are named ${twice}: name one "... as another", or ask values()`);
    }
    return { columns, parameters: types.parameters(), holes };
  });
  const [{ parameters, holes }] = asked as [Asked];
  const params = holes ? valuesOf(asked) : paramsOf(parameters);
  return `{ row: ${rowsOf(asked)}; params: ${params} }`;
}

/** Rows of alternatives: one type of those that have the same columns. */
function rowsOf(asked: readonly Asked[]): string {
  const rows = new Map<string, Column[]>();
  for (const { columns } of asked) {
    const names = JSON.stringify(columns.map(({ name }) => name));
    rows.set(names, [...(rows.get(names) ?? []), ...columns]);
  }
  const texts = [...rows.values()].map((columns) => {
    const fields = joined(columns).map(([name, kind]) => `${field(name)}: ${written(kind)}`);
    return `{ ${fields.join('; ')} }`;
  });
  return texts.join(' | ');
}

/** The values of a template, in their order. */
function valuesOf(asked: readonly Asked[]): string {
  const kinds = asked.map(({ holes, parameters }) => {
    let at = 0;
    return holes!.map(({ isPart, parameters: count }) => {
      const kind = parameters[at]?.kind ?? UNKNOWN;
      at += count;
      return isPart ? undefined : kind;
    });
  });
  const values = kinds[0]!.map((_, index) => {
    const ofEach = kinds.flatMap((it) => it[index] ?? []);
    if (ofEach.length === 0) return 'Query<unknown>';
    const given = writtenParameter(either(ofEach));
    // It may be SQL that comes from elsewhere.
    return given === 'Param' ? 'Param | Query<unknown>' : given;
  });
  return `readonly [${values.join(', ')}]`;
}

/** What is given beside a text: by place, or by name where all have one. */
function paramsOf(parameters: readonly Parameter[]): string {
  const named = parameters.flatMap(({ name, kind }) => {
    return name === undefined ? [] : { name: name.slice(1), kind };
  });
  if (named.length === 0) {
    return `readonly [${parameters.map(({ kind }) => writtenParameter(kind)).join(', ')}]`;
  }
  if (named.length < parameters.length) return 'Params';
  const fields = joined(named).map(([name, kind]) => {
    return `readonly ${field(name)}: ${writtenParameter(kind)}`;
  });
  return `{ ${fields.join('; ')} }`;
}

/** Kinds by their names, of which each stands once. */
function joined(named: readonly { readonly name: string; readonly kind: Kind }[]) {
  const kinds = new Map<string, Kind>();
  for (const { name, kind } of named) {
    const known = kinds.get(name);
    kinds.set(name, known ? either([known, kind]) : kind);
  }
  return [...kinds];
}

const field = (name: string): string =>
  /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(name) ? name : JSON.stringify(name);
