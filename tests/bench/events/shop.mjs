// Orders whose events, commands and workflows are measured.

import { doctype, mutation } from 'tidelog';
import { command, stream, workflow } from 'tidelog/events';

export const shop = doctype({
  name: 'shop',
  migrations: ['create table orders (id text primary key, paid integer not null) strict'],
  mutations: {
    note: mutation(
      { id: 'text' },
      `insert into tidelog_events (aggregate, stream, type, data)
       values ('order', :id, 'noted', json_object('what', 'a line of text of some forty bytes'))`,
    ),
  },
  streams: {
    order: stream({
      events: {
        noted: { what: 'text' },
        paid: { sum: 'integer' },
      },
      project: {
        paid: `insert into orders values (:stream, 1)
               on conflict (id) do update set paid = paid + 1`,
      },
      commands: { pay: command({ sum: 'integer' }) },
    }),
  },
  workflows: { fulfil: workflow({ steps: 'integer' }) },
});
