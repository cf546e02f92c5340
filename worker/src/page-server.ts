/**
 * The dedicated worker that owns the store's files and serves requests for their pages.
 *
 * A tab lends it. It loads all that it needs and finds the files, waits in line for the store, and
 * has it until it ends: then the next one needs only to open them and what their log says. A core
 * asks on a port; when that core dies, the next one gets a port to the same page server.
 */

import type { FromPageServer, Prepare, Serve, Unserved } from '../../js/dist/ports.js';
import { findFiles, openFiles } from './files.js';
import { renewScripts } from './renew.js';
import { BUILD, hold } from './shared.js';
import { loadStore, StoreHost, warmUp } from './store-host.js';

declare const self: DedicatedWorkerGlobalScope;

/** Held by the worker that has the store. Shared by all releases, since they share the files. */
const STORE_LOCK = 'tidelog-lend';

/** Why a tab cannot lend what it finds at the address of its own build's script. */
const OTHER_BUILD = 'another release of the app was deployed: load this page anew';

/** Whoever waits for the store for so long waits for another tab to close. */
const WARM_UP_AFTER_MS = 100;

const tell = (message: FromPageServer): void => self.postMessage(message);

/** Lets go of the store's lock, once that is held. */
let letGo = (): void => {};

/** Whether its tab was told to put another one in its place. */
let hasLeft = false;

/** Makes a page server of this worker. */
export function runPageServer(): void {
  const host = new StoreHost(leave);
  self.onmessage = ({ data }: MessageEvent<Prepare | Serve>) => {
    if (data.type === 'serve') host.serve(data.port);
    else {
      prepare(host, data).catch((error) => {
        tell({ type: 'unloaded', reason: `${error}` });
      });
    }
  };
}

async function prepare(host: StoreHost, { build, wasm }: Prepare): Promise<void> {
  // The tab's core could not read what this script says. A cache may have kept it over a
  // deployment, and once that is told the tab ends this worker.
  if (build !== BUILD) {
    await renewScripts();
    throw new Error(OTHER_BUILD);
  }
  const finding = findFiles(false).catch(() => undefined);
  await loadStore(wasm);
  tell({ type: 'loaded' });
  const warmingUp = setTimeout(warmUp, WARM_UP_AFTER_MS);
  letGo = await hold(STORE_LOCK);
  clearTimeout(warmingUp);
  tell({ type: 'serves' });
  // Somebody wants the files removed: they are free once another worker is in place of this one.
  new BroadcastChannel('tidelog-destroy').onmessage = () => {
    host.lost();
    host.close();
    leave();
  };
  // The tab of this one is blocked, or would have lent it: another one is to be in its place.
  new BroadcastChannel('tidelog-missing').onmessage = ({ data }: MessageEvent<string>) => {
    if (host.isUsedBy(data)) return;
    host.close();
    leave();
  };
  await host.start(openFiles(finding, () => host.lost()));
}

/**
 * Another worker is to take the place of this one, whose files are closed. The tab would end this
 * one, but its main thread may be blocked; and while that is so, Firefox ends no worker at all.
 */
function leave(why?: Unserved): void {
  if (hasLeft) return;
  hasLeft = true;
  tell({ type: 'broke', why });
  letGo();
  self.close();
}
