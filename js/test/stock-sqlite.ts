// A doctype in an SQLite that is not ours: of the same release, and with more compiled in.

import sqlite3InitModule from '@sqlite.org/sqlite-wasm';
import type { ArgumentKind, Doctype, ParamTypes } from '../src/index.js';

const sqlite3 = await sqlite3InitModule();
// What fails is told by an error already.
sqlite3.config.warn = () => {};

/** A value of each kind, as SQL is given it. */
const VALUES: { readonly [Kind in ArgumentKind]: string | number | Uint8Array } = {
  text: 'text',
  integer: 7,
  real: 0.5,
  blob: new Uint8Array([1]),
  boolean: 1,
  json: '[]',
  uuid: '00000000-0000-4000-8000-000000000000',
};

/** What fails of its own accord in a run on arguments that nobody chose. */
const REFUSED = /rejected|constraint failed/;

/** What stands for the views of events, commands and workflows where there are none. */
const EVENTS = `create table tidelog_events (
    sequence integer primary key, aggregate text not null, stream text not null, position integer,
    type text not null, version integer, data text check (json_type(data) = 'object'), time integer,
    user text, client text, cause text, erased integer);
  create table tidelog_streams (aggregate text, stream text, length integer, archived integer);
  create table tidelog_commands (number integer primary key, aggregate text, stream text,
    command text, args text, key text, state text, attempt integer, time integer, user text,
    client text, instance integer, first integer, last integer, reason text, ended integer);
  create table tidelog_workflows (number integer primary key, workflow text, id text,
    version integer, args text, state text, attempt integer, time integer, user text, client text,
    instance integer, records integer, is_cancelled integer, result text, reason text,
    ended integer);
  create table tidelog_records (record integer primary key, number integer, workflow text, id text,
    name text, count integer, kind text, state text, result text, time integer, due integer);
  create table tidelog_requests (record integer primary key, number integer, workflow text, id text,
    name text, count integer, state text, result text, time integer);
  create table tidelog_instances (instance integer, client text, user text, since integer);
  create table tidelog_snapshots (aggregate text, stream text, name text, position integer,
    sequence integer, state text)`;

/**
 * Runs the migrations of a doctype, each of its mutations once, what follows from its events and
 * commands, and what is asked. Gives what is wrong: a mutation may be rejected, and may be given
 * nothing that it does not declare.
 */
export function run(
  { migrations, mutations, streams = {}, workflows = {} }: Doctype,
  asked: readonly string[],
): string[] {
  const db = new sqlite3.oo1.DB(':memory:');
  const wrong: string[] = [];
  const attempt = (sql: string, deed: () => void): void => {
    try {
      deed();
    } catch (error) {
      if (!REFUSED.test(String(error))) wrong.push(`${error}: ${sql}`);
    }
  };
  const rejected = (): never => {
    throw new Error('rejected');
  };
  const refused = (): never => {
    throw new Error('it asks for chance');
  };
  try {
    db.exec('pragma foreign_keys = on');
    db.createFunction('reject', rejected, { arity: 1 });
    for (const name of ['random', 'randomblob']) db.createFunction(name, refused, { arity: -1 });
    if (Object.keys({ ...streams, ...workflows }).length > 0) db.exec(EVENTS);
    for (const sql of migrations) attempt(sql, () => db.exec(sql));
    const tryAll = (types: ParamTypes, sql: readonly string[], others: object): void => {
      const given = Object.entries(types).map(([name, type]) => [
        `:${name}`,
        VALUES[type.replace('?', '') as ArgumentKind],
      ]);
      const values = { ...Object.fromEntries(given), ...others, ':now': 1, ':client': 'client' };
      db.exec('savepoint mutation');
      for (const statement of sql) attempt(statement, () => step(db, statement, values));
      db.exec('rollback to mutation; release mutation');
    };
    for (const { params, sql } of Object.values(mutations)) tryAll(params, sql, {});
    const place = { ':stream': 'id', ':sequence': 1, ':position': 1 };
    const sent = { ':stream': 'id', ':key': 'key', ':user': 'user' };
    for (const { events, commands = {} } of Object.values(streams)) {
      for (const { fields, received, failed } of Object.values(commands)) {
        tryAll(fields, received, sent);
        tryAll(fields, failed, { ...sent, ':reason': 'reason' });
      }
      for (const { fields, upcast, project } of Object.values(events)) {
        tryAll(fields, project, place);
        const casts = upcast.map((it) => `select (${it})`);
        tryAll({}, casts, { ':data': '{}' });
      }
    }
    for (const sql of asked) attempt(sql, () => db.prepare(sql).finalize());
  } finally {
    db.close();
  }
  return wrong;
}

type Db = InstanceType<typeof sqlite3.oo1.DB>;

/** Runs a statement with those of the values that it names. */
function step(db: Db, sql: string, values: Record<string, unknown>): void {
  const statement = db.prepare(sql);
  try {
    for (let index = 1; index <= statement.parameterCount; index += 1) {
      const name = String(sqlite3.capi.sqlite3_bind_parameter_name(statement.pointer!, index));
      if (!(name in values)) throw new Error(`${name} is no parameter`);
      statement.bind(index, values[name] as string);
    }
    while (statement.step());
  } finally {
    statement.finalize();
  }
}
