// Loads rows into the shop by mutations, a batch at a time, so that each is durable on its own and
// the import can be stopped between two.

import { count, h } from '../../shared/dom.ts';
import type { Db, Shop } from './shop.ts';
import { batchesOf, shopRows } from './shop-rows.ts';
import { decodeSql, readInserts } from './sql-inserts.ts';
import type { Rows } from './tables.ts';

/** Batches handed over before the first of them is awaited: they share a flush. */
const IN_FLIGHT_MAX = 4;

/** An import and how far it is. */
export class Import {
  readonly #bar = h('progress', { max: 1, value: 0 });
  readonly #label = h('p', { 'data-testid': 'import-label', 'aria-live': 'polite' });
  readonly #stop = new AbortController();
  readonly element = h(
    'div',
    { class: 'import', 'data-testid': 'import' },
    this.#label,
    this.#bar,
    h(
      'button',
      {
        class: 'button',
        type: 'button',
        'data-testid': 'import-cancel',
        onclick: () => this.#stop.abort(),
      },
      'Stop',
    ),
  );

  constructor() {
    this.#say('Reading…');
  }

  /** Loads what a script inserts. Rejects if it cannot be read, or if a batch was rejected. */
  async loadScript(shop: Shop, bytes: Uint8Array): Promise<string> {
    // The label is painted before the script is read, which takes a moment.
    await new Promise((resolve) => setTimeout(resolve));
    const tables = shopRows(readInserts(decodeSql(bytes)));
    if (tables.length === 0) throw new Error('there are no rows for this shop in that file');
    return this.load(shop, tables);
  }

  /** Loads `tables`; what it says at the end is for the user. */
  async load(shop: Shop, tables: readonly Rows[]): Promise<string> {
    const total = tables.reduce((sum, { rows }) => sum + rows.length, 0);
    let durable = 0;
    const inFlight: Promise<void>[] = [];
    for (const batch of batchesOf(tables)) {
      if (this.#stop.signal.aborted) break;
      this.#say(`${count(durable, 'row')} of ${total.toLocaleString('en')} · ${batch.table}`);
      const settled = issue(shop.db, batch).then(() => {
        durable += batch.rows.length;
        this.#bar.value = durable / total;
      });
      // Awaited in turn; until then nobody listens, and a rejection must not count as unhandled.
      settled.catch(() => undefined);
      inFlight.push(settled);
      if (inFlight.length >= IN_FLIGHT_MAX) await inFlight.shift();
    }
    await Promise.all(inFlight);
    const what = `${count(durable, 'row')} imported`;
    return durable < total
      ? `Stopped: ${what}, ${(total - durable).toLocaleString('en')} left out`
      : what;
  }

  #say(text: string): void {
    this.#label.textContent = text;
  }
}

async function issue(db: Db, { table, rows }: Rows): Promise<void> {
  await db.mutate[`load${table}`]({ rows }).durable;
}
