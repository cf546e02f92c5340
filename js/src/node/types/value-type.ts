/** Types of values as they are written down. */

/** What a value is if it is not null; `Value` where that is not known. */
export type ValueType = 'number' | 'string' | 'Uint8Array' | 'Value';

/** What an expression may be. */
export interface Kind {
  /** None for what is always null. */
  readonly types: readonly ValueType[];
  readonly isNullable: boolean;
}

export const UNKNOWN: Kind = { types: ['Value'], isNullable: true };
export const NULL: Kind = { types: [], isNullable: true };

/** A value of this type. */
export const kind = (type: ValueType, isNullable = false): Kind => ({ types: [type], isNullable });

/** The same, but it may be null. */
export const orNull = ({ types }: Kind): Kind => ({ types, isNullable: true });

/** What is any of these. */
export function either(kinds: readonly Kind[]): Kind {
  const types = [...new Set(kinds.flatMap((it) => it.types))].sort();
  return {
    types: types.includes('Value') ? ['Value'] : types,
    isNullable: kinds.some((it) => it.isNullable),
  };
}

/** As TypeScript says it. */
export function written({ types, isNullable }: Kind): string {
  if (types.includes('Value')) return isNullable ? 'Value' : 'NonNullable<Value>';
  return [...types, ...(isNullable ? ['null'] : [])].join(' | ') || 'never';
}

/** What may be given for it, as TypeScript says it. */
export function writtenParameter({ types, isNullable }: Kind): string {
  if (types.includes('Value') || types.length === 0) return 'Param';
  const given = { number: 'number | bigint | boolean', string: 'string', Value: 'Param' };
  const names = types.map((type) => {
    return type === 'Uint8Array' ? 'Uint8Array | ArrayBuffer' : given[type];
  });
  return [...names, ...(isNullable ? ['null'] : [])].join(' | ');
}
