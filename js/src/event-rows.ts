/** Events as the core tells them: data as a text, and flags as numbers. */

import { type Bytes, Writer } from './codec.js';
import type { RecordedEvent } from './events.js';
import type { OpenStreams } from './streams.js';

/** An event as a row. */
export type EventRow = Omit<RecordedEvent<string, string, string>, 'erased'> & {
  readonly erased: number;
};

/** Which events are wanted; see `protocol.rs` in crate `client`. */
export interface WantedEvents {
  readonly aggregate: string | undefined;
  readonly stream: string | undefined;
  readonly types: readonly string[];
  /** Behind this sequence number. */
  readonly after: number;
  /** Whether it waits where there are none yet. */
  readonly waits: boolean;
  /** For whom; whether it wants those behind what is kept of it, or has dealt with the others. */
  readonly consumer: { readonly name: string; readonly begins: boolean } | undefined;
}

/** Which events are wanted, as it travels. */
export function eventsRequest(wanted: WantedEvents): Bytes {
  const { aggregate, stream, types, after, waits, consumer } = wanted;
  const w = new Writer();
  const text = (it: string): void => w.text(it);
  w.option(aggregate, text);
  w.option(stream, text);
  w.list(types, text);
  w.u64(after);
  w.u8(waits);
  w.option(consumer, ({ name, begins }) => {
    w.text(name);
    w.u8(begins);
  });
  return w.take();
}

/** Some of the events that are wanted, oldest first; none where there are no more. */
export async function readEvents(
  document: Pick<OpenStreams, 'rows'>,
  wanted: WantedEvents,
  signal?: AbortSignal,
): Promise<EventRow[]> {
  const message = { ...wanted, request: eventsRequest(wanted) };
  return (await document.rows('events', message, signal)) as unknown as EventRow[];
}

/** The event that a row is. */
export const recordedOf = (row: EventRow): RecordedEvent => ({
  ...row,
  data: JSON.parse(row.data) as unknown,
  erased: row.erased === 1,
});
