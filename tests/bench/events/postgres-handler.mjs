// A process that handles the commands or the runs in tables of PostgreSQL, so many at a time.

import pg from 'pg';
import { at, poolOf, RECORD } from './postgres-tables.mjs';

const [port, what, count] = process.argv.slice(2);

const transaction = async (client, work) => {
  await client.query('begin');
  const value = await work();
  await client.query('commit');
  return value;
};

const handlers = {
  /** Whether there was a command. */
  received: (hand) =>
    transaction(hand, async () => {
      const { rows } = await hand.query(
        `update command set state = 'completed' where number =
         (select number from command where state = 'received'
          order by number limit 1 for update skip locked)
         returning id, stream, args`,
      );
      if (rows.length === 0) return false;
      const [{ id, stream, args }] = rows;
      await hand.query(RECORD, [stream, 'paid', JSON.stringify(args)]);
      await hand.query(
        `insert into orders values ($1, 1)
         on conflict (id) do update set paid = orders.paid + 1`,
        [stream],
      );
      await hand.query(`select pg_notify('completed', $1)`, [id]);
      return true;
    }),

  /** Whether there was a run. */
  started: async (hand) => {
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
  },
};

const takeOne = handlers[what];
const idle = [];
let told = 0;

/** Takes one after the other, and where there is none waits until it is told of one. */
async function work(hand) {
  for (;;) {
    const seen = told;
    const wasAny = await takeOne(hand);
    if (!wasAny && seen === told) await new Promise((resolve) => idle.push(resolve));
  }
}

const client = new pg.Client(at(port));
await client.connect();
client.on('notification', () => {
  told += 1;
  idle.pop()?.();
});
await client.query(`listen ${what}`);
const hands = await poolOf(pg, port, Number(count));
for (let nth = 0; nth < Number(count); nth += 1) void hands.connect().then(work);

process.send('ready');
