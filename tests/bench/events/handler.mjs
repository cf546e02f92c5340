// A process that handles the commands and runs of a document: who it is told to by its arguments.

import { open } from 'tidelog/node';
import { WebSocket } from 'ws';
import { shop } from './shop.mjs';

const [document, server] = process.argv.slice(2);
const db = await open(shop, { document, server, webSocket: WebSocket });
await db.sync();

db.handle(
  'order',
  {
    initial: 0,
    evolve: { paid: (sum, { data }) => sum + data.sum },
    commands: { pay: (_, { sum }) => [{ type: 'paid', data: { sum } }] },
  },
  { concurrency: 256 },
);

db.handle(
  'fulfil',
  async (ctx, { steps }) => {
    for (let at = 0; at < steps; at += 1) await ctx.step('step', () => at);
    return steps;
  },
  { concurrency: 256 },
);

process.send('ready');
