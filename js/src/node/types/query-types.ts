/**
 * What a query gives and takes. Node's SQLite says which columns of an answer are columns of a
 * table; what is said beyond that stands in the text: joins that may find no row, aggregates of no
 * row, expressions. Where it is not certain, a value may be null, or any `Value`.
 */

import { declaredType, type Origin, type Schema } from './schema.js';
import {
  isSelect,
  isSign,
  isWord,
  type Range,
  type Select,
  selectsIn,
  shallow,
  split,
} from './select.js';
import { type SqlToken, sqlTokens } from './sql-tokens.js';
import { either, type Kind, kind, NULL, orNull, UNKNOWN } from './value-type.js';

/** A column of an answer. */
export interface Column {
  readonly name: string;
  readonly kind: Kind;
}

/** A parameter; those without a name are told apart by their place, from 1. */
export interface Parameter {
  readonly name: string | undefined;
  readonly place: number;
  readonly kind: Kind;
}

/** Functions by what they give. */
const COUNTS = words('count total row_number rank dense_rank ntile percent_rank cume_dist changes');
const TEXTS = words(
  'hex quote typeof json_array json_object json_group_array json_group_object sqlite_version',
);
const NUMBERS_OF = words('length octet_length abs round instr json_valid');
/** They are null of what is no number. */
const NUMBERS_OF_NUMBERS = words('sign floor ceil ceiling trunc');
const TEXTS_OF = words('lower upper trim ltrim rtrim replace json');
const MAYBE_NUMBERS = words('sum avg unicode unixepoch julianday json_array_length');
const MAYBE_TEXTS = words(
  'group_concat string_agg date time datetime strftime json_type printf format',
);
const AGGREGATES = words(
  'count total sum avg min max group_concat string_agg json_group_array json_group_object ' +
    'jsonb_group_array jsonb_group_object median percentile',
);

const LOGIC = words('and or');
const TESTS = words('is isnull notnull');
const COMPARISONS = words('in like glob match regexp between');
const COMPARING = words('= == <> != < <= > >=');
const CALCULATING = words('+ - * / % & | << >>');

/** What begins an operand; anything else before a column is a part of a larger one. */
const BEFORE_OPERAND = words('where and or on not when then else having by select between ( ,');

function words(text: string): ReadonlySet<string> {
  return new Set(text.split(' '));
}

/** The types of one query, by the schema that it is asked of. */
export class QueryTypes {
  readonly #schema: Schema;
  readonly #sql: string;
  readonly #tokens: readonly SqlToken[];
  readonly #whole: Range;

