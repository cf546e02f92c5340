// A document with commands, whose core is played by hand.

import type { Caller } from '../src/connection.js';
import type { Ending } from '../src/database.js';
import { type Bound, doctype } from '../src/doctype.js';
import { DocumentClosedError } from '../src/errors.js';
import { command, stream } from '../src/events.js';
import type { Issued } from '../src/receipt.js';
import type { Row, RowBytes } from '../src/rows.js';
import type { OpenStreams } from '../src/streams.js';

export const SHOP = doctype({
  name: 'shop',
  migrations: [],
  mutations: {},
  streams: {
    order: stream({
      events: { placed: { items: 'json', gift: 'boolean?' }, paid: {}, noted: { text: 'text?' } },
      upcast: { paid: [':data'] },
      commands: {
        place: command({ items: 'json', gift: 'boolean?' }),
        pay: command({}, { retries: 1 }),
        number: command({ id: 'uuid', count: 'integer', weight: 'real', note: 'text?' }),
      },
    }),
    mail: stream({ events: { sent: {} }, commands: { send: command({ text: 'text' }) } }),
    quiet: stream({ events: {} }),
  },
});

/** Rows as they travel: the columns of all are those of the first one. */
export function rowBytes(rows: readonly Row[]): RowBytes {
  const columns = Object.keys(rows[0] ?? {});
  const cells = rows.map((row) => {
    const parts = columns.map((column) => cell(row[column]!));
    const whole = Buffer.concat(parts);
    return Buffer.concat([u32(whole.length), whole]);
  });
  return { columns, count: rows.length, cells: new Uint8Array(Buffer.concat(cells)) };
}

function cell(value: Row[string]): Buffer {
  if (typeof value === 'number') {
    const bytes = Buffer.alloc(9, 1);
    bytes.writeBigInt64LE(BigInt(value), 1);
    return bytes;
  }
  if (value === null) return Buffer.of(0);
  const bytes = Buffer.from(value as string);
  return Buffer.concat([Buffer.of(typeof value === 'string' ? 3 : 4), u32(bytes.length), bytes]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** What was asked of the core, which answers when the test says so. */
export interface Asked {
  readonly kind: string;
  // biome-ignore lint/suspicious/noExplicitAny: a message of whichever kind.
  readonly message: any;
  readonly signal: AbortSignal | undefined;
  answer(...rows: object[]): void;
  fail(error: Error): void;
}

/** The document, and what it asks. */
export class Core {
  readonly asked: Asked[] = [];
  readonly issued: { name: string; args: Record<string, unknown>; issued: Issued }[] = [];
  readonly calls: { kind: string; message: object; caller: Caller }[] = [];
  readonly givenUp: number[] = [];
  readonly ending = new Set<Ending>();
  /** What is to happen later, each with how many milliseconds. */
  readonly later: [ms: number, wake: () => void][] = [];
  isClosed = false;
  uuids = 0;

  get document(): OpenStreams {
    const uuid = (): string => `00000000-0000-4000-8000-${String(++this.uuids).padStart(12, '0')}`;
    const call = (kind: string, message: object, caller: Caller): number =>
      this.calls.push({ kind, message, caller });
    const wakeIn = (ms: number, wake: () => void): (() => void) => {
      this.later.push([ms, wake]);
      return () => {};
    };
    const giveUp = (number: number): unknown => this.givenUp.push(number);
    const rows = (kind: string, message: object, signal?: AbortSignal): Promise<Row[]> =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) {
          reject(signal.reason);
          return;
        }
        signal?.addEventListener('abort', () => reject(signal.reason));
        const answer = (...given: Row[]): void => resolve(given);
        this.asked.push({ kind, message, signal, answer, fail: reject } as Asked);
      });
    return {
      connection: { host: { uuid, now: () => 5, wakeIn }, call, giveUp },
      doctype: SHOP,
      handle: 3,
      ending: this.ending,
      rows,
      mutate: (name: string, args: Bound, issued: Issued) => {
        this.issued.push({ name, args: Object.fromEntries(args), issued });
        return issued.receipt;
      },
      mustBeOpen: () => {
        if (this.isClosed) throw new DocumentClosedError('closed');
      },
    } as unknown as OpenStreams;
  }

  /** All that is given to the handler that was registered last. */
  give(...rows: readonly object[]): void {
    this.calls.at(-1)!.caller({ type: 'rows', rows: rowBytes(rows as Row[]) }, false);
  }

  /** What is asked next. */
  async next(kind: string): Promise<Asked> {
    for (let turns = 0; turns < 100; turns += 1) {
      const at = this.asked.findIndex((it) => it.kind === kind);
      if (at >= 0) return this.asked.splice(at, 1)[0]!;
      await undefined;
    }
    throw new Error(`no ${kind} was asked, but ${this.asked.map((it) => it.kind)}`);
  }
}

/** Lets everything run that waits for nothing. */
export const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));
