// The office, a process of Node: takes orders, and has them paid. Kill it whenever you like: what
// it was at is given to the next one, and is done once.
import { setTimeout as sleep } from 'node:timers/promises';
import { open } from 'tidelog/node';
import WebSocket from 'ws';
import { shop } from './src/shop.js';

const { SERVER = 'ws://127.0.0.1:8787', FOLDER, BANK_TAKES_MS = '1000' } = process.env;

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
    place: ({ send, stream }, { item }) => {
      send.order.pay(stream);
      return [{ type: 'placed', data: { item } }];
    },
    pay: async ({ send, stream, signal, command: { number, attempt } }) => {
      console.log(`payment ${number}, attempt ${attempt}`);
      // Here a bank would be asked, with a key that is the same at each attempt: the number.
      await sleep(Number(BANK_TAKES_MS), undefined, { signal });
      send.order.ship(stream);
      return [{ type: 'paid' }];
    },
  },
});
console.log(`The office works for ${SERVER}.`);
