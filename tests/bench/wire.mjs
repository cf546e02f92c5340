// How many bytes travel for a mutation of one row: up from who issued it, down to who follows, and
// down to who issued it and had predicted it, counted on the sockets of two clients in Node.
//
// Rows have texts as keys, in a table of ten thousand; they are added, changed and removed one by
// one, each once the one before is confirmed. An entry without pages takes as much for a wide row
// as for a small one: so those whose prediction held are known by that.

import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { WebSocket } from 'ws';
import { startServer } from '../browser/harness/tidelog-server.mjs';
import { countingWay } from './counter.mjs';
import { MUTATIONS, schema } from './site/sql.mjs';
import { printColumns } from './table.mjs';

const ROWS = 10_000;

/** Characters in a wide row, which nothing makes shorter. */
const WIDE = 2_000;

/** What is counted, each as bytes for one mutation. */
export const WAYS = ['wire up', 'wire down to a follower', 'wire down to the origin'];

/** That of the origin, for wide rows. */
export const WIDE_WAY = 'wire down to the origin, wide rows';

const keyOf = (number) =>
  `note-${(Math.imul(number, 0x9e3779b1) >>> 0).toString(36).padStart(7, '0')}`;

function wideText(seed) {
  let state = seed;
  const letter = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return String.fromCharCode(33 + ((state >>> 24) % 90));
  };
  return Array.from({ length: WIDE }, letter).join('');
}

/** A device that counts what travels to the server and back. */
async function openDevice(server, counted) {
  const { doctype, mutation, open } = await import('tidelog/node');
  const { insert, update, remove, insertMany } = MUTATIONS;
  const rows = doctype({
    name: 'bench-text',
    migrations: [schema(true)],
    mutations: {
      insert: mutation({ id: 'text', title: 'text' }, insert),
      update: mutation({ id: 'text', title: 'text' }, update),
      remove: mutation({ id: 'text' }, remove),
      insertMany: mutation({ rows: 'json' }, insertMany),
    },
  });
  const way = await countingWay(Number(new URL(server.ws).port));
  const folder = mkdtempSync(path.join(os.tmpdir(), 'tidelog-bench-'));
  const options = { document: 'rows', server: way.ws, webSocket: WebSocket, folder };
  const db = await open(rows, options);
  await db.sync();
  const end = async () => {
    await db.close();
    way.close();
    rmSync(folder, { recursive: true, force: true });
  };
  counted.push(way);
  return { db, end };
}

/** Counts, prints and gives rows for `bench.json`. */
export async function benchWire(quick) {
  const calls = quick ? 100 : 1_000;
  const server = await startServer();
  const ways = [];
  const origin = await openDevice(server, ways);
  const follower = await openDevice(server, ways);
  const settle = async () => {
    await origin.db.sync();
    await follower.db.sync();
  };
  const counted = async (calls) => {
    await settle();
    const [before, beforeOf] = ways.map((way) => way.count());
    for (const call of calls) await call().confirmed;
    await settle();
    const [after, afterOf] = ways.map((way) => way.count());
    const bytes = [after.up - before.up, afterOf.down - beforeOf.down, after.down - before.down];
    return bytes.map((all) => all / calls.length);
  };
  const { mutate } = origin.db;
  const numbers = Array.from({ length: calls }, (_, nth) => ROWS + 1 + nth);
  try {
    const rows = Array.from({ length: ROWS }, (_, nth) => [keyOf(nth + 1), `item ${nth + 1}`]);
    await mutate.insertMany({ rows }).confirmed;
    const insert = (title) => (number) => () =>
      mutate.insert({ id: keyOf(number), title: title(number) });
    const remove = (number) => () => mutate.remove({ id: keyOf(number) });
    const update = (number) => () =>
      mutate.update({ id: keyOf(number), title: `changed ${number}` });
    const inserts = await counted(numbers.map(insert((number) => `item ${number}`)));
    const updates = await counted(numbers.map(update));
    const removes = await counted(numbers.map(remove));
    const wide = await counted(numbers.map(insert(wideText)));
    return told({ inserts, updates, removes }, wide);
  } finally {
    await origin.end();
    await follower.end();
    await server.dispose();
  }
}

function told(kinds, wide) {
  const each = Object.values(kinds);
  const means = WAYS.map(
    (_, nth) => each.reduce((sum, bytes) => sum + bytes[nth], 0) / each.length,
  );
  const shown = (bytes) => bytes.map((all) => all.toFixed(0));
  console.log('\nbytes that travel for one row with a text as its key, in a table of ten thousand');
  printColumns([
    ['', ...WAYS],
    ...Object.entries(kinds).map(([name, bytes]) => [`  ${name}`, ...shown(bytes)]),
    ['  in the mean', ...shown(means)],
    [`  inserts of ${WIDE} characters`, ...shown(wide)],
  ]);
  const [, , toOrigin] = kinds.inserts;
  const row = (measure, unit, median) => ({ measure, system: 'tidelog', unit, median });
  return [
    ...WAYS.map((measure, nth) => row(measure, 'bytes', means[nth])),
    row(WIDE_WAY, 'of small ones', wide[2] / toOrigin),
  ];
}