  constructor(schema: Schema, sql: string) {
    this.#schema = schema;
    this.#sql = sql;
    this.#tokens = sqlTokens(sql);
    const isPlan = isWord(this.#tokens[1], 'query');
    const start = isWord(this.#tokens[0], 'explain') ? (isPlan ? 3 : 1) : 0;
    this.#whole = { start, end: this.#tokens.length };
  }

  /** The columns of its answer. The query can be prepared. */
  columns(): Column[] {
    const origins = this.#schema.columns(this.#sql);
    const isExplained = this.#whole.start > 0;
    const selects = isExplained ? [] : selectsIn(this.#tokens, this.#whole);
    const kinds = selects.map((select) => this.#kindsOf(select, origins.length));
    return origins.map(({ name }, index) => {
      const ofEach = kinds.map((it) => it[index] ?? UNKNOWN);
      return { name, kind: ofEach.length > 0 ? either(ofEach) : UNKNOWN };
    });
  }

  /** What has to be given beside it, by place. */
  parameters(): Parameter[] {
    const found: { name: string | undefined; uses: (Kind | 'null')[] }[] = [];
    this.#tokens.forEach((token, index) => {
      if (token.kind !== 'parameter') return;
      const use = this.#use(index);
      const number = Number(token.text.slice(1));
      const isNamed = !token.text.startsWith('?');
      const known = isNamed ? found.findIndex(({ name }) => name === token.text) : number - 1;
      const at = token.text === '?' || (isNamed && known < 0) ? found.length : known;
      while (found.length <= at) found.push({ name: undefined, uses: [] });
      if (isNamed) found[at]!.name = token.text;
      found[at]!.uses.push(use);
    });
    return found.map(({ name, uses }, index) => {
      const kinds = uses.filter((use) => use !== 'null');
      const isNullable = uses.includes('null');
      // One that has a use which says nothing may be anything there, but not in the others.
      const known = kinds.filter(({ types }) => !types.includes('Value'));
      const all = known.length > 0 && known.length === kinds.length ? either(known) : UNKNOWN;
      return { name, place: index + 1, kind: isNullable ? orNull(all) : all };
    });
  }

  /** The kinds of what a select gives, in the order of its columns. */
  #kindsOf(select: Select, count: number): Kind[] {
    let origins: readonly Origin[];
    try {
      origins = this.#schema.columns(`${this.#text(select.prefix)} ${this.#text(select)}`);
    } catch {
      // It is within another one, and names what is that one's.
      origins = [];
    }
    const { items } = select;
    const stars = items.map((item) => isSign(this.#tokens[item.end - 1], '*'));
    const [first, last] = [stars.indexOf(true), stars.lastIndexOf(true)];
    return Array.from({ length: count }, (_, index) => {
      const fromEnd = items.length - (count - index);
      const isAhead = first < 0 || index < first;
      const item = isAhead ? items[index] : fromEnd > last ? items[fromEnd] : undefined;
      const origin = origins[index];
      // Of a select that is one value SQLite names the column within, and it may have no row.
      const isScalar = item !== undefined && isSign(this.#tokens[item.start], '(');
      if (origin && origin.table !== null && !isScalar) {
        const kind = this.#ofOrigin(origin, select);
        // Between two stars nobody knows which of them it is.
        const between = items.slice(first + 1, last);
        return item || !between.some((it) => this.#isScalar(it)) ? kind : orNull(kind);
      }
      return item ? this.#kind(this.#withoutName(item), select) : UNKNOWN;
    });
  }

  /** An expression of a select without the name that its column is given. */
  #withoutName({ start, end }: Range): Range {
    const [before, last] = [this.#tokens[end - 2], this.#tokens[end - 1]!];
    if (end - start < 2) return { start, end };
    if (isWord(before, 'as')) return { start, end: end - 2 };
    const isName = last.kind === 'quoted' || (last.kind === 'word' && !isWord(last, 'end', 'null'));
    const endsOperand =
      before!.kind === 'sign' ? isSign(before, ')') : before!.kind !== 'word' || isName;
    const isTest = isWord(last, 'isnull', 'notnull') || isWord(before, 'collate', 'is', 'not');
    const isOperator = before!.kind === 'word' && OPERATORS.has(before!.text);
    return isName && endsOperand && !isTest && !isOperator
      ? { start, end: end - 1 }
      : { start, end };
  }

  /** What a column of a table is where a select has it. */
  #ofOrigin(origin: Origin, select: Select): Kind {
    const declared = this.#schema.declared(origin);
    if (!declared) return UNKNOWN;
    const table = origin.table!.toLowerCase();
    const defined = this.#tokens.slice(select.prefix.start, select.prefix.end);
    const isPlain = ({ name }: { readonly name: string | undefined }): boolean =>
      name !== undefined &&
      this.#schema.isTable(name) &&
      !defined.some((it) => it.text.toLowerCase() === name.toLowerCase());
    const isFlat = select.sources.every(isPlain);
    // What is selected within may mix several columns, of which SQLite names one.
    if (!isFlat && this.#mixes()) return UNKNOWN;
    const isOuter = select.sources.some((it) => it.isOuter && it.name?.toLowerCase() === table);
    const isSure = isFlat ? !isOuter : this.#keepsNulls();
    const isNullable = declared.isNullable || !isSure || this.#aggregatesAll(select);
    return { types: [declared.type], isNullable };
  }

  /** The statement, and the views that it and they name. */
  #definitions(): QueryTypes[] {
    const found = new Map<string, QueryTypes>([['', this]]);
    // What is added to a map while it is gone through has its turn as well.
    for (const definition of found.values()) {
      for (const { text } of definition.#tokens) {
        const name = text.toLowerCase();
        const view = this.#schema.view(name);
        if (view === undefined || found.has(name)) continue;
        const tokens = sqlTokens(view);
        const as = tokens.find((token) => isWord(token, 'as'));
        found.set(name, new QueryTypes(this.#schema, view.slice(as!.end)));
      }
    }
    return [...found.values()];
  }

  /** Whether rows of several selects may stand in one answer. */
  #mixes(): boolean {
    return this.#definitions().some((it) =>
      it.#tokens.some((token) => isWord(token, 'union', 'intersect', 'except')),
    );
  }

  /** Whether what is never null in a table is never null in any select that is selected from. */
  #keepsNulls(): boolean {
    return this.#definitions().every((it) => {
      // A row of values may have a select in it, as may what is joined find no row.
      const mayLack = it.#tokens.some((token) => isWord(token, 'left', 'right', 'full', 'values'));
      const selects = it.#selects(it === this);
      const isSure = (select: Select): boolean =>
        !it.#aggregatesAll(select) && !select.items.some((item) => it.#isScalar(item));
      return !mayLack && selects.every(isSure);
    });
  }

  /** Whether this is a select of one value, which may have no row, and names its column. */
  #isScalar({ start, end }: Range): boolean {
    for (let at = start; at < end && isSign(this.#tokens[at], '('); at += 1) {
      const inside = { start: at + 1, end: this.#tokens[at]!.pair ?? end };
      if (!isSelect(this.#tokens, inside)) continue;
      return selectsIn(this.#tokens, inside).some((it) => !this.#aggregatesAll(it));
    }
    return false;
  }

  /** All its selects, without that which is all of it where that is the question itself. */
  #selects(isWithin: boolean): Select[] {
    const inside = this.#tokens.flatMap(({ kind: of, text, pair }, at) => {
      const range = { start: at + 1, end: pair ?? 0 };
      const isOpening = of === 'sign' && text === '(';
      return isOpening && isSelect(this.#tokens, range) ? selectsIn(this.#tokens, range) : [];
    });
    return isWithin ? inside : [...inside, ...selectsIn(this.#tokens, this.#whole)];
  }

  /** Whether it makes one row of all, which may be none. */
  #aggregatesAll(select: Select): boolean {
    return !select.isGrouped && this.#aggregatesIn(select);
  }

  #aggregatesIn({ start, end }: Range): boolean {
    for (let at = start; at < end; at += 1) {
      const { kind: of, text, pair } = this.#tokens[at]!;
      if (
        of === 'sign' &&
        text === '(' &&
        pair &&
        isSelect(this.#tokens, { start: at + 1, end: pair })
      ) {
        at = pair;
      } else if (of === 'word' && AGGREGATES.has(text) && this.#isAggregate(at)) return true;
    }
    return false;
  }

  #isAggregate(at: number): boolean {
    const open = this.#tokens[at + 1];
    if (!isSign(open, '(') || open!.pair === undefined) return false;
    const isOfOne =
      !['min', 'max'].includes(this.#tokens[at]!.text) || this.#arguments(at).length === 1;
    return isOfOne && !this.#isOver(open!.pair);
  }

  /** Whether a call that ends here is one of a window. */
  #isOver(close: number): boolean {
    const filter = isWord(this.#tokens[close + 1], 'filter')
      ? this.#tokens[close + 2]?.pair
      : close;
    return isWord(this.#tokens[(filter ?? close) + 1], 'over');
  }

  #arguments(at: number): Range[] {
    return this.#list(at + 1);
  }

  /** What stands between the commas in parentheses. */
  #list(open: number): Range[] {
    const inside = { start: open + 1, end: this.#tokens[open]!.pair! };
    if (inside.start === inside.end) return [];
    return split(this.#tokens, inside, (it) => isSign(this.#tokens[it], ','));
  }

  /** What an expression is; `select` is undefined where nothing is known of its columns. */
  #kind(range: Range, select: Select | undefined): Kind {
    const { start, end } = range;
    const tokens = this.#tokens;
    const first = tokens[start];
    if (!first || start >= end) return UNKNOWN;
    if (isSign(first, '(') && first.pair === end - 1) {
      const inside = { start: start + 1, end: end - 1 };
      if (isSelect(tokens, inside)) return this.#ofScalar(inside);
      const isRow = this.#list(start).length > 1;
      return isRow ? UNKNOWN : this.#kind(inside, select);
    }
    const operators = this.#operators(range);
    const has = (of: ReadonlySet<string>): boolean =>
      operators.some((at) => of.has(tokens[at]!.text));
    const operands = (of: ReadonlySet<string>): Kind[] =>
      split(tokens, range, (at) => operators.includes(at) && of.has(tokens[at]!.text)).map((it) =>
        this.#kind(it, select),
      );
    const nullableIf = (kinds: readonly Kind[]): Kind =>
      kind(
        'number',
        kinds.some((it) => it.isNullable),
      );
    if (has(LOGIC)) return nullableIf(operands(LOGIC));
    if (isWord(first, 'not')) {
      return nullableIf([this.#kind({ start: start + 1, end }, select)]);
    }
    if (has(TESTS)) return kind('number');
    if (has(COMPARISONS)) return kind('number', true);
    if (has(COMPARING)) return nullableIf(operands(COMPARING));
    if (has(CALCULATING)) {
      const isDivided = operators.some((at) => isSign(tokens[at], '/', '%'));
      return isDivided ? kind('number', true) : nullableIf(operands(CALCULATING));
    }
    if (has(words('->>'))) return UNKNOWN;
    if (has(words('->'))) return kind('string', true);
    if (has(words('||'))) {
      return kind(
        'string',
        operands(words('||')).some((it) => it.isNullable),
      );
    }
    if (isWord(first, 'exists')) return kind('number');
    if (isSign(first, '-')) return nullableIf([this.#kind({ start: start + 1, end }, select)]);
    if (isWord(tokens[end - 2], 'collate')) return this.#kind({ start, end: end - 2 }, select);
    return this.#ofOperand(range, select);
  }

  /** The operators between the operands of an expression. */
  #operators(range: Range): number[] {
    const tokens = this.#tokens;
    let isBetween = false;
    return [...shallow(tokens, range)].filter((at) => {
      const { kind: of, text } = tokens[at]!;
      if (at === range.start) return false;
      if (of === 'word') {
        if (text === 'between') isBetween = true;
        else if (text === 'and' && isBetween) {
          isBetween = false;
          return false;
        } else if (text === 'not') return isWord(tokens[at + 1], 'null') && at + 2 === range.end;
        return LOGIC.has(text) || TESTS.has(text) || COMPARISONS.has(text);
      }
      const before = tokens[at - 1]!;
      // Behind another operator it is a sign.
      const isBehind = before.kind === 'sign' && !isSign(before, ')');
      return of === 'sign' && !isBehind && OPERATOR_SIGNS.has(text);
    });
  }

  /** What has no operators. */
  #ofOperand({ start, end }: Range, select: Select | undefined): Kind {
    const first = this.#tokens[start]!;
    if (first.kind === 'number') return kind('number');
    if (first.kind === 'string') return kind('string');
    if (first.kind === 'blob') return kind('Uint8Array');
    if (first.kind === 'word') {
      if (first.text === 'null') return NULL;
      if (first.text === 'true' || first.text === 'false') return kind('number');
      if (first.text.startsWith('current_')) return kind('string');
      if (first.text === 'case') return this.#ofCase(start, select);
      if (isSign(this.#tokens[start + 1], '(')) return this.#ofCall(start, select);
    }
    return first.kind === 'parameter' ? UNKNOWN : this.#ofColumn({ start, end }, select);
  }

  #ofColumn(range: Range, select: Select | undefined): Kind {
    if (!select || select.from.start === select.from.end) return UNKNOWN;
    const named = `${this.#text(select.prefix)} select ${this.#text(range)}`;
    try {
      const [origin] = this.#schema.columns(`${named} ${this.#text(select.from)}`);
      return origin!.table === null ? UNKNOWN : this.#ofOrigin(origin!, select);
    } catch {
      return UNKNOWN;
    }
  }

  /** A select as a value: null where it has no row. */
  #ofScalar(range: Range): Kind {
    const selects = selectsIn(this.#tokens, range);
    const [only] = selects;
    if (!only || selects.length > 1) return UNKNOWN;
    const [kindOf] = this.#kindsOf(only, 1);
    const limits = [...shallow(this.#tokens, only)].some((at) =>
      isWord(this.#tokens[at], 'limit', 'having'),
    );
    return this.#aggregatesAll(only) && !limits ? kindOf! : orNull(kindOf!);
  }

  #ofCase(start: number, select: Select | undefined): Kind {
    const end = this.#tokens[start]!.pair;
    if (end === undefined) return UNKNOWN;
    const inside = { start: start + 1, end };
    const marks = [...shallow(this.#tokens, inside)].filter((at) =>
      isWord(this.#tokens[at], 'when', 'then', 'else'),
    );
    const kinds = marks.flatMap((at, index) => {
      if (isWord(this.#tokens[at], 'when')) return [];
      return [this.#kind({ start: at + 1, end: marks[index + 1] ?? end }, select)];
    });
    const hasElse = marks.some((at) => isWord(this.#tokens[at], 'else'));
    return either(hasElse ? kinds : [...kinds, NULL]);
  }

  #ofCall(at: number, select: Select | undefined): Kind {
    const name = this.#tokens[at]!.text;
    const close = this.#tokens[at + 1]!.pair!;
    if (name === 'cast') return this.#ofCast(at, select);
    const kinds = this.#arguments(at).map((it) => this.#kind(it, select));
    const [first = UNKNOWN] = kinds;
    const isFiltered = isWord(this.#tokens[close + 1], 'filter');
    const mayBeNone = isFiltered || this.#isOver(close) || !select || !select.isGrouped;
    const mayBeNull = kinds.some((it) => it.isNullable);
    if (COUNTS.has(name)) return kind('number');
    if (TEXTS.has(name)) return kind('string');
    if (NUMBERS_OF.has(name)) return kind('number', mayBeNull);
    if (NUMBERS_OF_NUMBERS.has(name)) {
      return kind('number', mayBeNull || first.types.join() !== 'number');
    }
    if (TEXTS_OF.has(name)) return kind('string', mayBeNull);
    if (name === 'sum' || name === 'avg') return kind('number', mayBeNull || mayBeNone);
    if (MAYBE_NUMBERS.has(name)) return kind('number', true);
    if (MAYBE_TEXTS.has(name)) return kind('string', true);
    switch (name) {
      case 'substr':
      case 'substring':
        return first.types.join() === 'string' ? kind('string', mayBeNull) : UNKNOWN;
      case 'min':
      case 'max':
        return kinds.length === 1 && mayBeNone ? orNull(first) : either(kinds);
      case 'coalesce':
      case 'ifnull': {
        const isNullable = kinds.every((it) => it.isNullable);
        return { types: either(kinds).types, isNullable };
      }
      case 'nullif':
        return orNull(first);
      case 'iif':
      case 'if':
        return kinds.length < 2 ? UNKNOWN : either(chosenOf(kinds));
      case 'lag':
      case 'lead':
      case 'first_value':
      case 'last_value':
        return orNull(first);
      default:
        return UNKNOWN;
    }
  }

  #ofCast(at: number, select: Select | undefined): Kind {
    const inside = { start: at + 2, end: this.#tokens[at + 1]!.pair! };
    const as = [...shallow(this.#tokens, inside)].find((it) => isWord(this.#tokens[it], 'as'));
    if (as === undefined) return UNKNOWN;
    const type = declaredType(this.#text({ start: as + 1, end: inside.end }), true);
    return kind(type, this.#kind({ start: inside.start, end: as }, select).isNullable);
  }

  /** What a parameter is compared with; `null` where it is only looked at whether it is. */
  #use(at: number): Kind | 'null' {
    const tokens = this.#tokens;
    const [before, next] = [tokens[at - 1], tokens[at + 1]];
    const isEnd = (token: SqlToken | undefined): boolean =>
      token === undefined ||
      (token.kind === 'word' && !COMPARISONS.has(token.text) && !TESTS.has(token.text)) ||
      isSign(token, ')', ',', ';');
    if (isWord(next, 'isnull', 'notnull')) return 'null';
    if (isWord(next, 'is')) {
      const isNot = isWord(tokens[at + 2], 'not');
      return isWord(tokens[at + (isNot ? 3 : 2)], 'null') ? 'null' : UNKNOWN;
    }
    if (isWord(before, 'limit', 'offset')) return kind('number');
    if (isSign(before, '(') && isWord(tokens[at - 2], 'json_each', 'json_tree'))
      return kind('string');
    if (isCalculating(before) || isCalculating(next)) return kind('number');
    if (isSign(before, '||') || isSign(next, '||')) return kind('string');
    if (isWord(before, 'like', 'glob') || isWord(next, 'like', 'glob')) return kind('string');
    if (isComparing(next)) {
      const start = at + 2;
      return this.#comparedWith({ start, end: this.#afterOperand(start) });
    }
    if (!isEnd(next)) return UNKNOWN;
    if (isComparing(before)) return this.#comparedWith(this.#operandBefore(at - 1));
    if (isWord(before, 'is') || (isWord(before, 'not') && isWord(tokens[at - 2], 'is'))) {
      const is = isWord(before, 'is') ? at - 1 : at - 2;
      return orNull(this.#comparedWith(this.#operandBefore(is)));
    }
    const between = isWord(before, 'between') ? at - 1 : isWord(before, 'and') ? at - 3 : -1;
    if (isWord(tokens[between], 'between')) return this.#comparedWith(this.#listedAgainst(between));
    const open = this.#opening(at);
    if (isSign(before, '(', ',') && open !== undefined && isWord(tokens[open - 1], 'in')) {
      return this.#comparedWith(this.#listedAgainst(open - 1));
    }
    return open === undefined ? UNKNOWN : this.#inRow(at, open);
  }

  /** What stands at the same place of the row that this one is compared with, beginning there. */
  #inRow(at: number, open: number): Kind {
    const tokens = this.#tokens;
    const close = tokens[open]!.pair!;
    const isAfter = isComparing(tokens[open - 1]) && isSign(tokens[open - 2], ')');
    const other = isAfter ? tokens[open - 2]!.pair! : close + 2;
    const isRow = isSign(tokens[other], '(') && (isAfter || isComparing(tokens[close + 1]));
    const isCall = isAfter && !BEFORE_OPERAND.has(tokens[other - 1]?.text ?? '(');
    if (!isRow || isCall) return UNKNOWN;
    const place = this.#list(open).findIndex(({ start, end }) => start === at && end === at + 1);
    const column = this.#list(other)[place];
    return column ? this.#comparedWith(column) : UNKNOWN;
  }

  /** The operand before `in` or `between`, or before a `not` there. */
  #listedAgainst(at: number): Range {
    return this.#operandBefore(isWord(this.#tokens[at - 1], 'not') ? at - 1 : at);
  }

  /** The parenthesis in which this stands. */
  #opening(index: number): number | undefined {
    for (let at = index - 1; at >= 0; at -= 1) {
      const { pair } = this.#tokens[at]!;
      if (pair === undefined) continue;
      if (pair > at) return at;
      at = pair;
    }
    return undefined;
  }

  /** The column or the call that ends before this; nothing where it is a part of more. */
  #operandBefore(end: number): Range {
    const tokens = this.#tokens;
    let start = end - 1;
    if (isSign(tokens[start], ')')) start = tokens[start]!.pair ?? start;
    const isCall = start < end - 1 && tokens[start - 1]?.kind === 'word';
    if (isCall && !BEFORE_OPERAND.has(tokens[start - 1]!.text)) start -= 1;
    while (isSign(tokens[start - 1], '.')) start -= 2;
    const before = tokens[start - 1];
    return !before || BEFORE_OPERAND.has(before.text) ? { start, end } : { start: end, end };
  }

  /** Where the column or the call ends that begins here. */
  #afterOperand(start: number): number {
    const tokens = this.#tokens;
    let end = start + 1;
    while (isSign(tokens[end], '.')) end += 2;
    if (isSign(tokens[end], '(')) end = (tokens[end]!.pair ?? end) + 1;
    const next = tokens[end];
    const isMore = next?.kind === 'sign' && !isSign(next, ')', ',', ';');
    return isMore ? start : end;
  }

  /** What a value has to be to equal this. */
  #comparedWith(range: Range): Kind {
    for (const select of this.#around(range.start)) {
      const found = this.#kind(range, select);
      if (!found.types.includes('Value')) return { ...found, isNullable: false };
    }
    return UNKNOWN;
  }

  /** The selects around a place, the innermost first. */
  #around(index: number): Select[] {
    const ranges: Range[] = [];
    for (let at = this.#opening(index); at !== undefined; at = this.#opening(at)) {
      const range = { start: at + 1, end: this.#tokens[at]!.pair! };
      if (isSelect(this.#tokens, range)) ranges.push(range);
    }
    const whole = selectsIn(this.#tokens, this.#whole);
    return [...ranges, this.#whole].flatMap((range) => {
      const at = selectsIn(this.#tokens, range).find(
        ({ start, end }) => start <= index && index < end,
      );
      if (!at) return [];
      const isWithin = at.prefix.start === at.prefix.end;
      return [isWithin && whole[0] ? { ...at, prefix: whole[0].prefix } : at];
    });
  }

  #text({ start, end }: Range): string {
    if (start >= end) return '';
    return this.#sql.slice(this.#tokens[start]!.at, this.#tokens[end - 1]!.end);
  }
}

const OPERATOR_SIGNS = new Set([...COMPARING, ...CALCULATING, '||', '->', '->>']);
const OPERATORS = new Set([...LOGIC, ...TESTS, ...COMPARISONS, 'not', 'escape']);

const isComparing = (token: SqlToken | undefined): boolean => isSign(token, ...COMPARING);
const isCalculating = (token: SqlToken | undefined): boolean => isSign(token, ...CALCULATING);

/** What is chosen from, of conditions and what each of them stands for, and what is else. */
function chosenOf(kinds: readonly Kind[]): Kind[] {
  const isElse = kinds.length % 2 === 1;
  const chosen = kinds.filter((_, index) => index % 2 === 1);
  return [...chosen, isElse ? kinds.at(-1)! : NULL];
}
