/**
 * The dedicated worker that owns the store's files and serves requests for their pages.
 *
 * It is lent by a tab, or started by the core itself. A core asks on a port (or, where it started
 * us, directly); when that core dies, the next one gets a port to the same page server.
 */

import type { Again, Bytes, Ready, Serve, TabPort, Unserved } from '../../js/dist/ports.js';
import * as store from '../wasm/page_server.js';
import { openFiles, type StoreFiles } from './files.js';
import { compile, transferOf } from './shared.js';

declare const self: DedicatedWorkerGlobalScope;

/** Between two looks at whether the files still exist. */
const LOOK_MS = 10_000;

/** The ways to the owners that we serve, by number; the last is the living core's. */
const owners: (MessagePort | DedicatedWorkerGlobalScope)[] = [];
/** Ways to the tabs of the living core. */
const tabs = new Map<number, MessagePort>();
let files: StoreFiles | undefined;
let started = false;
/** Whether the store is open. */
let works = false;
/** What owners are told first. */
let state: Ready | Unserved | undefined;

/** Lets other messages in between the slices of large requests. */
const { port1: slices, port2: nextSlice } = new MessageChannel();
slices.onmessage = () => work(store.proceed);

self.onmessage = ({ data }: MessageEvent<Serve | TabPort | Bytes>) => {
  if ('type' in data && data.type === 'serve') serve(data);
  else receive(0, data);
};

function serve({ port, wasm }: Serve): void {
  tabs.clear();
  const owner = owners.push(port ?? self) - 1;
  if (port) port.onmessage = ({ data }: MessageEvent<TabPort | Bytes>) => receive(owner, data);
  if (!started) void start(wasm);
  started = true;
  if (state) owners[owner].postMessage(state);
}

async function start(wasm: string | undefined): Promise<void> {
  try {
    const url = wasm ?? new URL('../wasm/page_server_bg.wasm', import.meta.url);
    const [opened, module] = await Promise.all([openFiles(), compile(url)]);
    files = opened;
    store.initSync({ module });
  } catch (error) {
    fail('unavailable', String(error));
    return;
  }
  works = store.open(...files.handles, {
    reply: (owner, replies) => owners[owner].postMessage(replies, transferOf(replies)),
    tell(owner, tab, messages) {
      // Another core counts its tabs anew.
      if (owner === owners.length - 1) tabs.get(tab)?.postMessage(messages);
    },
    failed: (isNewerFormat, reason) => fail(isNewerFormat ? 'newer-format' : 'damaged', reason),
  });
  if (!works) return;
  tell({ type: 'ready', settledAt: files.settledAt });
  setInterval(look, LOOK_MS);
}

/** Requests come only after `ready`, and those that come after an end have no answer. */
function receive(owner: number, message: TabPort | Bytes): void {
  if (message instanceof Uint8Array) work(() => store.serve(owner, message));
  else if (message.port) tabs.set(message.tab, message.port);
  else tabs.delete(message.tab);
}

function tell(news: Ready | Unserved): void {
  state = news;
  for (const owner of owners) owner.postMessage(news);
}

/** Serves, and does what is left to be done; see `Left` of crate `browser`. */
function work(run: () => number): void {
  if (!works) return;
  const [MORE, BROKEN] = [1, 2];
  let left = BROKEN;
  try {
    left = run();
  } catch (error) {
    console.error(error);
  }
  if (left === MORE) nextSlice.postMessage(null);
  else if (left === BROKEN) again();
}

/** Asks whoever started us to end us and start another page server. */
function again(): void {
  works = false;
  self.postMessage({ type: 'again' } satisfies Again);
}

function fail(kind: Unserved['kind'], reason: string): void {
  if (works) store.close();
  works = false;
  tell({ type: 'failed', kind, reason });
}

/** After the site's data were cleared, Chromium goes on to write into files that are gone. */
async function look(): Promise<void> {
  if (!works || (await files?.exist())) return;
  fail('damaged', 'the data of this site were cleared');
}
