// The world of `tidelog/testing`, as Jest runs it.

import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { doctype, mutation, RejectedError } from 'tidelog';
import { world } from 'tidelog/testing';

const todos = doctype({
  name: 'todos',
  migrations: ['create table todo (id text primary key, title text not null unique) strict'],
  mutations: {
    add: mutation({ id: 'uuid', title: 'text' }, [
      `select reject('it is on the list') where exists (select 1 from todo where title = :title)`,
      'insert into todo (id, title) values (:id, :title)',
    ]),
  },
});

let w;

beforeEach(async () => {
  w = await world(todos);
});

afterEach(() => w.close());

test('what two clients issue offline is decided once they are online', async () => {
  const [ada, bob] = [await w.client(), await w.client({ user: 'bob' })];
  for (const client of [ada, bob]) client.offline();
  await ada.db.mutate.add({ title: 'milk' });
  const second = bob.db.mutate.add({ title: 'milk' });
  await second;
  ada.online();
  await w.settle();
  bob.online();
  await expect(second.confirmed).rejects.toThrow(RejectedError);
  await w.settle();
  for (const { db } of [ada, bob]) {
    expect(await db.values('select title from todo')).toEqual([['milk']]);
  }
});
