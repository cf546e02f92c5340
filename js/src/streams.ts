/** What the code of streams, which only apps with streams load, is given of an open document. */

import type { Connection } from './connection.js';
import type { Ending } from './database.js';
import type { Bound, DoctypeDefinition } from './doctype.js';
import type { ToCore } from './messages.js';
import type { Issued, Receipt } from './receipt.js';
import type { Row } from './rows.js';

/** Requests that are answered by rows, once. */
export type RowsKind = 'query' | 'events' | 'outcome' | 'complete' | 'records';

/** A document that is open, or was. */
export interface OpenStreams {
  readonly connection: Connection;
  readonly doctype: DoctypeDefinition;
  /** The tab's number for it. */
  readonly handle: number;
  /** What ends with it. */
  readonly ending: Set<Ending>;
  /** Asks the core; the answer may take as long as it likes. */
  rows<Kind extends RowsKind>(
    kind: Kind,
    message: Omit<ToCore[Kind], 'call' | 'handle'>,
    signal?: AbortSignal,
  ): Promise<Row[]>;
  /** Issues a mutation, whichever its name. */
  mutate(name: string, args: Bound, issued: Issued): Receipt;
  /** @throws {DocumentClosedError} if it is not. */
  mustBeOpen(): void;
}
