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
    const handler = handles && (await handle(document));
    const end = async () => {
      handler?.kill?.();
      await db.close();
    };
    return { db, document, end };
  }

  /** A process that has the document, and handles what is done in it. */
  async function handle(document) {
    const handler = fork(HANDLER, [document, server.ws], { stdio: 'inherit' });
    await new Promise((resolve) => handler.once('message', resolve));
    return handler;
  }

  /** So many events of each of these streams, on the server's disk. */
  async function note(db, count, streams) {
    const noted = streams.flatMap((id) =>
      Array.from({ length: count }, () => db.mutate.note({ id }).confirmed),
    );
    await Promise.all(noted);
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
      await note(db, count, ['o']);
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

    /** A process that has just come handles a command of a stream of so many events, of which it
     * has to know the state: one of these streams each time. */
    async folder(count, streams) {
      const { db, document, end } = await fresh();
      await note(db, count, streams);
      const fold = async (stream) => {
        const handler = await handle(document);
        const begun = performance.now();
        await db.send.order.pay(stream, { sum: 1 }).completed;
        const took = performance.now() - begun;
        handler.kill();
        return took;
      };
      return { fold, end };
    },
  };
}
