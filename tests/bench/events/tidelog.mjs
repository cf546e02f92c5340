// A server, a process that handles, and this one, which sends: all on this machine.

import { open } from 'tidelog/node';
import { WebSocket } from 'ws';
import { prepareServer } from '../../browser/harness/tidelog-server.mjs';
import { start } from './process.mjs';
import { shop } from './shop.mjs';

export const name = 'Tidelog';

export async function begin() {
  const server = await prepareServer();
  await server.start();
  let documents = 0;

  /** Of what is handled in it so many are at work at a time, by another process. */
  async function fresh({ handled = 0 } = {}) {
    documents += 1;
    const document = `events-${documents}`;
    const db = await open(shop, { document, server: server.ws, webSocket: WebSocket });
    await db.sync();
    const handler = handled > 0 && (await handle(document, handled));
    const end = async () => {
      if (handler) await handler.end();
      await db.close();
    };
    return { db, document, end };
  }

  /** A process that has the document, and handles what is done in it, so many at a time. */
  const handle = (document, handled) => start('handler.mjs', document, server.ws, handled);

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
    async commander(_, handled) {
      const { db, end } = await fresh({ handled });
      let next = 0;
      const command = async () => {
        next += 1;
        await db.send.order.pay(`o-${next % 50}`, { sum: 1 }).completed;
      };
      return { command, end };
    },

    /** Resolves once the run has returned. */
    async runner(_, handled) {
      const { db, end } = await fresh({ handled });
      return { run: (steps) => db.start.fulfil({ steps }).completed, end };
    },

    /** A process that has nothing hears of all that was written: gives its milliseconds. */
    async reader(count) {
      const { db, document, end } = await fresh();
      await note(db, count, ['o']);
      const read = async () => {
        const reader = await start('reader.mjs', document, server.ws, 'o', count);
        await reader.end();
        return reader.said;
      };
      return { read, end };
    },

    /** A process that has just come handles a command of a stream of so many events, of which it
     * has to know the state: one of these streams each time. */
    async folder(count, streams) {
      const { db, document, end } = await fresh();
      await note(db, count, streams);
      const fold = async (stream) => {
        const handler = await handle(document, 1);
        const begun = performance.now();
        await db.send.order.pay(stream, { sum: 1 }).completed;
        const took = performance.now() - begun;
        await handler.end();
        return took;
      };
      return { fold, end };
    },
  };
}
