// What the shop, its warehouse and its office share: orders as streams of events, the commands by
// which each has the next one do something, and what becomes of an order from step to step.
import { doctype } from 'tidelog';
import { command, stream, workflow } from 'tidelog/events';

/** @param {string} state */
const becomes = (state) => `update orders set state = '${state}' where id = :stream`;

const given_up = `update orders set state = 'given up: ' || :reason where id = :stream`;

export const shop = doctype({
  name: 'orders',
  migrations: [
    `create table orders (id text primary key, item text not null, state text not null,
                          at integer not null) strict;
     create table stock (item text primary key, count integer not null check (count >= 0)) strict;
     insert into stock (item, count) values ('tea', 100), ('coffee', 100), ('a rare book', 1)`,
  ],
  mutations: {},
  streams: {
    order: stream({
      events: { placed: { item: 'text' }, paid: {}, shipped: {} },
      project: {
        // Rules across all orders stand here: nothing is sold that is not in stock.
        placed: ['update stock set count = count - 1 where item = :item', becomes('placed')],
        paid: becomes('paid'),
        shipped: becomes('shipped'),
      },
      commands: {
        // Sent by the shop, seen there at once, and handled by the office.
        place: command(
          { item: 'text' },
          {
            received: `insert into orders (id, item, state, at)
                       values (:stream, :item, 'sent', :now)`,
            failed: given_up,
          },
        ),
        // Sent by the run of an order, and handled by the office.
        pay: command({}, { failed: given_up, timeout: '1m' }),
        // Sent by the run as well, and handled by the warehouse.
        ship: command({ label: 'text' }, { failed: given_up }),
      },
    }),
  },
  // Started by the office for each order, under its id: see office.mjs.
  workflows: { fulfil: workflow({ order: 'text' }) },
});
