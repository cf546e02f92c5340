// The office, a process of Node: takes orders, and sees to each of them until it is shipped. Kill
// it whenever you like: what it was at is given to the next one, and is done once.
import { setTimeout as sleep } from 'node:timers/promises';
import { open } from 'tidelog/node';
import WebSocket from 'ws';
import { shop } from './src/shop.js';

const { SERVER = 'ws://127.0.0.1:8787', FOLDER } = process.env;
const { BANK_TAKES_MS = '1000', CARRIER_TAKES_MS = '1000' } = process.env;

const db = await open(shop, {
  document: 'orders',
  server: SERVER,
  webSocket: WebSocket,
  ...(FOLDER && { folder: FOLDER }),
});
db.handle('order', {
  initial: 'sent',
  evolve: { placed: () => 'placed', paid: () => 'paid' },
  commands: {
    place: ({ start, stream }, { item }) => {
      start.fulfil({ order: stream }, { id: stream });
      return [{ type: 'placed', data: { item } }];
    },
    pay: async ({ signal, command: { number, attempt } }) => {
      console.log(`payment ${number}, attempt ${attempt}`);
      // Here a bank would be asked, with a key that is the same at each attempt: the number.
      await sleep(Number(BANK_TAKES_MS), undefined, { signal });
      return [{ type: 'paid' }];
    },
  },
});
// Whichever office has it: what was done is not done again.
db.handle('fulfil', async (ctx, { order }) => {
  await ctx.send.order.pay(order);
  const label = await ctx.request('label', async ({ key, signal }) => {
    console.log(`label ${key}`);
    // Here a carrier would be asked, who knows the key if it was asked before.
    await sleep(Number(CARRIER_TAKES_MS), undefined, { signal });
    return `for ${order}`;
  });
  ctx.send.order.ship(order, { label });
  const shipped = await ctx.waitFor('order', order, 'shipped', { timeout: '7d' });
  if (!shipped) ctx.fail('nobody has shipped it');
});
console.log(`The office works for ${SERVER}.`);
