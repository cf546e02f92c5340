// The same statements for everybody.

export const TABLE = `create table if not exists item (
  id integer primary key, title text not null, done integer not null default 0) strict`;
export const INSERT = 'insert into item (id, title) values (?1, ?2)';
export const INSERT_MANY = `insert into item (id, title)
  select value ->> 0, value ->> 1 from json_each(?1)`;
export const SELECT = 'select id, title, done from item where id = ?1';
export const FIRST = 'select id, title, done from item order by id limit 1';
