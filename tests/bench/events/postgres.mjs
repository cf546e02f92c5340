// The same with tables of PostgreSQL, as they are usually made for it: an outbox whose commands are
// taken with `skip locked`, and a row for each step of a run. Every transaction is on the disk
// before it is answered, and whoever waits is woken by `notify`.

import { execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chownSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { freePort } from '../../browser/harness/tidelog-server.mjs';
import { eventually } from '../../browser/harness/time.mjs';

export const name = 'PostgreSQL';

/** Connections of the process that handles. */
const HANDLING = 16;

const TABLES = `
  create table stream (name text primary key, length bigint not null);
  create table event (sequence bigserial primary key, stream text not null, position bigint not null,
                      type text not null, data jsonb not null, at timestamptz not null);
  create table orders (id text primary key, paid bigint not null);
  create table command (number bigserial primary key, stream text not null, args jsonb not null,
                        state text not null);
  create index on command (number) where state = 'received';
  create table run (id text primary key, steps int not null, state text not null);
  create table step (run text, nth int, result jsonb not null, primary key (run, nth));`;

const RECORD = `
  with of as (insert into stream values ($1, 1)
              on conflict (name) do update set length = stream.length + 1 returning length)
  insert into event (stream, position, type, data, at)
  select $1, length, $2, $3, now() from of`;

/** Where PostgreSQL is, or undefined. */
function binaries() {
  const found = (root) => {
    try {
      return readdirSync(root).map((version) => path.join(root, version, 'bin'));
    } catch {
      return [];
    }
  };
  return found('/usr/lib/postgresql').at(-1);
}

export async function begin() {
  const bin = binaries();
  if (!bin) return null;
  const data = mkdtempSync(path.join(os.tmpdir(), 'tidelog-postgres-'));
  const id = (what) => Number(execFileSync('id', [what, 'postgres'], { encoding: 'utf8' }));
  // It does not run as root.
  const who = process.getuid() === 0 ? { uid: id('-u'), gid: id('-g') } : {};
  if (who.uid) chownSync(data, who.uid, who.gid);
  execFileSync(path.join(bin, 'initdb'), ['-D', data, '-A', 'trust', '-U', 'bench'], {
    ...who,
    cwd: data,
    stdio: 'ignore',
  });
  const port = await freePort();
  const set = ['max_connections=300', 'listen_addresses=127.0.0.1', `unix_socket_directories=`];
  const args = ['-D', data, '-p', port, ...set.flatMap((it) => ['-c', it])];
  const server = spawn(path.join(bin, 'postgres'), args, { ...who, cwd: data, stdio: 'ignore' });
  const at = { host: '127.0.0.1', port, user: 'bench', database: 'postgres' };
  const pool = (max) => new pg.Pool({ ...at, max });
  const setup = pool(1);
  await eventually(() => setup.query('select 1').catch(() => null));
  await setup.query(TABLES);

  /** Tells whoever waits for a name. */
  async function listening(channel) {
    const client = new pg.Client(at);
    await client.connect();
    const waiting = new Map();
    client.on('notification', ({ payload }) => {
      waiting.get(payload)?.();
      waiting.delete(payload);
    });
    await client.query(`listen ${channel}`);
    return { client, told: (name) => new Promise((resolve) => waiting.set(name, resolve)) };
  }

  /** Takes work, as often as told that there is some and as long as there is. */
  async function handling(channel, takeOne) {
    const hands = pool(HANDLING);
    const client = new pg.Client(at);
    await client.connect();
    let wanted = 0;
    let isOver = false;
    const hand = async () => {
      const own = await hands.connect();
      while (!isOver) {
        if (await takeOne(own)) continue;
        const seen = wanted;
        while (!isOver && seen === wanted) await new Promise((resolve) => setImmediate(resolve));
      }
      own.release();
    };
    client.on('notification', () => {
      wanted += 1;
    });
    await client.query(`listen ${channel}`);
    const at_work = Array.from({ length: HANDLING }, hand);
    return async () => {
      isOver = true;
      await Promise.all(at_work);
      await client.end();
      await hands.end();
    };
  }

  const transaction = async (client, what) => {
    await client.query('begin');
    const value = await what();
    await client.query('commit');
    return value;
  };

  return {
    async end() {
      await setup.end();
      server.kill('SIGINT');
      await new Promise((resolve) => server.once('exit', resolve));
      rmSync(data, { recursive: true, force: true });
    },

    async writer(writers) {
      const own = pool(writers);
      let next = 0;
      const what = JSON.stringify({ what: 'a line of text of some forty bytes' });
      const write = () => {
        next += 1;
        return own.query(RECORD, [`o-${next % 50}`, 'noted', what]);
      };
      return { write, end: () => own.end() };
    },

    async commander(senders) {
      const own = pool(senders);
      const { client, told } = await listening('completed');
      const end = await handling('received', (hand) =>
        transaction(hand, async () => {
          const { rows } = await hand.query(
            `update command set state = 'completed' where number =
             (select number from command where state = 'received'
              order by number limit 1 for update skip locked)
             returning number, stream, args`,
          );
          if (rows.length === 0) return false;
          const [{ number, stream, args }] = rows;
          await hand.query(RECORD, [stream, 'paid', JSON.stringify(args)]);
          await hand.query(
            `insert into orders values ($1, 1)
             on conflict (id) do update set paid = orders.paid + 1`,
            [stream],
          );
          await hand.query(`select pg_notify('completed', $1)`, [String(number)]);
          return true;
        }),
      );
      let next = 0;
      const command = async () => {
        next += 1;
        const { rows } = await own.query(
          `with sent as (insert into command (stream, args, state) values ($1, $2, 'received')
                         returning number)
           select number, nextval('command_number_seq') is not null from sent`,
          [`o-${next % 50}`, '{"sum":1}'],
        );
        const completed = told(String(rows[0].number));
        await own.query(`notify received`);
        await completed;
      };
      return {
        command,
        async end() {
          await end();
          await client.end();
          await own.end();
        },
      };
    },

    async runner(starters) {
      const own = pool(starters);
      const { client, told } = await listening('returned');
      const end = await handling('started', async (hand) => {
        const { rows } = await hand.query(
          `update run set state = 'started' where id =
           (select id from run where state = 'received' limit 1 for update skip locked)
           returning id, steps`,
        );
        if (rows.length === 0) return false;
        const [{ id, steps }] = rows;
        for (let nth = 0; nth < steps; nth += 1) {
          await hand.query('insert into step values ($1, $2, $3)', [id, nth, String(nth)]);
        }
        await transaction(hand, async () => {
          await hand.query(`update run set state = 'returned' where id = $1`, [id]);
          await hand.query(`select pg_notify('returned', $1)`, [id]);
        });
        return true;
      });
      const run = async (steps) => {
        const id = randomUUID();
        const returned = told(id);
        await own.query(
          `with started as (insert into run values ($1, $2, 'received') returning id)
           select pg_notify('started', id) from started`,
          [id, steps],
        );
        await returned;
      };
      return {
        run,
        async end() {
          await end();
          await client.end();
          await own.end();
        },
      };
    },
  };
}
