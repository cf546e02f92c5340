// Events in a world: recorded offline and online, told in the server's order, and gone on with.

import { doctype, mutation } from 'tidelog';
import { stream } from 'tidelog/events';
import { world } from 'tidelog/testing';
import { expect, test } from 'vitest';

const shop = doctype({
  name: 'shop',
  migrations: ['create table orders (id text primary key, state text not null) strict'],
  mutations: {
    place: mutation(
      { id: 'text', items: 'integer' },
      `insert into tidelog_events (aggregate, stream, type, data)
       values ('order', :id, 'placed', json_object('items', :items))`,
    ),
    ship: mutation(
      { id: 'text' },
      `insert into tidelog_events (aggregate, stream, type) values ('order', :id, 'shipped')`,
    ),
  },
  streams: {
    order: stream({
      events: { placed: { items: 'integer' }, shipped: {} },
      project: {
        placed: `insert into orders (id, state) values (:stream, 'placed')`,
        shipped: [
          `select reject('no such order') where not exists
             (select 1 from orders where id = :stream)`,
          `update orders set state = 'shipped' where id = :stream`,
        ],
      },
    }),
  },
});

test('events are told in the order of the server, and gone on with by name', async () => {
  const w = await world(shop);
  try {
    const [ada, bob] = [await w.client(), await w.client({ user: 'bob' })];
    ada.offline();
    const late = ada.db.mutate.place({ id: 'o-1', items: 2 });
    await late;
    await bob.db.mutate.place({ id: 'o-2', items: 3 }).confirmed;
    expect(await ada.db.query('select id, state from orders')).toEqual([
      { id: 'o-1', state: 'placed' },
    ]);
    ada.online();
    await late.confirmed;
    await bob.db.mutate.ship({ id: 'o-1' }).confirmed;
    await w.settle();
    await expect(ada.db.mutate.ship({ id: 'o-9' })).rejects.toThrow('no such order');

    const told: string[] = [];
    for await (const event of ada.db.events('order', { live: false, consumer: 'log' })) {
      const items = event.type === 'placed' ? event.data.items.toFixed() : 'none';
      told.push(`${event.sequence} ${event.stream} ${event.type} ${items}`);
    }
    expect(told).toEqual(['1 o-2 placed 3', '2 o-1 placed 2', '3 o-1 shipped none']);
    await bob.db.mutate.ship({ id: 'o-2' }).confirmed;
    const news = ada.db.events('order', 'o-2', { consumer: 'log' });
    const { value } = await news.next();
    expect(value).toMatchObject({
      sequence: 4,
      position: 2,
      type: 'shipped',
      data: {},
      user: 'bob',
    });
    await news.return?.();
  } finally {
    await w.close();
  }
});
