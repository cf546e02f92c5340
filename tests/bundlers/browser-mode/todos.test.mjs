// What runs in the page, as the page *Testing* of the docs has it.

import { destroy, doctype, mutation, open, RejectedError } from 'tidelog';
import { expect, test } from 'vitest';

const todos = doctype({
  name: 'todos',
  migrations: ['create table todo (id text primary key, title text not null) strict'],
  mutations: {
    add: mutation({ id: 'uuid', title: 'text' }, [
      `select reject('a to-do needs a title') where trim(:title) = ''`,
      'insert into todo (id, title) values (:id, :title)',
    ]),
  },
});

test('a document is opened, written to and read in the page', async () => {
  const document = crypto.randomUUID();
  const db = await open(todos, { document });
  await db.mutate.add({ title: 'milk' });
  expect(await db.query('select title from todo')).toEqual([{ title: 'milk' }]);
  await expect(db.mutate.add({ title: ' ' })).rejects.toThrow(RejectedError);
  expect(db.status.storage).toBe('opfs');
  await db.close();
  await destroy(document, { force: true });
});
