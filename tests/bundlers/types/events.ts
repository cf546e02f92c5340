// What the types of a doctype say of its events and commands: this is compiled, and not run.

import { doctype, mutation, open } from 'tidelog';
import { command, stream } from 'tidelog/events';
import * as inReact from 'tidelog/react';

const shop = doctype({
  name: 'shop',
  migrations: [],
  mutations: { ship: mutation({ id: 'text' }, 'select :id') },
  streams: {
    order: stream({ events: { placed: { items: 'integer', note: 'text?' }, shipped: {} } }),
    visit: stream({ events: { begun: { at: 'real' } } }),
    parcel: stream({
      events: { packed: { items: 'json', id: 'uuid' }, sent: {} },
      commands: { pack: command({ items: 'json', gift: 'boolean?' }), send: command({}) },
    }),
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

export async function commands(): Promise<void> {
  const db = await open(shop, { document: 'mine' });
  const receipt = db.send.parcel.pack('p-1', { items: ['tea'] }, { key: 'k' });
  const gift: boolean | null = receipt.args.gift;
  const { lsn } = await receipt;
  const { events } = await receipt.completed;
  for (const event of events) if (event.type === 'packed') console.log(event.data.id.length);
  console.log(gift, lsn, receipt.key.length);
  db.send.parcel.send('p-1');
  (await db.outcome('parcel', 'p-1', 'pack', 'k')).events.map(({ type }) => type === 'sent');
  // @ts-expect-error: nothing is sent to a visit.
  db.send.visit.pack('v-1');
  // @ts-expect-error: no parcel can do that.
  db.send.parcel.eat('p-1');
  // @ts-expect-error: its items are missing.
  db.send.parcel.pack('p-1', {});
  // @ts-expect-error: nor is that a boolean.
  db.send.parcel.pack('p-1', { items: [], gift: 1 });
  // @ts-expect-error: there is no such command of a parcel.
  await db.outcome('parcel', 'p-1', 'eat', 'k');

  const handling = db.handle(
    'parcel',
    {
      initial: { packed: 0 },
      evolve: { packed: (state, { data }) => ({ packed: state.packed + data.id.length }) },
      commands: {
        pack: async (ctx, { items, gift }) => {
          const isGift: boolean | null | undefined = gift;
          if (ctx.state.packed.toFixed() === '3' || isGift) return ctx.fail('enough');
          ctx.send.parcel.send(ctx.stream);
          return [{ type: 'packed', data: { items } }, { type: 'sent' }];
        },
        send: () => {},
      },
    },
    { concurrency: 4, onError: (error, command) => console.error(command?.number, error) },
  );
  await handling.close();
  // @ts-expect-error: nothing of that type happens to a parcel.
  db.handle('parcel', { initial: 0, commands: { send: () => [{ type: 'lost' }] } });
  // @ts-expect-error: its data are missing.
  db.handle('parcel', { initial: 0, commands: { send: () => [{ type: 'packed' }] } });
  // @ts-expect-error: no parcel can do that.
  db.handle('parcel', { initial: 0, commands: { eat: () => {} } });
  // @ts-expect-error: a command has arguments of types that there are.
  command({ at: 'date' });
}

const { useDocument } = inReact.createHooks(shop);

export async function follow(): Promise<void> {
  const db = useDocument();
  if (!db) return;
  for await (const event of db.events('order', 'o-1')) {
    if (event.type === 'placed') console.log(event.data.items.toFixed());
  }
}
