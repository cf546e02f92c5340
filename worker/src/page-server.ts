/**
 * The dedicated worker that owns the store's files and serves requests for their pages.
 *
 * It is lent by a tab. A core asks on a port; when that core dies, the next one gets a port to the
 * same page server.
 */

import type { Again, Serve } from '../../js/dist/ports.js';
import { openFiles } from './files.js';
import { StoreHost } from './store-host.js';

declare const self: DedicatedWorkerGlobalScope;

/** Makes a page server of this worker. */
export function runPageServer(): void {
  const again = (): void => self.postMessage({ type: 'again' } satisfies Again);
  const host = new StoreHost(again);
  // Somebody wants the files removed: they are free once another worker is in place of this one.
  new BroadcastChannel('tidelog-destroy').onmessage = () => {
    host.lost();
    again();
  };
  let started = false;
  self.onmessage = ({ data: { port, wasm } }: MessageEvent<Serve>) => {
    host.serve(port);
    if (started) return;
    started = true;
    void host.start(
      openFiles(() => host.lost()),
      wasm,
    );
  };
}
