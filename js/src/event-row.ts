/** Events as the core tells them: data as a text, and flags as numbers. */

import type { RecordedEvent } from './events.js';

/** An event as a row. */
export type EventRow = Omit<RecordedEvent<string, string, string>, 'erased'> & {
  readonly erased: number;
};

/** The event that a row is. */
export const recordedOf = (row: EventRow): RecordedEvent => ({
  ...row,
  data: JSON.parse(row.data) as unknown,
  erased: row.erased === 1,
});
