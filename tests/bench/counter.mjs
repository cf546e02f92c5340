// A way to the server that counts what travels on it: all bytes of the socket but its handshake.

import { connect, createServer } from 'node:net';

const END_OF_HEAD = '\r\n\r\n';

/** Opens one. `count()` says how many bytes have gone up and down. */
export async function countingWay(serverPort) {
  const sockets = new Set();
  const bytes = { up: 0, down: 0 };
  const listener = createServer((client) => {
    const server = connect(serverPort, '127.0.0.1');
    for (const [from, to, way] of [
      [client, server, 'up'],
      [server, client, 'down'],
    ]) {
      sockets.add(from);
      from.setNoDelay(true);
      let hasHead = false;
      from.on('data', (data) => {
        const end = hasHead ? 0 : data.indexOf(END_OF_HEAD) + END_OF_HEAD.length;
        hasHead = true;
        bytes[way] += data.length - end;
        to.write(data);
      });
      from.on('error', () => to.destroy());
      from.on('close', () => to.destroy());
    }
  });
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
  return {
    ws: `ws://127.0.0.1:${listener.address().port}`,
    count: () => ({ ...bytes }),
    close() {
      for (const socket of sockets) socket.destroy();
      listener.close();
    },
  };
}
