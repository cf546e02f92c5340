/**
 * The tokens of a module in TypeScript or JavaScript, JSX included: as far as is needed to tell
 * code from comments, texts and regular expressions.
 */

/** A token; a template has those of the code in its holes. */
export interface Token {
  readonly kind: 'word' | 'string' | 'template' | 'other' | 'jsx' | 'sign';
  /** Where it begins and ends in the text. */
  readonly at: number;
  readonly end: number;
  /** A word or a sign as it stands; a string, or a template without holes, as it is at run time. */
  readonly text: string;
  /** Of a template: its pieces as they stand, and the code between them. */
  readonly pieces?: readonly string[];
  readonly holes?: readonly (readonly Token[])[];
}

/** The tokens of `text`. Where it is not what a compiler takes, as good as can be. */
export function tokensOf(text: string, { hasJsx }: { readonly hasJsx: boolean }): Token[] {
  const lexer = new Lexer(text, hasJsx);
  const tokens: Token[] = [];
  for (;;) {
    // One by one: a module of data may have more than a call takes.
    for (const token of lexer.code()) tokens.push(token);
    if (lexer.isAtEnd) return tokens;
    // A brace that closes nothing.
    lexer.skip();
  }
}

const SPACE = /(?:\s|\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|^#![^\n]*)+/y;
const WORD = /[\p{ID_Start}$_#@][\p{ID_Continue}$\u200c\u200d]*/uy;
const NUMBER = /(?:0[xob][\da-f_]+|\d[\d_]*\.?[\d_]*(?:e[+-]?\d+)?|\.\d[\d_]*(?:e[+-]?\d+)?)n?/iy;
const STRING = /(['"])((?:\\(?:\r\n|[\s\S])|(?!\1)[^\\\n])*)\1/y;
const REGEX = /\/(?![*/])(?:\\[^\n]|\[(?:\\[^\n]|[^\]\\\n])*\]|[^/\\[\n])+\/[\w$]*/y;
const PIECE = /(?:\\(?:\r\n|[\s\S])|\$(?!\{)|[^\\`$])*/y;
const TAG = /[\w$.:-]*/y;
const ATTRIBUTE = /[\w$:-]+/y;

/** Words behind which an operand begins, and not an operator. */
const BEFORE_OPERANDS = new Set(
  (
    'return typeof instanceof in of new delete void throw case do else await yield default ' +
    'extends'
  ).split(' '),
);

class Lexer {
  readonly #text: string;
  readonly #hasJsx: boolean;
  #at = 0;

  constructor(text: string, hasJsx: boolean) {
    this.#text = text;
    this.#hasJsx = hasJsx;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#text.length;
  }

  skip(): void {
    this.#at += 1;
  }

  /** Tokens up to the end, or to a brace that was not opened here. */
  code(): Token[] {
    const tokens: Token[] = [];
    for (let depth = 0; ; ) {
      this.#match(SPACE);
      if (this.isAtEnd) return tokens;
      const sign = this.#text[this.#at]!;
      if (sign === '}' && depth === 0) return tokens;
      if (sign === '{') depth += 1;
      if (sign === '}') depth -= 1;
      for (const token of this.#next(tokens)) tokens.push(token);
    }
  }

  #next(before: readonly Token[]): Token[] {
    const at = this.#at;
    const sign = this.#text[at]!;
    const made = (kind: Token['kind'], text: string): Token[] => {
      return [{ kind, at, end: this.#at, text }];
    };
    if (sign === '`') return [this.#template()];
    const string = sign === "'" || sign === '"' ? this.#match(STRING) : undefined;
    if (string) return made('string', cooked(string[2]!));
    if ((sign === '/' || sign === '<') && !endsOperand(before)) {
      if (sign === '/' && this.#match(REGEX)) return made('other', '');
      if (sign === '<' && this.#hasJsx) {
        const inside: Token[] = [];
        if (this.#element(inside)) return [...inside, ...made('jsx', '')];
        this.#at = at;
      }
    }
    if (this.#match(NUMBER)) return made('other', '');
    const word = this.#match(WORD);
    if (word) return made('word', word[0]);
    this.#at += 1;
    return made('sign', sign);
  }

  #template(): Token {
    const at = this.#at;
    const pieces: string[] = [];
    const holes: Token[][] = [];
    this.#at += 1;
    for (;;) {
      pieces.push(this.#match(PIECE)![0].replaceAll('\r\n', '\n'));
      if (this.#text[this.#at] !== '$') break;
      this.#at += 2;
      holes.push(this.code());
      this.#at += 1;
    }
    this.#at += 1;
    const text = holes.length === 0 ? cooked(pieces[0]!) : '';
    return { kind: 'template', at, end: this.#at, text, pieces, holes };
  }

  /** An element of JSX; `into` gets the code in it. Says whether it is one. */
  #element(into: Token[]): boolean {
    this.#at += 1;
    this.#match(SPACE);
    const tag = this.#match(TAG)![0];
    if (tag !== '') {
      const isAlone = this.#attributes(into);
      if (isAlone !== false) return isAlone === 'alone';
    } else if (this.#text[this.#at] !== '>') return false;
    this.#at += 1;
    return this.#children(tag, into);
  }

  /** Those of a tag: `alone` where it has no children, true where this is no tag. */
  #attributes(into: Token[]): 'alone' | boolean {
    for (;;) {
      this.#match(SPACE);
      const sign = this.#text[this.#at];
      if (sign === '>') return false;
      if (sign === '/' && this.#text[this.#at + 1] === '>') {
        this.#at += 2;
        return 'alone';
      }
      if (sign === '{') {
        this.#braces(into);
      } else if (sign === '<') {
        // The types of a component that is generic.
        if (!this.#match(/<[^<>]*>/y)) return true;
      } else {
        if (!this.#match(ATTRIBUTE)) return true;
        this.#match(SPACE);
        if (this.#text[this.#at] !== '=') continue;
        this.#at += 1;
        this.#match(SPACE);
        const value = this.#text[this.#at];
        if (value === '{') this.#braces(into);
        else if (value === '<') {
          if (!this.#element(into)) return true;
        } else if (!this.#match(/"[^"]*"|'[^']*'/y)) return true;
      }
    }
  }

  #children(tag: string, into: Token[]): boolean {
    for (;;) {
      const sign = this.#text[this.#at];
      // Neither of them is text in JSX.
      if (sign === undefined || sign === '>' || sign === '}') return false;
      if (sign === '{') this.#braces(into);
      else if (sign === '<') {
        const end = this.#match(/<\s*\/\s*([\w$.:-]*)\s*>/y);
        if (end) return end[1] === tag;
        if (!this.#element(into)) return false;
      } else this.#at += 1;
    }
  }

  #braces(into: Token[]): void {
    const sign = (text: string): Token => {
      return { kind: 'sign', at: this.#at, end: this.#at + 1, text };
    };
    into.push(sign('{'));
    this.#at += 1;
    for (const token of this.code()) into.push(token);
    into.push(sign('}'));
    this.#at += 1;
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (found) this.#at = pattern.lastIndex;
    return found;
  }
}

/** Whether an operand ends here, so that `/` divides and `<` compares. */
function endsOperand(tokens: readonly Token[], count = tokens.length): boolean {
  const [before, last] = [tokens[count - 2], tokens[count - 1]];
  if (!last) return false;
  if (last.kind === 'word') return before?.text === '.' || !BEFORE_OPERANDS.has(last.text);
  if (last.kind !== 'sign') return true;
  if (last.text === '!') return endsOperand(tokens, count - 1);
  const isStep = before?.kind === 'sign' && before.end === last.at && before.text === last.text;
  if (isStep && /[+-]/.test(last.text)) return endsOperand(tokens, count - 2);
  if (last.text === ')') return !endsCondition(tokens, count);
  return /[\]}]/.test(last.text);
}

/** Whether the parenthesis that ends here is that of an `if` or a loop, and no operand. */
function endsCondition(tokens: readonly Token[], count: number): boolean {
  let depth = 0;
  for (let at = count - 1; at > 0; at -= 1) {
    const { kind, text } = tokens[at]!;
    if (kind !== 'sign') continue;
    if (text === ')') depth += 1;
    else if (text === '(' && --depth === 0) {
      const isMethod = tokens[at - 2]?.text === '.';
      return !isMethod && /^(if|while|for)$/.test(tokens[at - 1]!.text);
    }
  }
  return false;
}

const ESCAPES: Readonly<Record<string, string>> = {
  n: '\n',
  r: '\r',
  t: '\t',
  b: '\b',
  f: '\f',
  v: '\v',
  0: '\0',
  '\n': '',
  '\r\n': '',
  '\u2028': '',
  '\u2029': '',
};

/** What stands between quotes, as it is at run time. */
function cooked(raw: string): string {
  const pattern = /\\(?:x([\da-f]{2})|u([\da-f]{4})|u\{([\da-f]+)\}|(\r\n|[\s\S]))/gi;
  return raw.replaceAll(pattern, (_, x, u, braced, other) => {
    const code = x ?? u ?? braced;
    return code ? String.fromCodePoint(Number.parseInt(code, 16)) : (ESCAPES[other] ?? other);
  });
}
