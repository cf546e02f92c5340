// The tables of PostgreSQL, and what is done there by several processes.

export const TABLES = `
  create table stream (name text primary key, length bigint not null);
  create table event (sequence bigserial primary key, stream text not null,
                      position bigint not null, type text not null, data jsonb not null,
                      at timestamptz not null);
  create table orders (id text primary key, paid bigint not null);
  create table command (number bigserial primary key, id uuid not null, stream text not null,
                        args jsonb not null, state text not null);
  create index on command (number) where state = 'received';
  create table run (id uuid primary key, steps int not null, state text not null);
  create index on run (id) where state = 'received';
  create table step (run uuid, nth int, result jsonb not null, primary key (run, nth));`;

/** As they are when they are new. */
export const EMPTY = 'truncate stream, event, orders, command, run, step restart identity';

export const RECORD = `
  with of as (insert into stream values ($1, 1)
              on conflict (name) do update set length = stream.length + 1 returning length)
  insert into event (stream, position, type, data, at)
  select $1, length, $2, $3, now() from of`;

/** Where the server is that listens on this port. */
export const at = (port) => ({
  host: '127.0.0.1',
  port: Number(port),
  user: 'bench',
  database: 'postgres',
});

/** So many connections, all of them open. */
export async function poolOf(pg, port, count) {
  const pool = new pg.Pool({ ...at(port), max: count });
  const all = await Promise.all(Array.from({ length: count }, () => pool.connect()));
  for (const client of all) client.release();
  return pool;
}
