/** The tokens of SQL, as SQLite reads it. */

/** A token; words that are not quoted are in lower case. */
export interface SqlToken {
  readonly kind: 'word' | 'quoted' | 'string' | 'blob' | 'number' | 'parameter' | 'sign';
  readonly text: string;
  readonly at: number;
  readonly end: number;
  /** Of `(`, `case`, `)` and `end`: the index of the other one. */
  pair: number | undefined;
}

const KINDS: readonly (readonly [SqlToken['kind'] | undefined, RegExp])[] = [
  [undefined, /(?:\s|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$))+/y],
  ['blob', /x'[\da-f]*'/iy],
  ['word', /[a-z_\u0080-\uffff][\w$\u0080-\uffff]*/iy],
  ['number', /(?:0x[\da-f_]+|\d[\d_]*(?:\.[\d_]*)?(?:e[+-]?\d+)?|\.\d[\d_]*(?:e[+-]?\d+)?)/iy],
  ['string', /'(?:''|[^'])*'/y],
  ['quoted', /"(?:""|[^"])*"|`(?:``|[^`])*`|\[[^\]]*\]/y],
  ['parameter', /\?\d*|[:@$][\w$\u0080-\uffff]+/y],
  ['sign', /\|\||->>|->|<=|>=|<>|!=|==|<<|>>|[\s\S]/y],
];

/** Words behind which an operand begins, and not an operator. */
const BEFORE_OPERANDS = new Set(
  (
    'select distinct all where and or on not case when then else having by between like glob ' +
    'match regexp escape is from limit offset'
  ).split(' '),
);

/** The tokens of a statement that SQLite takes, without a plus that adds nothing. */
export function sqlTokens(sql: string): SqlToken[] {
  const tokens: SqlToken[] = [];
  const open: number[] = [];
  for (let at = 0; at < sql.length; ) {
    for (const [kind, pattern] of KINDS) {
      pattern.lastIndex = at;
      const found = pattern.exec(sql);
      if (!found) continue;
      const end = at + found[0].length;
      const isNoSum = found[0] === '+' && !endsOperand(tokens.at(-1));
      if (kind && !isNoSum) {
        tokens.push({ kind, text: textOf(kind, found[0]), at, end, pair: undefined });
      }
      at = end;
      break;
    }
  }
  tokens.forEach((token, index) => {
    if (isOpening(token)) open.push(index);
    else if (isClosing(token) && open.length > 0) {
      token.pair = open.pop()!;
      tokens[token.pair]!.pair = index;
    }
  });
  return tokens;
}

function endsOperand(token: SqlToken | undefined): boolean {
  if (token?.kind === 'word') return !BEFORE_OPERANDS.has(token.text);
  return token?.kind === 'sign' ? token.text === ')' : token !== undefined;
}

const isOpening = ({ kind, text }: SqlToken): boolean =>
  (kind === 'sign' && text === '(') || (kind === 'word' && text === 'case');

const isClosing = ({ kind, text }: SqlToken): boolean =>
  (kind === 'sign' && text === ')') || (kind === 'word' && text === 'end');

function textOf(kind: SqlToken['kind'], text: string): string {
  if (kind === 'word') return text.toLowerCase();
  if (kind !== 'quoted') return text;
  const quote = text[0]!;
  const inside = text.slice(1, -1);
  return quote === '[' ? inside : inside.replaceAll(quote + quote, quote);
}
