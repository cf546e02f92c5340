import { describe, expect, expectTypeOf, test } from 'vitest';
import type { Mutate } from '../src/database.js';
import {
  type Arguments,
  argumentBinder,
  doctype,
  flawOf,
  type IssuedArguments,
  mutation,
  type ParamTypes,
  unbindArguments,
} from '../src/doctype.js';
import { DoctypeError, MutationArgumentError } from '../src/errors.js';
import type { Receipt } from '../src/receipt.js';

const all = {
  t: 'text',
  i: 'integer',
  r: 'real?',
  b: 'blob?',
  o: 'boolean?',
  j: 'json?',
} as const satisfies ParamTypes;
const uuid = (): string => crypto.randomUUID();
const bind = argumentBinder('all', all, uuid);

test('arguments travel in the order of the parameters, null where they are left out', () => {
  const blob = new Uint8Array([1, 2, 3]).subarray(1);
  const bound = bind({ j: { a: [1] }, o: true, b: blob, r: 1.5, i: 2n ** 63n - 1n, t: 'x' });
  blob.fill(0);
  expect(bound).toEqual([
    ['t', 'x'],
    ['i', 2n ** 63n - 1n],
    ['r', 1.5],
    ['b', new Uint8Array([2, 3])],
    ['o', 1],
    ['j', '{"a":[1]}'],
  ]);
  expect(bind({ t: '', i: -0, r: null, j: undefined, o: false }).map(([, it]) => it)).toEqual([
    '',
    -0,
    null,
    null,
    0,
    null,
  ]);
});

describe('arguments that do not fit are refused', () => {
  test.each([
    ['missing', { t: 'x' }],
    ['null', { t: null, i: 1 }],
    ['unknown', { t: 'x', i: 1, nope: 1 }],
    ['text with half a letter', { t: '\ud800', i: 1 }],
    ['text for an integer', { t: 'x', i: '1' }],
    ['a fraction for an integer', { t: 'x', i: 1.5 }],
    ['an unsafe integer', { t: 'x', i: 2 ** 53 }],
    ['an integer of 65 bits', { t: 'x', i: 2n ** 63n }],
    ['an infinite real', { t: 'x', i: 1, r: Number.POSITIVE_INFINITY }],
    ['text for a blob', { t: 'x', i: 1, b: 'x' }],
    ['a number for a boolean', { t: 'x', i: 1, o: 1 }],
    ['what JSON cannot say', { t: 'x', i: 1, j: () => {} }],
    ['JSON with a circle', { t: 'x', i: 1, j: circle() }],
    ['none at all', undefined],
  ])('%s', (_, args) => {
    expect(() => bind(args)).toThrow(MutationArgumentError);
  });
});

test('what every object has is no argument', () => {
  const bind = argumentBinder('m', { constructor: 'text', toString: 'text?' } as const, uuid);
  expect(() => bind({})).toThrow(/argument constructor is missing/);
  const bound = [
    ['constructor', 'x'],
    ['toString', null],
  ];
  expect(bind({ constructor: 'x' })).toEqual(bound);
  // Whatever an app derives its own objects from is its own affair.
  expect(argumentBinder('m', { t: 'text' }, uuid)(Object.create({ t: 'x' }))).toEqual([['t', 'x']]);
});

function circle(): object {
  const it: { self?: object } = {};
  it.self = it;
  return it;
}

test('null is JSON unless the argument is optional', () => {
  expect(argumentBinder('m', { j: 'json' }, uuid)({ j: null })).toEqual([['j', 'null']]);
  expect(argumentBinder('m', { j: 'json?' }, uuid)({ j: null })).toEqual([['j', null]]);
});

test('what was rejected comes back as it was given', () => {
  const args = { t: 'x', i: 1, o: 0, j: '{"a":1}', r: null };
  expect(unbindArguments(all, args)).toEqual({ t: 'x', i: 1, o: false, j: { a: 1 }, r: null });
  expect(unbindArguments(undefined, args)).toEqual(args);
});

