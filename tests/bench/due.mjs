// How late runs go on that sleep in closed documents, by workers of Node:
//
//   npm run build && node tests/bench/due.mjs --documents 10000 --spread 0
//
// Each document has as many runs as `runs` says. Those of one document sleep until one time, and
// `spread` is between the first time and the last, in seconds: with 0 all are due at one moment.
// Late is how long after that time a run's next step is called. By then the server has found that
// the document is due, has told a worker, and that one has opened it and was given the run.

import { fork } from 'node:child_process';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { destroy, open, work } from 'tidelog/node';
import { WebSocket } from 'ws';
import { prepareServer } from '../browser/harness/tidelog-server.mjs';
import { sleep } from '../browser/harness/time.mjs';
import { works } from '../pages/doctypes.mjs';
import { percentile } from './table.mjs';

const OPEN_AT_ONCE = 32;
/** Runs by which the rate is estimated at which all of them are made. */
const TRIED_RUNS = 200;

const nameOf = (nth) => `shops/${nth}`;

/** Makes documents, each with runs that have gone to sleep. */
async function makeDocuments(server, [from, to], runs, atOf) {
  let next = from;
  const makeSome = async () => {
    while (next < to) {
      const nth = next++;
      const document = nameOf(nth);
      const db = await open(works, { document, server, webSocket: WebSocket });
      const handling = db.handle('steps', async (ctx, { count: at }) => {
        const now = await ctx.step('begin', () => Date.now());
        await ctx.sleep(Math.max(1, at - now));
      });
      const start = (_, run) =>
        db.start.steps({ count: atOf(nth) }, { id: `run ${run}` }).confirmed;
      await Promise.all(Array.from({ length: runs }, start));
      const sleeping = `select count(*) as count from tidelog_records where kind = 'sleep'`;
      while ((await db.query(sleeping))[0].count < runs) await sleep(5);
      await handling.close();
      await db.close();
      await destroy(document, { force: true });
    }
  };
  await Promise.all(Array.from({ length: OPEN_AT_ONCE }, makeSome));
}

/** A worker, in a process of its own. */
function workFor(server, { documentsMax, concurrency }) {
  const options = { server, webSocket: WebSocket, documents: 'shops/*', documentsMax, concurrency };
  const steps = async (ctx, { count: at }) => {
    const now = await ctx.step('begin', () => Date.now());
    await ctx.sleep(Math.max(1, at - now));
    await ctx.step('wake', () => process.send(Date.now() - at));
  };
  work(works, options, { steps });
}

async function measure({ documents, runs, spread, workers, ...options }) {
  const server = await prepareServer();
  await server.start();
  try {
    const began = Date.now();
    const tried = Math.ceil(TRIED_RUNS / runs);
    // What is made for the estimate sleeps for long.
    const never = began + 24 * 3_600_000;
    await makeDocuments(server.ws, [documents, documents + tried], runs, () => never);
    const eachMs = (Date.now() - began) / tried;
    const first = Date.now() + Math.ceil(eachMs * documents * 1.3) + 20_000;
    const atOf = (nth) => first + Math.floor((nth * spread * 1_000) / documents);
    await makeDocuments(server.ws, [0, documents], runs, atOf);
    const spareMs = first - Date.now();
    if (spareMs < 5_000) throw new Error(`to make the documents took too long: ${spareMs} ms left`);
    const late = [];
    const env = { ...process.env, WORK_OPTIONS: JSON.stringify(options) };
    const processes = Array.from({ length: workers }, () =>
      fork(fileURLToPath(import.meta.url), ['--work', server.ws], { env }),
    );
    for (const it of processes) it.on('message', (ms) => late.push(ms));
    const all = documents * runs;
    const deadline = first + spread * 1_000 + 300_000;
    while (late.length < all && Date.now() < deadline) await sleep(200);
    for (const it of processes) it.kill();
    const [p50, p90, p99] = [50, 90, 99].map((percent) => percentile(late, percent));
    const asked = { documents, runs, spread, workers, ...options };
    const withinSecond = late.filter((ms) => ms <= 1_000).length;
    const woken = { woken: late.length, withinSecond, p50, p90, p99, max: Math.max(...late) };
    console.log(JSON.stringify({ ...asked, ...woken }));
    console.log(`${cpus().length} cores, ${eachMs.toFixed(1)} ms to make each document`);
  } finally {
    await server.dispose();
  }
}

const { values } = parseArgs({
  options: {
    documents: { type: 'string', default: '10000' },
    runs: { type: 'string', default: '1' },
    spread: { type: 'string', default: '100' },
    workers: { type: 'string', default: '1' },
    open: { type: 'string', default: '256' },
    concurrency: { type: 'string', default: '16' },
    work: { type: 'string' },
  },
});
if (values.work) {
  workFor(values.work, JSON.parse(process.env.WORK_OPTIONS));
} else {
  const { documents, runs, spread, workers, open, concurrency } = values;
  await measure({
    documents: +documents,
    runs: +runs,
    spread: +spread,
    workers: +workers,
    documentsMax: +open,
    concurrency: +concurrency,
  });
  process.exit();
}
