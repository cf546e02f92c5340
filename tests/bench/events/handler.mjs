// A process that handles the commands and runs of a document, so many at a time: whose, its
// arguments say.

import { open } from 'tidelog/node';
import { WebSocket } from 'ws';
import { shop } from './shop.mjs';

const [document, server, handled] = process.argv.slice(2);
const concurrency = Number(handled);
const db = await open(shop, { document, server, webSocket: WebSocket });
await db.sync();

db.handle(
  'order',
  {
    initial: 0,
    evolve: { paid: (sum, { data }) => sum + data.sum },
    commands: { pay: (_, { sum }) => [{ type: 'paid', data: { sum } }] },
  },
  { concurrency },
);

db.handle(
  'fulfil',
  async (ctx, { steps }) => {
    for (let at = 0; at < steps; at += 1) await ctx.step('step', () => at);
    return steps;
  },
  { concurrency },
);

process.send('ready');
