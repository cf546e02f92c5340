/** Finds the queries in the modules of an app: `sql` templates, and texts that are asked. */

import { type Token, tokensOf } from './source-tokens.js';

/** A file of an app. */
export interface Source {
  readonly file: string;
  readonly text: string;
}

/** What stands in a hole of a template. */
export interface Hole {
  /** SQL that is a part of the query, and not a value. */
  readonly isPart: boolean;
  /** How many parameters it brings. */
  readonly parameters: number;
}

/** SQL, and of a template what its holes are: a text has its parameters beside it. */
export interface Alternative {
  readonly sql: string;
  readonly holes?: readonly Hole[];
}

/** A query that stands in a file. */
export interface FoundQuery {
  readonly file: string;
  readonly line: number;
  /** What it may be, by the parts that it may have. None where that is too much. */
  readonly alternatives: readonly Alternative[];
  /** How its types are found again: by its SQL, or by the name that its template has. */
  readonly key: string | undefined;
  /** Whether its rows are to be arrays: their types are not found again by a text. */
  readonly isForValues: boolean;
}

/** Methods of a document, and hooks, whose first argument may be SQL. */
const METHODS = new Set(['query', 'live', 'values']);
const HOOKS = new Set(['useLive', 'useSuspenseLive']);

/** What a query begins with; other templates are parts of one. */
const BEGINS = /^(?:\s|--[^\n]*|\/\*[\s\S]*?\*\/)*(?:select|with|values|explain|pragma)\b/i;

/** What stands before a query that a comment leaves out: on the line before, or on its own. */
const IGNORES =
  /(?:(?:^|\n)\s*\/\/\s*tidelog-ignore\b[^\n]*\n|\/\*\s*tidelog-ignore\b[^*]*\*\/[}\s]*)[^\n]*$/;

/** In how many ways a query may be put together of its parts. */
export const ALTERNATIVES_MAX = 256;

/** The queries in these files, in the order in which they stand. */
export function findQueries(sources: readonly Source[]): FoundQuery[] {
  const modules = sources.map((source) => new Module(source));
  const shared = new Map<string, readonly string[]>();
  for (const { texts } of modules) {
    for (const [name, its] of texts) shared.set(name, [...(shared.get(name) ?? []), ...its]);
  }
  return modules.flatMap((module) => module.queries(shared));
}

/** Only these have scripts among other things. */
const HAS_SCRIPTS = /\.(vue|svelte|html)$/;
const SCRIPT = /(<script\b[^>]*>)([\s\S]*?)<\/script>/gi;

/** The code of a file; what else is in it is blank, so that lines stay where they are. */
function codeOf({ file, text }: Source): string {
  if (!HAS_SCRIPTS.test(file)) return text;
  let code = '';
  const blank = (part: string): string => part.replaceAll(/[^\n]/g, ' ');
  for (const { index, 1: opening, 2: script } of text.matchAll(SCRIPT)) {
    const start = index + opening!.length;
    code += blank(text.slice(code.length, start)) + script;
  }
  return code;
}

/** JSX stands in any file but those of TypeScript whose name does not say so. */
const hasJsx = (file: string): boolean => !/\.(ts|mts|cts|vue|svelte)$/.test(file);

/** Texts by the names of their constants. */
type Texts = ReadonlyMap<string, readonly string[]>;

/** What a module imports, and how it calls that. */
interface Import {
  readonly name: string;
  readonly local: string;
  readonly from: string;
}

class Module {
  readonly #source: Source;
  readonly #code: string;
  readonly #tokens: readonly Token[];
  readonly #imports: readonly Import[];
  /** What the module calls `sql` of this package. */
  readonly #tag: string | undefined;
  /** Constants that are a text: several may have one name, each in a block of its own. */
  readonly texts: Map<string, string[]> = new Map();
  /** Constants that are an `sql` template, likewise. */
  readonly #constants = new Map<string, Token[]>();
  /** Templates that are parts of others: alone they may mean nothing. */
  readonly #parts = new Set<Token>();

  constructor(source: Source) {
    this.#source = source;
    this.#code = codeOf(source);
    this.#tokens = tokensOf(this.#code, { hasJsx: hasJsx(source.file) });
    this.#imports = importsOf(this.#tokens);
    this.#tag = tagOf(this.#imports);
    this.#readConstants();
    this.#findParts(this.#tokens);
  }

