/** What a run remembers of its earlier attempts. */

import { recordsRequest } from './command-requests.js';
import type { OpenStreams } from './streams.js';

/** One record, as the core tells it. */
export interface KnownRecord {
  /** Its place in the order in which the run has heard of them. */
  readonly record: number;
  readonly name: string;
  readonly count: number;
  readonly kind: string;
  readonly state: 'started' | 'waiting' | 'done' | 'failed';
  /** What was done, as text; why it has failed. */
  readonly result: string | null;
  /** When the run has heard of it, by the authority's clock; null where it has not yet. */
  readonly time: number | null;
  /** Where an event was waited for. */
  readonly aggregate: string | null;
  readonly stream: string | null;
}

/** By what a record is found. */
export const keyOf = (name: string, count: number): string => `${count}:${name}`;

/** All that the run remembers as of this attempt, by name and count. */
export async function readRecords(
  document: OpenStreams,
  task: number,
  attempt: number,
  signal: AbortSignal,
): Promise<Map<string, KnownRecord>> {
  const found = new Map<string, KnownRecord>();
  for (let after = 0; ; ) {
    const request = recordsRequest(task, attempt, after);
    const rows = await document.rows('records', { request }, signal);
    if (rows.length === 0) return found;
    for (const row of rows as unknown as KnownRecord[]) {
      found.set(keyOf(row.name, row.count), row);
      after = row.record;
    }
  }
}

/** Whether the run has heard what became of it: by this attempt nothing else counts. */
export const isOver = ({ state, time }: KnownRecord): boolean =>
  (state === 'done' || state === 'failed') && time !== null;
