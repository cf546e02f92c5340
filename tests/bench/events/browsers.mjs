// From browser to browser: a command that is sent in one and handled in the other, until the events
// that it has come to are heard of where it was sent; beside a row that is written in one and shown
// by a live query in the other, which answers with another one.

import { Device } from '../../browser/harness/device.mjs';
import { startSite } from '../../browser/harness/site.mjs';
import { startServer } from '../../browser/harness/tidelog-server.mjs';
import { median } from '../table.mjs';

const CALLS = 300;

/** Of the first ones a browser compiles what they run. */
const WARM_CALLS = 50;

async function openIn([server, who]) {
  const { command, stream } = await import('tidelog/events');
  const { doctype, mutation, open } = globalThis.tidelog;
  const way = doctype({
    name: 'way',
    migrations: ['create table ball (id text primary key, hits integer not null) strict'],
    mutations: {
      hit: mutation(
        { id: 'text' },
        `insert into ball values (:id, 1) on conflict (id) do update set hits = hits + 1`,
      ),
    },
    streams: {
      order: stream({
        events: { paid: { sum: 'integer' } },
        project: { paid: `select 1` },
        commands: { pay: command({ sum: 'integer' }) },
      }),
    },
  });
  const db = await open(way, { document: 'way', server });
  await db.sync();
  // One hits when the count is even, the other when it is odd.
  let heard = () => {};
  db.live('select coalesce(max(hits), 0) as hits from ball').subscribe(([{ hits }]) => {
    if (who === 'far' && hits % 2 === 1) db.mutate.hit({ id: 'ball' });
    if (who === 'near') heard(hits);
  });
  if (who === 'far') {
    db.handle('order', {
      initial: 0,
      evolve: { paid: (sum, { data }) => sum + data.sum },
      commands: { pay: (_, { sum }) => [{ type: 'paid', data: { sum } }] },
    });
  }
  let hits = 0;
  globalThis.way = {
    /** There and back again. */
    async play() {
      hits += 2;
      const back = new Promise((resolve) => {
        heard = (count) => count === hits && resolve();
      });
      await db.mutate.hit({ id: 'ball' });
      await back;
    },
    pay: (nth) => db.send.order.pay(`o-${nth % 50}`, { sum: 1 }).completed,
  };
}

async function takes([what, calls]) {
  const times = [];
  for (let nth = 0; nth < calls; nth += 1) {
    const begun = performance.now();
    await globalThis.way[what](nth);
    times.push(performance.now() - begun);
  }
  return times;
}

/** The medians of both, in milliseconds. */
export async function fromBrowserToBrowser() {
  const [site, server] = [await startSite(), await startServer()];
  const devices = [];
  try {
    const pages = {};
    for (const who of ['near', 'far']) {
      const device = await new Device('Chromium').launch();
      devices.push(device);
      pages[who] = await device.open(site.url('/app.html'));
      await pages[who].waitForFunction(() => globalThis.ready === true);
      await pages[who].evaluate(openIn, [server.ws, who]);
    }
    const measure = async (what) => {
      await pages.near.evaluate(takes, [what, WARM_CALLS]);
      return median(await pages.near.evaluate(takes, [what, CALLS]));
    };
    const [row, command] = [(await measure('play')) / 2, await measure('pay')];
    return { row, command };
  } finally {
    for (const device of devices) await device.dispose();
    await server.dispose();
    await site.close();
  }
}
