// A server, a process that handles, and this one, which sends: all on this machine.

import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { open } from 'tidelog/node';
import { WebSocket } from 'ws';
import { prepareServer } from '../../browser/harness/tidelog-server.mjs';
import { shop } from './shop.mjs';

const HANDLER = fileURLToPath(new URL('handler.mjs', import.meta.url));

export const name = 'Tidelog';

export async function begin() {
  const server = await prepareServer();
  await server.start();
  let documents = 0;

  async function fresh({ handles = false } = {}) {
    documents += 1;
    const document = `events-${documents}`;
    const db = await open(shop, { document, server: server.ws, webSocket: WebSocket });
    await db.sync();
    const handler = handles && fork(HANDLER, [document, server.ws], { stdio: 'inherit' });
    if (handler) await new Promise((resolve) => handler.once('message', resolve));
    const end = async () => {
      handler?.kill?.();
      await db.close();
    };
    return { db, document, end };
  }

  return {
    end: () => server.dispose(),

    /** Resolves once the server has the event on its disk. */
    async writer() {
      const { db, end } = await fresh();
      let next = 0;
      const write = async () => {
        next += 1;
        await db.mutate.note({ id: `o-${next % 50}` }).confirmed;
      };
      return { write, end };
    },

    /** Resolves once the command has completed. */
    async commander() {
      const { db, end } = await fresh({ handles: true });
      let next = 0;
      const command = async () => {
        next += 1;
        await db.send.order.pay(`o-${next % 50}`, { sum: 1 }).completed;
      };
      return { command, end };
    },

    /** Resolves once the run has returned. */
    async runner() {
      const { db, end } = await fresh({ handles: true });
      return { run: (steps) => db.start.fulfil({ steps }).completed, end };
    },

    /** Another device that has nothing hears of all that was written. */
    async reader(count) {
      const { db, document, end } = await fresh();
      const receipts = Array.from({ length: count }, () => db.mutate.note({ id: 'o' }));
      await Promise.all(receipts.map(({ confirmed }) => confirmed));
      const read = async () => {
        const other = await open(shop, { document, server: server.ws, webSocket: WebSocket });
        let heard = 0;
        for await (const _ of other.events('order', 'o')) {
          heard += 1;
          if (heard === count) break;
        }
        await other.close();
      };
      return { read, end };
    },
  };
}
