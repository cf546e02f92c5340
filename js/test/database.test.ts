import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Caller, Connection } from '../src/connection.js';
import { Database } from '../src/database.js';
import { doctype, mutation } from '../src/doctype.js';
import { BudgetExceededError, EngineError, QueryError } from '../src/errors.js';
import { LiveQuery } from '../src/live-query.js';
import type { Answer } from '../src/messages.js';
import type { Status } from '../src/status.js';

const KIND = doctype({
  name: 'a',
  migrations: [],
  mutations: { add: mutation({ b: 'blob' }, '') },
});

/** One row, whose cells did not all get here. */
const CUT_OFF: Answer = {
  type: 'rows',
  rows: { columns: ['a'], count: 1, cells: new Uint8Array([9, 0, 0, 0, 2]) },
};

/** A document whose core answers each call so. */
function answeredBy(answer: Answer) {
  const connection = {
    attach: () => {},
    detach: () => {},
    call: (_: unknown, __: unknown, caller: Caller) => {
      queueMicrotask(() => callSafely(() => caller(answer, true)));
      return 1;
    },
    unwatch: () => {},
  };
  const opened = { handle: 1, doctype: KIND };
  const status = { error: null } as Status;
  return new Database<typeof KIND.mutations>(connection as unknown as Connection, opened, status);
}

/** As a connection does it: what a caller throws is reported and harms nobody else. */
function callSafely(call: () => void): void {
  try {
    call();
  } catch (error) {
    reportError(error);
  }
}

beforeEach(() => vi.stubGlobal('reportError', () => {}));
afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

test('an answer that this page cannot take settles the call with an error', async () => {
  const db = answeredBy(CUT_OFF);
  await expect(db.query('select a from b')).rejects.toThrow(EngineError);
});

test('a live query tells of an answer that this page cannot take', async () => {
  const listener = vi.fn();
  answeredBy(CUT_OFF).live('select a from b').subscribe(listener);
  await new Promise((resolve) => setTimeout(resolve));
  expect(listener.mock.calls).toEqual([[undefined, expect.any(EngineError)]]);
});

test('a document forgets a live query that was closed, also one that was never asked', async () => {
  const db = answeredBy({ type: 'done' });
  const close = vi.spyOn(LiveQuery.prototype, 'close');
  for (const params of [[], [{}]]) db.live('select ?', params).close();
  await db.close();
  expect(close).toHaveBeenCalledTimes(2);
});

test('W19: nothing but the file is in the buffer of an export', async () => {
  const file = new Uint8Array(26).subarray(24);
  const { buffer } = await answeredBy({ type: 'exported', file }).export();
  expect(buffer.byteLength).toBe(2);
});

test('a value that no statement could hold is refused before it is copied', async () => {
  const db = answeredBy({ type: 'done' });
  const large = new ArrayBuffer(2 ** 24 + 1);
  const copied = vi.spyOn(ArrayBuffer.prototype, 'slice');
  expect(() => db.mutate.add({ b: large })).toThrow(/add: its arguments are over 16777216 bytes/);
  await expect(db.query('select ?', [large])).rejects.toThrow(BudgetExceededError);
  expect(copied).not.toHaveBeenCalled();
});

test('bytes that were given away are refused like any other wrong argument', async () => {
  const db = answeredBy({ type: 'done' });
  for (const bytes of [new Uint8Array(8), new ArrayBuffer(8)]) {
    structuredClone(bytes, { transfer: [bytes instanceof ArrayBuffer ? bytes : bytes.buffer] });
    expect(() => db.mutate.add({ b: bytes })).toThrow(/add: argument b is not of type blob/);
    await expect(db.query('select ?', [bytes])).rejects.toThrow(QueryError);
  }
});
