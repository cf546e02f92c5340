import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { expect, test } from 'vitest';
import { countingWay } from './counter.mjs';

test('a way counts what goes up and down behind the handshake', async () => {
  const server = createServer((socket) => {
    socket.once('data', () => {
      socket.write('HTTP/1.1 101 Go on\r\n\r\n12345');
      socket.on('data', (data) => socket.write(Buffer.concat([data, data])));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const way = await countingWay((server.address() as AddressInfo).port);
  const client = connect(Number(new URL(way.ws).port), '127.0.0.1');
  let heard = '';
  client.on('data', (data) => {
    heard += data;
  });
  const hears = async (text: string) => {
    while (!heard.endsWith(text)) await once(client, 'data');
  };
  client.write('GET / HTTP/1.1\r\n\r\n');
  await hears('12345');
  expect(way.count()).toEqual({ up: 0, down: 5 });
  client.write('abc');
  await hears('abcabc');
  expect(way.count()).toEqual({ up: 3, down: 11 });
  client.destroy();
  way.close();
  server.close();
});
