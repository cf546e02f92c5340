// What an app in TypeScript asks of the package's types: this is compiled, and not run.

import { Kysely } from 'kysely';
import * as React from 'react';
import { type Database, destroyAll, doctype, mutation, open, sql, TidelogError } from 'tidelog';
import { proxyOf } from 'tidelog/drizzle';
import { queryOf, TidelogDialect } from 'tidelog/kysely';
import * as inReact from 'tidelog/react';
import * as inSolid from 'tidelog/solid';
import * as inSvelte from 'tidelog/svelte';
import * as inVue from 'tidelog/vue';

const notes = doctype({
  name: 'notes',
  migrations: ['create table note (id text primary key, text text not null) strict'],
  mutations: {
    add: mutation({ id: 'uuid', text: 'text' }, 'insert into note (id, text) values (:id, :text)'),
  },
});

type Note = { id: string; text: string };

export async function main(): Promise<number> {
  const db: Database<typeof notes.mutations> = await open(notes, { document: 'mine' });
  // @ts-expect-error: what a mutation asks for has to be there.
  db.mutate.add({});
  // @ts-expect-error: and of its kind.
  db.mutate.add({ text: 1 });
  const receipt = db.mutate.add({ text: 'one' });
  const [{ lsn }, { id }] = [await receipt, receipt.args];
  const rows = await db.query<Note>('select id, text from note where id = ?', [id]);
  const stop = db.live<Note>('select id, text from note').subscribe((rows, error) => {
    if (error instanceof TidelogError) console.error(error.code, error.outcome);
    console.log(rows?.map((note) => note.text.length));
  });
  stop();
  const kysely = new Kysely<{ note: Note }>({ dialect: new TidelogDialect(db) });
  const [built] = await db.query(queryOf(kysely.selectFrom('note').select('text')));
  const [{ length }] = await db.query(sql<{ length: number }>`select length(${built.text}) length`);
  const { rows: counts } = await proxyOf(db)('select count(*) from note', [length], 'all');
  console.log(counts[0][0]);
  await db.close();
  await destroyAll();
  return rows.length + lsn;
}

const { Provider, useLive, useMutate } = inReact.createHooks(notes);

function List() {
  const { rows, error, state } = useLive<Note>('select id, text from note');
  const { add } = useMutate({ onRejected: ({ reason }) => console.error(reason) });
  const isThere: boolean = state === 'ready' && error === null;
  const texts = rows.map((note) => note.text);
  const onClick = (): unknown => add({ text: 'one' });
  return React.createElement('button', { type: 'button', onClick }, isThere, ...texts);
}

export const App = React.createElement(Provider, { document: 'mine' }, React.createElement(List));
export const others = [
  inVue.createHooks(notes).useStatus,
  inSvelte.createHooks(notes).useStatus,
  inSolid.createHooks(notes).useStatus,
];
