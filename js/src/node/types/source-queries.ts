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

/** A query that stands in a file. */
export interface FoundQuery {
  readonly file: string;
  readonly line: number;
  readonly sql: string;
  /** How its types are found again: by its SQL, or by the name that its template has. */
  readonly key: string | undefined;
  /** Of a template: what its holes are. A text has its parameters beside it. */
  readonly holes: readonly Hole[] | undefined;
  /** Whether its rows are to be arrays. */
  readonly isForValues: boolean;
}

/** Methods of a document, and hooks, whose first argument may be SQL. */
const METHODS = new Set(['query', 'live', 'values']);
const HOOKS = new Set(['useLive', 'useSuspenseLive']);

/** What a query begins with; other templates are parts of one. */
const BEGINS = /^(?:\s|--[^\n]*|\/\*[\s\S]*?\*\/)*(?:select|with|values|explain|pragma)\b/i;

/** The queries in these files, in the order in which they stand. */
export function findQueries(sources: readonly Source[]): FoundQuery[] {
  const modules = sources.map((source) => new Module(source));
  const shared = new Map<string, string>();
  for (const { texts } of modules) {
    for (const [name, text] of texts) if (!shared.has(name)) shared.set(name, text);
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

/** SQL with what its holes are. */
interface Part {
  readonly sql: string;
  readonly holes: readonly Hole[];
}

class Module {
  readonly #source: Source;
  readonly #code: string;
  readonly #tokens: readonly Token[];
  /** What the module calls `sql` of this package. */
  readonly #tag: string | undefined;
  /** Constants that are a text. */
  readonly texts: Map<string, string> = new Map();
  /** Constants that are an `sql` template. */
  readonly #constants = new Map<string, Token>();
  /** Templates that are parts of others: alone they may mean nothing. */
  readonly #parts = new Set<Token>();

  constructor(source: Source) {
    this.#source = source;
    this.#code = codeOf(source);
    this.#tokens = tokensOf(this.#code, { hasJsx: hasJsx(source.file) });
    this.#tag = tagOf(this.#tokens);
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
        this.#constants.set(name.text, tagged.template);
      } else if (isConstant && text !== undefined && endsAt(tokens, index + 4)) {
        this.texts.set(name.text, text);
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

  /** @param shared texts that other modules may have exported. */
  queries(shared: ReadonlyMap<string, string>): FoundQuery[] {
    const found: FoundQuery[] = [];
    this.#walk(this.#tokens, shared, found);
    return found;
  }

  #walk(tokens: readonly Token[], shared: ReadonlyMap<string, string>, found: FoundQuery[]): void {
    tokens.forEach((token, index) => {
      for (const hole of token.holes ?? []) this.#walk(hole, shared, found);
      const tagged = this.#taggedAt(tokens, index);
      const isMeant = tagged?.name !== undefined || isArgument(tokens, index);
      if (tagged && (isMeant || this.#isQuery(tagged.template))) {
        const { sql, holes } = this.#part(tagged.template, new Set());
        const isForValues = tokens[index - 2]?.text === 'values';
        found.push({ ...this.#place(token), sql, key: tagged.name, holes, isForValues });
      }
      const argument = argumentAt(tokens, index);
      const asked = argument && (textOf(argument) ?? this.#constant(argument, shared));
      if (asked !== undefined && /\S\s+\S/.test(asked)) {
        const isForValues = token.text === 'values';
        const place = this.#place(argument!);
        found.push({ ...place, sql: asked, key: asked, holes: undefined, isForValues });
      }
    });
  }

  #isQuery(template: Token): boolean {
    return !this.#parts.has(template) && BEGINS.test(template.pieces![0]!);
  }

  #place({ at }: Token): { file: string; line: number } {
    const line = this.#code.slice(0, at).split('\n').length;
    return { file: this.#source.file, line };
  }

  #constant({ kind, text }: Token, shared: ReadonlyMap<string, string>): string | undefined {
    return kind === 'word' ? (this.texts.get(text) ?? shared.get(text)) : undefined;
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

  /** A template with its parts in their places. */
  #part(template: Token, within: ReadonlySet<Token>): Part {
    let sql = template.pieces![0]!;
    const holes: Hole[] = [];
    template.holes!.forEach((hole, index) => {
      const [part] = this.#partsIn(hole);
      const known = part && !within.has(part) && this.#part(part, new Set([...within, template]));
      sql += (known ? known.sql : '?') + template.pieces![index + 1]!;
      const parameters = known ? known.holes.reduce((sum, it) => sum + it.parameters, 0) : 1;
      holes.push({ isPart: part !== undefined, parameters });
    });
    return { sql, holes };
  }

  /** The templates of which a hole is one, if it is. */
  #partsIn(hole: readonly Token[]): Token[] {
    const [first, second] = hole;
    if (first?.kind === 'word' && !second) {
      const part = this.#constants.get(first.text);
      return part ? [part] : [];
    }
    const tagged = hole.flatMap((_, index) => this.#taggedAt(hole, index)?.template ?? []);
    return tagged.at(-1) === hole.at(-1) ? tagged : [];
  }
}

/** The name of our `sql` in a module: not that of a package which has one, too. */
function tagOf(tokens: readonly Token[]): string | undefined {
  let tag: string | undefined = 'sql';
  tokens.forEach((token, index) => {
    if (token.text !== 'from' || token.kind !== 'word') return;
    const from = tokens[index + 1];
    if (from?.kind !== 'string' || tokens[index - 1]?.text !== '}') return;
    const start = tokens
      .slice(0, index)
      .map((it) => it.text)
      .lastIndexOf('import');
    const names = tokens.slice(start, index).map((it) => it.text);
    const at = names.indexOf('sql');
    if (at < 0) return;
    const local = names[at + 1] === 'as' ? names[at + 2] : 'sql';
    const isPackage = !/^[./~#@]?\//.test(from.text) && !/^[.~#]/.test(from.text);
    if (from.text === 'tidelog') tag = local;
    else if (local === 'sql' && isPackage && tag === 'sql') tag = undefined;
  });
  return tag;
}

/** Where what stands here goes on behind types in angle brackets, if there are any. */
function afterTypes(tokens: readonly Token[], index: number): number {
  if (tokens[index]?.text !== '<' || tokens[index]!.kind !== 'sign') return index;
  let depth = 0;
  for (let at = index; at < tokens.length; at += 1) {
    const { kind, text } = tokens[at]!;
    if (kind !== 'sign') continue;
    const isArrow = text === '>' && tokens[at - 1]?.text === '=';
    if (text === '<') depth += 1;
    else if (text === '>' && !isArrow && --depth === 0) return at + 1;
    else if (text === ';') break;
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
  if (tokens[open]?.text !== '(' || !endsAt(tokens, open + 2)) return undefined;
  return tokens[open + 1];
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
