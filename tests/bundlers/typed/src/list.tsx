// What an app in TypeScript writes, with no word of types: this is compiled, and not run.

import { open, sql } from 'tidelog';
import { createHooks } from 'tidelog/react';
import { ALL, todos } from './todos.ts';

const { useLive, useSuspenseLive } = createHooks(todos);

export function List({ title }: { title: string }) {
  const { rows } = useLive(ALL);
  const [count] = useSuspenseLive('select count(*) as todos from todo where title = ?', [title]);
  return (
    <p title="It's a list">
      There's {count!.todos.toFixed()}: {rows.map((row) => row.title.toUpperCase())}
    </p>
  );
}

export async function main(since: number): Promise<number> {
  const db = await open(todos, { document: 'groceries' });
  const [joined] = await db.query(
    `select todo.title, item.id as item, todo.at
     from todo left join item on item.todo = todo.id
     where todo.id = :id and (:since is null or todo.at > :since)`,
    { id: 'an id', since: null },
  );
  const { title, item }: { title: string; item: number | null } = joined!;
  // @ts-expect-error: it may be null.
  joined!.at.toFixed();
  // @ts-expect-error: there is no such column.
  joined!.done;
  // @ts-expect-error: an id is a text.
  await db.query('select title from todo where id = ?', [1]);
  // @ts-expect-error: it takes one.
  await db.query('select title from todo where id = ?');

  const isNew = sql`at > ${since}`;
  const isOpen = sql<'isOpen'>`
    select exists (select 1 from todo where title = ${title} and ${isNew}) as isOpen`;
  // @ts-expect-error: a title is a text.
  sql<'isOpen'>`select exists (select 1 from todo where title = ${1} and ${isNew}) as isOpen`;
  db.live(isOpen).subscribe((rows) => rows?.map((row) => row.isOpen.toFixed()));
  const own = await db.query<{ mine: string }>('select title as mine from todo');
  return own[0]!.mine.length + (item ?? 0);
}
