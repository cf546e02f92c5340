/** When code has come to rest: it has done all that waits for nothing but itself. */

import type { TabHost } from './tab-host.js';

type SetImmediate = (next: () => void) => unknown;

let turns: { readonly waiting: (() => void)[]; readonly port: MessagePort } | undefined;

/**
 * Calls `next` in a later turn of the event loop, behind all promises that were settled. Timers
 * would do as well, but browsers let them take milliseconds, and a second in the background.
 */
function inLaterTurn(next: () => void): void {
  const { setImmediate } = globalThis as { setImmediate?: SetImmediate };
  if (setImmediate) {
    setImmediate(next);
    return;
  }
  if (!turns) {
    const { port1, port2 } = new MessageChannel();
    const waiting: (() => void)[] = [];
    port1.onmessage = () => waiting.shift()?.();
    turns = { waiting, port: port2 };
  }
  turns.waiting.push(next);
  turns.port.postMessage(null);
}

/** Resolves once all code has come to rest that waits for nothing else. */
export function rest({ laterTurn = inLaterTurn }: TabHost): Promise<void> {
  return new Promise((resolve) => laterTurn(resolve));
}