test('a UUID that is left out is drawn, and one that is given is in lower case', () => {
  const bind = argumentBinder('add', { id: 'uuid', of: 'uuid?' }, uuid);
  const drawn = bind({});
  expect(drawn).toEqual([
    ['id', expect.stringMatching(/^[0-9a-f-]{36}$/)],
    ['of', null],
  ]);
  expect(bind({})).not.toEqual(drawn);
  const id = crypto.randomUUID();
  expect(bind({ id: id.toUpperCase(), of: id })).toEqual([
    ['id', id],
    ['of', id],
  ]);
  expect(() => bind({ id: 'x' })).toThrow('argument id has to be a UUID, or nothing');
  // An id that was looked for and not found is no new one.
  for (const id of [null, undefined]) {
    expect(() => bind({ id })).toThrow('argument id is missing');
  }
  expectTypeOf<Arguments<{ id: 'uuid'; of: 'uuid?' }>>().toExtend<{ id?: string }>();
  expectTypeOf<Record<never, never>>().toExtend<Arguments<{ id: 'uuid' }>>();
  expectTypeOf<IssuedArguments<{ id: 'uuid' }>>().toExtend<{ id: string }>();
});

test('arguments that do not fit say what came, and what is wanted', () => {
  const told = (args: unknown): string => {
    try {
      bind(args);
    } catch (error) {
      return (error as Error).message;
    }
    return 'taken';
  };
  expect(told({ t: 'x', i: '1' })).toBe(
    'all: argument i has to be a whole number up to 2^53, or a bigint of 64 bits, and is a string',
  );
  expect(told({ t: new Date(), i: 1 })).toContain('is a Date: give date.getTime()');
  expect(told({ t: 'x', i: 1, o: 1 })).toContain('has to be true or false, and is the number 1');
  expect(told({ t: 'x', i: 1, j: () => {} })).toContain('and is a function');
  expect(told({ t: 'x', i: 1, b: new Map() })).toContain('and is an object of Map');
  expect(told({ i: 1 })).toBe('all: argument t is missing: give a string of whole characters');
  expect(told({ t: 'x', i: 1, nope: 1 })).toBe('all: there is no parameter nope: t, i, r, b, o, j');
  for (const [args, what] of [
    ['x', 'a string'],
    [[1], 'an array'],
  ] as const) {
    expect(told(args)).toContain(`given by name, as { t: ..., i: ..., `);
    expect(told(args)).toContain(`not as ${what}`);
  }
});

test('W11: a kept rejection of another release, whose argument is no JSON, keeps its text', () => {
  expect(unbindArguments({ j: 'json' }, { j: 'not {json' })).toEqual({ j: 'not {json' });
});

test('W23: a doctype written by hand with a type that does not exist is none', () => {
  const written = (type: string): object => {
    const add = { params: { id: type }, sql: ['select 1'] };
    return { name: 'a', migrations: [], mutations: { add } };
  };
  expect(flawOf(written('text?'))).toBeUndefined();
  expect(flawOf(written('string'))).toMatch(/^mutation \w+ of doctype \w+ has to be/);
});

test('a type that does not exist is refused', () => {
  expect(() => mutation({ a: 'string' as 'text' }, 'select 1')).toThrow(DoctypeError);
});

test('the types of arguments follow from the definition', () => {
  const todos = doctype({
    name: 'todos',
    migrations: [],
    mutations: {
      add: mutation({ id: 'text', at: 'integer?' }, 'select 1'),
      clear: mutation({}, 'select 1'),
    },
  });
  type Add = Parameters<Mutate<typeof todos.mutations>['add']>;
  expectTypeOf<Add>().toEqualTypeOf<[args: Arguments<{ id: 'text'; at: 'integer?' }>]>();
  expectTypeOf<{ id: string }>().toExtend<Add[0]>();
  expectTypeOf<{ id: string; at: bigint | null }>().toExtend<Add[0]>();
  expectTypeOf<{ id: number }>().not.toExtend<Add[0]>();
  expectTypeOf<{ at: number }>().not.toExtend<Add[0]>();
  expectTypeOf<Mutate<typeof todos.mutations>['clear']>().toBeCallableWith();
  type Issued = IssuedArguments<{ id: 'text'; at: 'integer?' }>;
  expectTypeOf<ReturnType<Mutate<typeof todos.mutations>['add']>>().toEqualTypeOf<
    Receipt<Issued>
  >();
  expectTypeOf<Issued>().toEqualTypeOf<
    { readonly id: string } & { readonly at: number | bigint | null }
  >();
});
