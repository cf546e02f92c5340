/** The selects of a statement: where their parts begin and end. */

import type { SqlToken } from './sql-tokens.js';

/** Tokens from one to before another. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** One select, of several that a compound has. */
export interface Select extends Range {
  /** What stands before the first `select` of the compound: `with ...`. */
  readonly prefix: Range;
  /** The expressions that it selects; none of `values (...)`. */
  readonly items: readonly Range[];
  /** `from ...`, up to what limits its rows. */
  readonly from: Range;
  /** The tables and views of its `from`; undefined for a select there, or a function. */
  readonly sources: readonly Source[];
  readonly isGrouped: boolean;
}

/** What rows are taken of. */
export interface Source {
  readonly name: string | undefined;
  /** Whether it may have no row where the others have one. */
  isOuter: boolean;
}

const CLAUSES = new Set(['from', 'where', 'group', 'having', 'window', 'order', 'limit']);
const COMPOUNDS = new Set(['union', 'intersect', 'except']);
const JOINS = new Set(['natural', 'left', 'right', 'full', 'outer', 'inner', 'cross', 'join']);

/** The indices in a range that stand in no parentheses there. */
export function* shallow(tokens: readonly SqlToken[], { start, end }: Range): Generator<number> {
  for (let at = start; at < end; at += 1) {
    yield at;
    const { pair } = tokens[at]!;
    if (pair !== undefined && pair > at && pair < end) {
      at = pair;
      yield at;
    }
  }
}

export const isWord = (token: SqlToken | undefined, ...words: readonly string[]): boolean =>
  token?.kind === 'word' && words.includes(token.text);

export const isSign = (token: SqlToken | undefined, ...signs: readonly string[]): boolean =>
  token?.kind === 'sign' && signs.includes(token.text);

/** Parts of a range between signs or words that stand in no parentheses. */
export function split(
  tokens: readonly SqlToken[],
  range: Range,
  isBetween: (index: number) => boolean,
): Range[] {
  const parts: Range[] = [];
  let start = range.start;
  for (const at of shallow(tokens, range)) {
    if (!isBetween(at)) continue;
    parts.push({ start, end: at });
    start = at + 1;
  }
  parts.push({ start, end: range.end });
  return parts;
}

/** Whether a select stands in this range, as in a statement or in parentheses. */
export const isSelect = (tokens: readonly SqlToken[], { start, end }: Range): boolean =>
  start < end && isWord(tokens[start], 'select', 'with', 'values');

/** The selects of a range that is one, the first first. */
export function selectsIn(tokens: readonly SqlToken[], range: Range): Select[] {
  const end = isSign(tokens[range.end - 1], ';') ? range.end - 1 : range.end;
  const first = [...shallow(tokens, { start: range.start, end })].find((at) =>
    isWord(tokens[at], 'select', 'values'),
  );
  if (first === undefined) return [];
  const prefix = { start: range.start, end: first };
  const isBetween = (at: number): boolean => isWord(tokens[at], ...COMPOUNDS);
  const arms = split(tokens, { start: first, end }, isBetween);
  return arms.map((arm, index) => {
    const start = isWord(tokens[arm.start], 'all') ? arm.start + 1 : arm.start;
    const isLast = arms.length > 1 && index === arms.length - 1;
    return selectIn(tokens, prefix, { start, end: isLast ? beforeOrder(tokens, arm) : arm.end });
  });
}

/** What stands behind the last select of a compound is of all of them. */
function beforeOrder(tokens: readonly SqlToken[], range: Range): number {
  const at = [...shallow(tokens, range)].find((it) => isWord(tokens[it], 'order', 'limit'));
  return at ?? range.end;
}

function selectIn(tokens: readonly SqlToken[], prefix: Range, range: Range): Select {
  const { end } = range;
  const clauses = [...shallow(tokens, range)].filter((at) => {
    const isDistinctFrom = isWord(tokens[at], 'from') && isWord(tokens[at - 1], 'distinct');
    return isWord(tokens[at], ...CLAUSES) && !(isDistinctFrom && at - 1 > range.start + 1);
  });
  const isValues = isWord(tokens[range.start], 'values');
  const skipped = isWord(tokens[range.start + 1], 'distinct', 'all') ? 2 : 1;
  const list = { start: range.start + skipped, end: clauses[0] ?? end };
  const isComma = (at: number): boolean => isSign(tokens[at], ',');
  const start = clauses.find((at) => isWord(tokens[at], 'from')) ?? end;
  const from = { start, end: clauses.find((at) => at > start) ?? end };
  return {
    ...range,
    prefix,
    items: isValues ? [] : split(tokens, list, isComma),
    from,
    sources: sourcesIn(tokens, from),
    isGrouped: clauses.some((at) => isWord(tokens[at], 'group')),
  };
}

function sourcesIn(tokens: readonly SqlToken[], from: Range): Source[] {
  const sources: Source[] = [];
  let join: string[] | undefined = [];
  for (const at of shallow(tokens, { start: from.start + 1, end: from.end })) {
    const token = tokens[at]!;
    if (isSign(token, ',')) {
      join = [];
    } else if (isWord(token, ...JOINS)) {
      join = [...(join ?? []), token.text];
    } else if (join) {
      const isName = token.kind === 'word' || token.kind === 'quoted';
      // Of a name behind the name of its database, and of a function, the next token says it.
      if (isSign(tokens[at + 1], '.') || isSign(token, '.')) continue;
      const isOuter = join.includes('left') || join.includes('full');
      if (join.includes('right') || join.includes('full')) {
        for (const it of sources) it.isOuter = true;
      }
      const isPlain = isName && !isSign(tokens[at + 1], '(');
      sources.push({ name: isPlain ? token.text : undefined, isOuter });
      join = undefined;
    }
  }
  return sources;
}
