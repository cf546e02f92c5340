// A way to a server that a test can cut, stall, and stall in one direction.

import { connect, createServer } from 'node:net';

/** What may become of the way; both directions go through where it is `open`. */
export const TROUBLES = ['cut', 'stalled', 'stalled up', 'stalled down'];

/** Says in a handshake that it comes from a page of this origin. */
const comingFrom = (handshake, origin) =>
  Buffer.from(
    handshake.toString('latin1').replace(/^Origin: .*$/im, `Origin: ${origin}`),
    'latin1',
  );

/**
 * Starts a proxy before the server at `ws://HOST:PORT`, which takes all pages for those of
 * `origin`, if that is given.
 */
export async function startProxy(ws, { origin } = {}) {
  const { hostname, port } = new URL(ws);
  const pairs = new Set();
  let state = 'open';

  /** What was sent while the way was stalled waits in the kernel, as it does in a network. */
  function apply({ near, far }) {
    if (state === 'cut') {
      near.destroy();
      far.destroy();
      return;
    }
    const flows = (socket, direction) =>
      state === 'open' || (state !== 'stalled' && state !== `stalled ${direction}`)
        ? socket.resume()
        : socket.pause();
    flows(near, 'up');
    flows(far, 'down');
  }

  const server = createServer((near) => {
    const far = connect(Number(port), hostname);
    const pair = { near, far };
    pairs.add(pair);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      from.setNoDelay();
      let isFirst = from === near;
      from.on('data', (bytes) => {
        to.write(isFirst && origin ? comingFrom(bytes, origin) : bytes);
        isFirst = false;
      });
      from.on('error', () => {});
      from.on('close', () => {
        to.destroy();
        pairs.delete(pair);
      });
    }
    apply(pair);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    ws: `ws://127.0.0.1:${server.address().port}`,
    become(next) {
      state = next;
      for (const pair of pairs) apply(pair);
    },
    async close() {
      for (const { near, far } of pairs) {
        near.destroy();
        far.destroy();
      }
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
