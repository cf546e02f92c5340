// The open document as the views use it: live queries that end with their view, and mutations whose
// outcome somebody hears of.

import type { Database, LiveQuery, Params, Receipt } from 'tidelog';
import type { chinook } from './chinook.ts';

export type Db = Database<(typeof chinook)['mutations']>;

/** Where the shop tells what happens to its mutations. */
export interface Listeners {
  onIssue(mutation: string, receipt: Receipt): void;
  onError(error: Error): void;
}

export class Shop {
  readonly db: Db;
  readonly #listeners: Listeners;

  constructor(db: Db, listeners: Listeners) {
    this.db = db;
    this.#listeners = listeners;
  }

  /** Issues a mutation; what goes wrong is reported. Says whether it is on this device's disk. */
  async mutate(mutation: string, issue: (db: Db) => Receipt): Promise<boolean> {
    try {
      const receipt = issue(this.db);
      this.#listeners.onIssue(mutation, receipt);
      await receipt.durable;
      return true;
    } catch (error) {
      this.report(error as Error);
      return false;
    }
  }

  report(error: Error): void {
    this.#listeners.onError(error);
  }

  /** A query whose rows come again whenever they change, until `close`. */
  watch<Row>(sql: string, params: Params, onRows: (rows: readonly Row[]) => void): LiveQuery<Row> {
    const query = this.db.live<Row>(sql, params);
    query.subscribe((rows, error) => {
      if (error) this.report(error);
      else if (rows) onRows(rows);
    });
    return query;
  }
}

/** Live queries that end together. */
export class Watches {
  readonly #queries = new Map<string, { key: string; query: LiveQuery<unknown> }>();

  /**
   * Begins what `watch` begins, in the place of the query that had the same `slot`, unless that one
   * had the same `key`.
   */
  set<Row>(slot: string, key: string | number, watch: () => LiveQuery<Row>): void {
    const before = this.#queries.get(slot);
    if (before?.key === String(key)) return;
    before?.query.close();
    this.#queries.set(slot, { key: String(key), query: watch() as LiveQuery<unknown> });
  }

  /** Ends the query of `slot`, if there is one. */
  end(slot: string): void {
    this.#queries.get(slot)?.query.close();
    this.#queries.delete(slot);
  }

  endAll(): void {
    for (const slot of [...this.#queries.keys()]) this.end(slot);
  }
}
