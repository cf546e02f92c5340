// The same with tables of PostgreSQL, as they are usually made for it: an outbox whose commands are
// taken with `skip locked`, and a row for each step of a run. Every transaction is on the disk
// before it is answered, and whoever waits is woken by `notify`. A process of its own handles.

import { execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chownSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { freePort } from '../../browser/harness/tidelog-server.mjs';
import { eventually } from '../../browser/harness/time.mjs';
import { at, EMPTY, poolOf, RECORD, TABLES } from './postgres-tables.mjs';
import { start } from './process.mjs';

export const name = 'PostgreSQL';

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
  const set = ['max_connections=400', 'listen_addresses=127.0.0.1', `unix_socket_directories=`];
  const args = ['-D', data, '-p', port, ...set.flatMap((it) => ['-c', it])];
  const server = spawn(path.join(bin, 'postgres'), args, { ...who, cwd: data, stdio: 'ignore' });
  const setup = new pg.Pool({ ...at(port), max: 1 });
  await eventually(() => setup.query('select 1').catch(() => null));
  await setup.query(TABLES);

  /** Tells whoever waits for a name. */
  async function listening(channel) {
    const client = new pg.Client(at(port));
    await client.connect();
    const waiting = new Map();
    client.on('notification', ({ payload }) => {
      waiting.get(payload)?.();
      waiting.delete(payload);
    });
    await client.query(`listen ${channel}`);
    return { client, told: (name) => new Promise((resolve) => waiting.set(name, resolve)) };
  }

  /** So many who ask, in tables that are empty, and a process that handles what they ask for. */
  async function asking(callers, { asks, answers, handled }) {
    await setup.query(EMPTY);
    const own = await poolOf(pg, port, callers);
    const { client, told } = await listening(answers);
    const handler = await start('postgres-handler.mjs', port, asks, handled);
    const end = async () => {
      await handler.end();
      await client.end();
      await own.end();
    };
    return { own, told, end };
  }

  return {
    async end() {
      await setup.end();
      // It waits for connections that are still being closed, and breaks off none.
      server.kill('SIGTERM');
      await new Promise((resolve) => server.once('exit', resolve));
      rmSync(data, { recursive: true, force: true });
    },

    async writer(writers) {
      await setup.query(EMPTY);
      const own = await poolOf(pg, port, writers);
      let next = 0;
      const what = JSON.stringify({ what: 'a line of text of some forty bytes' });
      const write = () => {
        next += 1;
        return own.query(RECORD, [`o-${next % 50}`, 'noted', what]);
      };
      return { write, end: () => own.end() };
    },

    async commander(senders, handled) {
      const of = { asks: 'received', answers: 'completed', handled };
      const { own, told, end } = await asking(senders, of);
      let next = 0;
      const command = async () => {
        next += 1;
        const id = randomUUID();
        const completed = told(id);
        await own.query(
          `with sent as (insert into command (id, stream, args, state)
                         values ($1, $2, $3, 'received') returning id)
           select pg_notify('received', '') from sent`,
          [id, `o-${next % 50}`, '{"sum":1}'],
        );
        await completed;
      };
      return { command, end };
    },

    async runner(starters, handled) {
      const of = { asks: 'started', answers: 'returned', handled };
      const { own, told, end } = await asking(starters, of);
      const run = async (steps) => {
        const id = randomUUID();
        const returned = told(id);
        await own.query(
          `with started as (insert into run values ($1, $2, 'received') returning id)
           select pg_notify('started', '') from started`,
          [id, steps],
        );
        await returned;
      };
      return { run, end };
    },
  };
}
