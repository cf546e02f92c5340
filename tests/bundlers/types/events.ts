// What the types of a doctype say of its events: this is compiled, and not run.

import { doctype, mutation, open } from 'tidelog';
import { stream } from 'tidelog/events';
import * as inReact from 'tidelog/react';

const shop = doctype({
  name: 'shop',
  migrations: [],
  mutations: { ship: mutation({ id: 'text' }, 'select :id') },
  streams: {
    order: stream({ events: { placed: { items: 'integer', note: 'text?' }, shipped: {} } }),
    visit: stream({ events: { begun: { at: 'real' } } }),
  },
});

export async function main(): Promise<void> {
  const db = await open(shop, { document: 'mine' });
  for await (const event of db.events('order', { types: ['placed'], live: false })) {
    const aggregate: 'order' = event.aggregate;
    if (event.type === 'placed') {
      const items: number = event.data.items;
      const note: string | null | undefined = event.data.note;
      console.log(aggregate, items, note);
      // @ts-expect-error: it has no such field.
      console.log(event.data.at);
    }
    // @ts-expect-error: nothing of that type happens to an order.
    if (event.type === 'begun') return;
  }
  for await (const event of db.events()) {
    if (event.type === 'begun') console.log(event.data.at.toFixed());
  }
  // @ts-expect-error: there is no such aggregate.
  db.events('orders');
  // @ts-expect-error: a type of event has fields of types that there are.
  stream({ events: { placed: { items: 'list' } } });
}

const { useDocument } = inReact.createHooks(shop);

export async function follow(): Promise<void> {
  const db = useDocument();
  if (!db) return;
  for await (const event of db.events('order', 'o-1')) {
    if (event.type === 'placed') console.log(event.data.items.toFixed());
  }
}
