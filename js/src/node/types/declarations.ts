/** The file that declares the types of an app's queries. */

import { type Column, type Parameter, QueryTypes } from './query-types.js';
import type { Schema } from './schema.js';
import type { FoundQuery, Hole } from './source-queries.js';
import { UNKNOWN, written, writtenParameter } from './value-type.js';

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

const HEAD = `// Written by "npx tidelog types", which writes it anew.
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
  for (const query of queries) {
    const { file, line, key } = query;
    const place = `${file}:${line}`;
    const answer = typesOf(doctypes, query);
    if ('flaw' in answer) flaws.push(`${place}: ${answer.flaw}`);
    else if ('note' in answer) notes.push(`${place}: ${answer.note}`);
    else if (key !== undefined) {
      const isTaken = known.has(key) && known.get(key) !== answer.text;
      if (isTaken) flaws.push(`${place}: a query of other types is called ${key}, too`);
      else known.set(key, answer.text);
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
  const mayBePart = query.holes?.some(({ isPart }) => !isPart);
  if (mayBePart && flaws.some((flaw) => flaw.includes('near "?": syntax error'))) {
    return { note: 'not looked at: a part of it is SQL from elsewhere' };
  }
  return { flaw: flaws.join('; ') };
}

function typeIn(schema: Schema, query: FoundQuery): string {
  const { sql, holes, isForValues } = query;
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
  const parameters = types.parameters();
  const params = holes ? valuesOf(holes, parameters) : paramsOf(parameters);
  return `{ row: ${rowOf(columns)}; params: ${params} }`;
}

function rowOf(columns: readonly Column[]): string {
  const fields = columns.map(({ name, kind }) => `${field(name)}: ${written(kind)}`);
  return `{ ${fields.join('; ')} }`;
}

/** The values of a template, in their order. */
function valuesOf(holes: readonly Hole[], parameters: readonly Parameter[]): string {
  let at = 0;
  const values = holes.map((hole) => {
    const place = at;
    at += hole.parameters;
    if (hole.isPart) return 'Query<unknown>';
    const given = writtenParameter(parameters[place]?.kind ?? UNKNOWN);
    // It may be SQL that comes from elsewhere.
    return given === 'Param' ? 'Param | Query<unknown>' : given;
  });
  return `readonly [${values.join(', ')}]`;
}

/** What is given beside a text: by place, or by name where all have one. */
function paramsOf(parameters: readonly Parameter[]): string {
  const named = parameters.filter(({ name }) => name !== undefined);
  if (named.length === 0) {
    return `readonly [${parameters.map(({ kind }) => writtenParameter(kind)).join(', ')}]`;
  }
  if (named.length < parameters.length) return 'Params';
  const fields = named.map(({ name, kind }) => {
    return `readonly ${field(name!.slice(1))}: ${writtenParameter(kind)}`;
  });
  return `{ ${fields.join('; ')} }`;
}

const field = (name: string): string =>
  /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(name) ? name : JSON.stringify(name);
