// The least of an app, to be bundled by each bundler: what the tests drive is `globalThis.app`.

import { doctype, mutation, open } from 'tidelog';

const notes = doctype({
  name: 'notes',
  migrations: ['create table note (id integer primary key, text text not null) strict'],
  mutations: { add: mutation({ text: 'text' }, 'insert into note (text) values (:text)') },
});

/** Opens the document of every page of this site. */
export async function start(options = {}) {
  try {
    const db = await open(notes, { document: 'notes', ...options });
    globalThis.app = {
      add: async (text) => {
        await db.mutate.add({ text });
      },
      notes: async () =>
        (await db.query('select text from note order by id')).map((row) => row.text),
      status: () => ({ storage: db.status.storage, error: db.status.error?.message ?? null }),
    };
  } catch (error) {
    globalThis.app = { failure: String(error) };
  }
}