  #readConstants(): void {
    const tokens = this.#tokens;
    tokens.forEach((token, index) => {
      const [name, sign, value] = tokens.slice(index + 1, index + 4);
      if (name?.kind !== 'word' || sign?.text !== '=') return;
      const tagged = this.#taggedAt(tokens, index + 3);
      const text = value && textOf(value);
      const isConstant = token.kind === 'word' && token.text === 'const';
      if (tagged && (isConstant || token.text === ',')) {
        const others = this.#constants.get(name.text) ?? [];
        this.#constants.set(name.text, [...others, tagged.template]);
      } else if (isConstant && text !== undefined && endsAt(tokens, index + 4)) {
        this.texts.set(name.text, [...(this.texts.get(name.text) ?? []), text]);
      }
    });
  }

  #findParts(tokens: readonly Token[]): void {
    tokens.forEach((token, index) => {
      for (const hole of token.holes ?? []) this.#findParts(hole);
      for (const hole of this.#taggedAt(tokens, index)?.template.holes ?? []) {
        for (const part of this.#partsIn(hole)) this.#parts.add(part);
      }
    });
  }

  /** @param shared texts that modules may have exported. */
  queries(shared: Texts): FoundQuery[] {
    const found: FoundQuery[] = [];
    this.#walk(this.#tokens, shared, found);
    return found;
  }

  #walk(tokens: readonly Token[], shared: Texts, found: FoundQuery[]): void {
    tokens.forEach((token, index) => {
      for (const hole of token.holes ?? []) this.#walk(hole, shared, found);
      const tagged = this.#taggedAt(tokens, index);
      const isMeant = tagged?.name !== undefined || isArgument(tokens, index);
      if (tagged && (isMeant || this.#isQuery(tagged.template)) && !this.#isIgnored(token)) {
        const alternatives = this.#alternatives(tagged.template, new Set());
        const isForValues = tokens[index - 2]?.text === 'values';
        found.push({ ...this.#place(token), alternatives, key: tagged.name, isForValues });
      }
      const argument = argumentAt(tokens, index);
      if (!argument || this.#isIgnored(token)) return;
      for (const sql of this.#textsOf(argument, shared)) {
        if (!BEGINS.test(sql) || !/\S\s+\S/.test(sql)) continue;
        const isForValues = token.text === 'values';
        const key = isForValues ? undefined : sql;
        found.push({ ...this.#place(argument), alternatives: [{ sql }], key, isForValues });
      }
    });
  }

  #isIgnored({ at }: Token): boolean {
    // In its own line, or in the one before.
    const line = this.#code.lastIndexOf('\n', at);
    const before = line < 0 ? -1 : this.#code.lastIndexOf('\n', line - 1);
    return IGNORES.test(this.#code.slice(before + 1, at));
  }

  #isQuery(template: Token): boolean {
    return !this.#parts.has(template) && BEGINS.test(template.pieces![0]!);
  }

  #place({ at }: Token): { file: string; line: number } {
    const line = this.#code.slice(0, at).split('\n').length;
    return { file: this.#source.file, line };
  }

  /** The texts that an argument may be. */
  #textsOf(argument: Token, shared: Texts): readonly string[] {
    const text = textOf(argument);
    if (text !== undefined) return [text];
    if (argument.kind !== 'word') return [];
    const imported = this.#imports.find(({ local }) => local === argument.text);
    const found = imported ? shared.get(imported.name) : this.texts.get(argument.text);
    return found ?? [];
  }

  /** The template whose tag stands here, and the name that it was given. */
  #taggedAt(
    tokens: readonly Token[],
    index: number,
  ): { template: Token; name: string | undefined } | undefined {
    const tag = tokens[index];
    if (tag?.kind !== 'word' || tag.text !== this.#tag) return undefined;
    if (tokens[index - 1]?.text === '.') return undefined;
    const end = afterTypes(tokens, index + 1);
    const template = tokens[end];
    if (template?.kind !== 'template') return undefined;
    const [, type] = end === index + 4 ? tokens.slice(index + 1) : [];
    return { template, name: type?.kind === 'string' ? type.text : undefined };
  }

  /** A template with each of its parts in their places; nothing where they are too many. */
  #alternatives(template: Token, outer: ReadonlySet<Token>): Required<Alternative>[] {
    const within = new Set([...outer, template]);
    let made: Required<Alternative>[] = [{ sql: template.pieces![0]!, holes: [] }];
    template.holes!.forEach((hole, index) => {
      const parts = this.#partsIn(hole).filter((it) => !within.has(it));
      const known = parts.flatMap((it) => this.#alternatives(it, within));
      const filled = known.map(({ sql, holes }) => {
        const parameters = holes.reduce((sum, it) => sum + it.parameters, 0);
        return { sql, hole: { isPart: true, parameters } };
      });
      const value = { sql: '?', hole: { isPart: false, parameters: 1 } };
      made = made.flatMap((before) =>
        (parts.length > 0 ? filled : [value]).map(({ sql, hole }) => ({
          sql: before.sql + sql + template.pieces![index + 1]!,
          holes: [...before.holes, hole],
        })),
      );
      if (made.length > ALTERNATIVES_MAX) made = [];
    });
    return made;
  }

  /** The templates of which a hole is one, if it is. */
  #partsIn(hole: readonly Token[]): Token[] {
    const [first, second] = hole;
    if (first?.kind === 'word' && !second) {
      const parts = this.#constants.get(first.text) ?? [];
      // Of several that which is the nearest before.
      const nearest = parts.filter(({ at }) => at < first.at).at(-1) ?? parts[0];
      return nearest ? [nearest] : [];
    }
    const tagged = hole.flatMap((_, index) => this.#taggedAt(hole, index)?.template ?? []);
    return tagged.at(-1) === hole.at(-1) ? tagged : [];
  }
}

/** What a module imports by name. */
function importsOf(tokens: readonly Token[]): Import[] {
  return tokens.flatMap(({ kind, text }, index) => {
    const from = tokens[index + 1];
    const isFrom = kind === 'word' && text === 'from' && from?.kind === 'string';
    if (!isFrom || tokens[index - 1]?.text !== '}') return [];
    const words = tokens.slice(0, index - 1).map((it) => it.text);
    const open = words.lastIndexOf('{');
    if (words.slice(Math.max(0, open - 2), open).includes('export')) return [];
    const list = words.slice(open + 1).filter((word) => word !== 'type');
    return list
      .join(' ')
      .split(',')
      .map((it) => {
        const [name = '', , local = name] = it.trim().split(' ');
        return { name, local, from: from.text };
      });
  });
}

/** The name of our `sql` in a module: not that of a package which has one, too. */
function tagOf(imports: readonly Import[]): string | undefined {
  let tag: string | undefined = 'sql';
  for (const { name, local, from } of imports) {
    if (name !== 'sql') continue;
    const isPackage = !/^[./~#@]?\//.test(from) && !/^[.~#$]/.test(from);
    if (from === 'tidelog') tag = local;
    else if (local === 'sql' && isPackage && tag === 'sql') tag = undefined;
  }
  return tag;
}

/** Where what stands here goes on behind types in angle brackets, if there are any. */
function afterTypes(tokens: readonly Token[], index: number): number {
  if (tokens[index]?.text !== '<' || tokens[index]!.kind !== 'sign') return index;
  let depth = 0;
  let braces = 0;
  for (let at = index; at < tokens.length; at += 1) {
    const { kind, text } = tokens[at]!;
    if (kind !== 'sign') continue;
    if (text === '{') braces += 1;
    // What began before ends here.
    if (text === '}' && --braces < 0) break;
    const isArrow = text === '>' && tokens[at - 1]?.text === '=';
    if (text === '<') depth += 1;
    else if (text === '>' && !isArrow && --depth === 0) return at + 1;
    else if (text === ';' && braces === 0) break;
  }
  return index;
}

/** The first argument of a call that asks, whose name stands here; where it is one token. */
function argumentAt(tokens: readonly Token[], index: number): Token | undefined {
  const { kind, text } = tokens[index]!;
  if (kind !== 'word') return undefined;
  const isMethod = METHODS.has(text) && tokens[index - 1]?.text === '.';
  if (!isMethod && !HOOKS.has(text)) return undefined;
  const open = afterTypes(tokens, index + 1);
  if (tokens[open]?.text !== '(') return undefined;
  const at = isMethod ? open + 1 : behindAccessor(tokens, open + 1);
  return endsAt(tokens, at + 1) ? tokens[at] : undefined;
}

/** Where the text is that a hook is given, which may stand behind `() => ` or `computed(() => `. */
function behindAccessor(tokens: readonly Token[], at: number): number {
  const reads = (from: number, ...texts: string[]): boolean =>
    texts.every((text, nth) => tokens[from + nth]?.text === text);
  const open = reads(at, 'computed') ? afterTypes(tokens, at + 1) : -1;
  const from = open >= 0 && reads(open, '(') ? open + 1 : at;
  if (!reads(from, '(', ')')) return at;
  let end = from + 2;
  if (reads(end, ':')) {
    do end += 1;
    while (tokens[end] && (tokens[end]!.kind !== 'sign' || /[|<>.,]/.test(tokens[end]!.text)));
  }
  return reads(end, '=', '>') ? end + 2 : at;
}

/** Whether what stands here is the first argument of a call that asks. */
function isArgument(tokens: readonly Token[], index: number): boolean {
  const open = index - 1;
  if (tokens[open]?.text !== '(') return false;
  for (let at = Math.max(0, open - 60); at < open; at += 1) {
    const { kind, text } = tokens[at]!;
    const isCall = (METHODS.has(text) && tokens[at - 1]?.text === '.') || HOOKS.has(text);
    if (kind === 'word' && isCall && afterTypes(tokens, at + 1) === open) return true;
  }
  return false;
}

/** Whether an expression can end before what stands here. */
function endsAt(tokens: readonly Token[], index: number): boolean {
  const next = tokens[index];
  return next?.kind !== 'sign' || /[,);\]}]/.test(next.text);
}

/** What a token is as a text, if it is one. */
function textOf(token: Token): string | undefined {
  if (token.kind === 'string') return token.text;
  return token.kind === 'template' && token.holes!.length === 0 ? token.text : undefined;
}
