import type { Rejection } from 'tidelog';
import { expect, test } from 'vitest';
import { onRejected } from '../rejections.ts';
import type { AnyDatabase } from '../status.ts';

// A document whose server went back goes on in another timeline, whose LSNs begin anew.
test('a repeat is told once, and a rejection of another timeline is no repeat', () => {
  let tell: (rejection: Rejection) => void = () => {};
  const on = (_: string, listener: typeof tell) => {
    tell = listener;
    return () => {};
  };
  const heard: string[] = [];
  onRejected({ on } as unknown as AnyDatabase, ({ id }) => heard.push(id));
  const rejection = { mutation: 'add', args: {}, reason: 'no', lsn: 1 };
  for (const id of ['a', 'a', 'b']) tell({ ...rejection, id });
  expect(heard).toEqual(['a', 'b']);
});
