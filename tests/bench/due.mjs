// How late runs go on that sleep in closed documents, by one worker of Node:
//
//   npm run build && node tests/bench/due.mjs --documents 10000 --spread 100
//
// Each document has one run, which sleeps until a time of its own; `spread` is between the first and
// the last of them, in seconds. Late is the time between that and the next step of the run.

import { fork } from 'node:child_process';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { destroy, open, work } from 'tidelog/node';
import { WebSocket } from 'ws';
import { prepareServer } from '../browser/harness/tidelog-server.mjs';
import { sleep } from '../browser/harness/time.mjs';
import { works } from '../pages/doctypes.mjs';

const OPEN_AT_ONCE = 32;
/** Documents by which the rate is estimated at which all of them are made. */
const TRIED = 100;

const nameOf = (nth) => `shops/${nth}`;

/** Makes documents, each with a run that has gone to sleep. */
async function makeDocuments(server, from, to, atOf) {
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
      await db.start.steps({ count: atOf(nth) }, { id: 'run' }).confirmed;
      const sleeping = `select 1 from tidelog_records where kind = 'sleep'`;
      while ((await db.query(sleeping)).length === 0) await sleep(5);
      await handling.close();
      await db.close();
      await destroy(document, { force: true });
    }
  };
  await Promise.all(Array.from({ length: OPEN_AT_ONCE }, makeSome));
}

/** The worker, in a process of its own. */
function workFor(server, documentsMax) {
  const options = { server, webSocket: WebSocket, documents: 'shops/*', documentsMax };
  const steps = async (ctx, { count: at }) => {
    const now = await ctx.step('begin', () => Date.now());
    await ctx.sleep(Math.max(1, at - now));
    await ctx.step('wake', () => process.send(Date.now() - at));
  };
  work(works, options, { steps });
}

const parts = (sorted) => {
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: sorted.at(-1) };
};

async function measure({ documents, spread, open: documentsMax }) {
  const server = await prepareServer();
  await server.start();
  try {
    const began = Date.now();
    const never = () => began + 24 * 3_600_000;
    // What is made for the estimate sleeps for long.
    await makeDocuments(server.ws, documents, documents + TRIED, never);
    const eachMs = (Date.now() - began) / TRIED;
    const first = Date.now() + Math.ceil(eachMs * documents * 1.3) + 20_000;
    await makeDocuments(
      server.ws,
      0,
      documents,
      (nth) => first + Math.floor((nth * spread * 1_000) / documents),
    );
    const spareMs = first - Date.now();
    if (spareMs < 5_000) throw new Error(`to make the documents took too long: ${spareMs} ms left`);
    const worker = fork(fileURLToPath(import.meta.url), ['--work', server.ws], {
      env: { ...process.env, DOCUMENTS_MAX: String(documentsMax) },
    });
    const late = [];
    worker.on('message', (ms) => late.push(ms));
    const deadline = first + spread * 1_000 + 120_000;
    while (late.length < documents && Date.now() < deadline) await sleep(200);
    worker.kill();
    late.sort((one, other) => one - other);
    const { length: woken } = late;
    const rate = documents / spread;
    console.log(JSON.stringify({ documents, spread, rate, documentsMax, woken, ...parts(late) }));
    console.log(`${cpus().length} cores, ${eachMs.toFixed(1)} ms to make each document`);
  } finally {
    await server.dispose();
  }
}

const { values } = parseArgs({
  options: {
    documents: { type: 'string', default: '10000' },
    spread: { type: 'string', default: '100' },
    open: { type: 'string', default: '256' },
    work: { type: 'string' },
  },
});
if (values.work) {
  workFor(values.work, Number(process.env.DOCUMENTS_MAX));
} else {
  const { documents, spread, open } = values;
  await measure({ documents: +documents, spread: +spread, open: +open });
  process.exit();
}
