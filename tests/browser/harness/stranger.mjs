// A WebSocket server that speaks, but not our version of the protocol.

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

/** RFC 6455, 1.3: what a handshake's key is answered with. */
const ACCEPT_SALT = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const BINARY_AND_FINAL = 0x82;

/** Starts a server that answers every first message by one whose version is `version`. */
export async function startStranger({ version = 999 } = {}) {
  const server = createServer((_, response) => {
    response.statusCode = 404;
    response.end();
  });
  let connections = 0;
  server.on('upgrade', (request, socket) => {
    connections += 1;
    const accept = createHash('sha1')
      .update(request.headers['sec-websocket-key'] + ACCEPT_SALT)
      .digest('base64');
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        `Sec-WebSocket-Accept: ${accept}\r\n\r\n`,
    );
    const body = Buffer.alloc(16, 0x2a);
    body.writeUInt16LE(version);
    socket.once('data', () => {
      socket.write(Buffer.concat([Buffer.from([BINARY_AND_FINAL, body.length]), body]));
    });
    socket.on('error', () => {});
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    ws: `ws://127.0.0.1:${server.address().port}`,
    connections: () => connections,
    async close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
