// A process that has nothing, and hears of all events of a stream: says how long that took from the
// call of `open`, in milliseconds.

import { open } from 'tidelog/node';
import { WebSocket } from 'ws';
import { shop } from './shop.mjs';

const [document, server, stream, count] = process.argv.slice(2);
const begun = performance.now();
const db = await open(shop, { document, server, webSocket: WebSocket });
let left = Number(count);
for await (const _ of db.events('order', stream)) {
  left -= 1;
  if (left === 0) break;
}
process.send(performance.now() - begun);
