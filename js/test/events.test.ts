import { expect, test } from 'vitest';
import { doctype, EVENTS } from '../src/doctype.js';
import { DocumentClosedError } from '../src/errors.js';
import { type EventsOptions, type RecordedEvent, stream } from '../src/events.js';
import type { Row } from '../src/rows.js';
import type { OpenStreams } from '../src/streams.js';

const order = stream({ events: { placed: {} } });
const SHOP = doctype({ name: 'shop', migrations: [], mutations: {}, streams: { order } });

/** Those events at once, of which none is the last where somebody waits. */
const rows = (...sequences: number[]): Row[] =>
  sequences.map((sequence) => ({ sequence, type: 'placed', data: '{}' }) as never as Row);

/** What is read of events that come in these parts, and why nobody is asked for more. */
function read(options: EventsOptions, parts: Row[][], mustBeOpen = () => {}) {
  const answer = (_: unknown, signal: AbortSignal): Promise<Row[]> =>
    new Promise((resolve, reject) => {
      signal.throwIfAborted();
      signal.addEventListener('abort', () => reject(signal.reason));
      const [part] = parts.splice(0, 1);
      if (part) resolve(part);
    });
  const rows: OpenStreams['rows'] = (_, message, signal) => answer(message, signal!);
  const document = { doctype: SHOP, rows, mustBeOpen } as unknown as OpenStreams;
  const events = order[EVENTS]!.events(document, [options]);
  return events as AsyncIterableIterator<RecordedEvent>;
}

/** A signal that says how many listen to it. */
function countedSignal() {
  const controller = new AbortController();
  const { signal } = controller;
  let listening = 0;
  const { addEventListener, removeEventListener } = signal;
  Object.assign(signal, {
    addEventListener: (...args: Parameters<typeof addEventListener>) => {
      listening += 1;
      addEventListener.apply(signal, args);
    },
    removeEventListener: (...args: Parameters<typeof removeEventListener>) => {
      listening -= 1;
      removeEventListener.apply(signal, args);
    },
  });
  return { signal, abort: (why: Error) => controller.abort(why), listening: () => listening };
}

test('a loop that is ended is told none of those that had come already', async () => {
  const why = new Error('enough');
  const told: number[] = [];
  const { signal, abort, listening } = countedSignal();
  const loop = async (): Promise<void> => {
    for await (const { sequence } of read({ signal }, [rows(1, 2, 3)])) {
      told.push(sequence);
      if (sequence === 2) abort(why);
    }
  };
  await expect(loop()).rejects.toBe(why);
  expect(told).toEqual([1, 2]);
  expect(listening()).toBe(0);
});

test('a loop whose document is closed is told none either', async () => {
  let isClosed = false;
  const told: number[] = [];
  const mustBeOpen = (): void => {
    if (isClosed) throw new DocumentClosedError('closed');
  };
  const loop = async (): Promise<void> => {
    for await (const { sequence } of read({}, [rows(1, 2)], mustBeOpen)) {
      told.push(sequence);
      isClosed = true;
    }
  };
  await expect(loop()).rejects.toThrow(DocumentClosedError);
  expect(told).toEqual([1]);
});

test('nobody listens to a signal for a loop that is over', async () => {
  const { signal, listening } = countedSignal();
  const told: number[] = [];
  for await (const { sequence } of read({ signal, live: false }, [rows(1), []])) {
    told.push(sequence);
  }
  expect([told, listening()]).toEqual([[1], 0]);
  for await (const _ of read({ signal }, [rows(1)])) break;
  expect(listening()).toBe(0);
});

test('who has left is told that it is over', async () => {
  const events = read({}, [rows(1, 2)]);
  expect((await events.next()).value.sequence).toBe(1);
  expect(await events.return!()).toEqual({ done: true, value: undefined });
  expect(await events.next()).toEqual({ done: true, value: undefined });
  const waits = read({}, []);
  const next = waits.next();
  await waits.return!();
  expect(await next).toEqual({ done: true, value: undefined });
});

test('an event whose data were erased says so, and has none', async () => {
  const row = (sequence: number, erased: number, data: string): Row =>
    ({ sequence, type: 'placed', erased, data }) as never as Row;
  const told: unknown[] = [];
  const parts = [[row(1, 0, '{"a":1}'), row(2, 1, '{}')]];
  for await (const event of read({}, parts)) {
    // The type of data is that of the doctype; `erased` is a boolean.
    const erased: boolean = event.erased;
    told.push([event.sequence, erased, event.data]);
    if (event.sequence === 2) break;
  }
  expect(told).toEqual([
    [1, false, { a: 1 }],
    [2, true, {}],
  ]);
});
