// The same statements for everybody, with parameters in the order in which they appear.

const TABLE = (key) => `(
  id ${key} primary key, title text not null, done integer not null default 0) strict`;

/** The table is `item`; keys are integers, or texts where `isText`. */
export const schema = (isText) => `create table item ${TABLE(isText ? 'text' : 'integer')}`;

/** What changes rows. */
export const MUTATIONS = {
  insert: 'insert into item (id, title) values (:id, :title)',
  update: 'update item set title = :title, done = 1 - done where id = :id',
  remove: 'delete from item where id = :id',
  insertMany: `insert into item (id, title)
    select value ->> 0, value ->> 1 from json_each(:rows)`,
};

/** What asks for rows. */
export const QUERIES = {
  select: 'select id, title, done from item where id = :id',
  range: 'select id, title, done from item where id >= :id order by id limit 1000',
  first: 'select id, title, done from item order by id limit 1',
};

/** The values of a statement in the order of its parameters. */
export function inOrder(sql, values) {
  const names = new Set([...sql.matchAll(/:(\w+)/g)].map(([, name]) => name));
  return [...names].map((name) => values[name]);
}
