import { doctype, mutation } from 'tidelog';
import { command, stream, workflow } from 'tidelog/events';

export const shop = doctype({
  name: 'shop',
  migrations: ['create table orders (id text primary key, state text not null) strict'],
  mutations: {
    place: mutation(
      { id: 'uuid' },
      `insert into tidelog_events (aggregate, stream, type) values ('order', :id, 'placed')`,
    ),
  },
  streams: {
    order: stream({
      events: { placed: {}, shipped: { by: 'text?' } },
      upcast: { shipped: [`json_set(:data, '$.by', null)`] },
      project: { placed: `insert into orders (id, state) values (:stream, 'placed')` },
      commands: {
        ship: command(
          { by: 'text?' },
          {
            received: `update orders set state = 'to ship' where id = :stream`,
            failed: 'update orders set state = :reason where id = :stream',
            timeout: '2m',
          },
        ),
      },
    }),
  },
  workflows: { fulfil: workflow({ order: 'text' }, { version: 2 }) },
});
