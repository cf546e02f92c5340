// The page server in this worker, as the worker of a page server runs it, beside the raw calls.
//
// Each measure gives rows: a name, our times, and those of the raw calls in the same rounds.

import { checksum, Store } from '/bench-storage/bench_storage.js';
import { open, openStoreFiles, RawFile } from './files.mjs';
import { NO_END, openStore, openUsedStore, POOL_PAGES, sizeOfCommit } from './stores.mjs';
import { expect, inTurn, quantile, timed } from './time.mjs';

const PAGE_SIZE = 4096;
/** Pages of the document that is read. */
const PAGES = 10_000;
/** `DEVICE_LOG_SIZE_MAX` of crate `types`. */
const LOG_SIZE_MAX = 32 * 1024 * 1024;
/** Log that takes in all that is appended in one measure, without a change-over. */
const USED_LOG_SIZE = 32 * 1024 * 1024;

/** So many calls of each of so many owners wait, in a store that is in use or in a new one. */
async function append(name, rounds, owners, { calls = 1, isNew = false } = {}) {
  const store = await (isNew ? openStore(NO_END) : openUsedStore(USED_LOG_SIZE));
  const bytes = new Uint8Array(sizeOfCommit(store, owners, calls)).fill(7);
  const growing = await RawFile.growing('growing');
  const inPlace = await RawFile.ofSize('in-place', USED_LOG_SIZE);
  const { ours, ...raw } = await inTurn(
    rounds,
    {
      ours: () => timed(1, () => expect(store.commit(), owners, 'owners that were told')),
      growing: () => timed(1, () => growing.append(bytes)),
      'in place': () => timed(1, () => inPlace.append(bytes)),
    },
    () => store.prepare(owners, calls),
  );
  store.free();
  growing.close();
  inPlace.close();
  return [{ name, ours, raw }];
}

export const append1 = (scale) => append('append-1', 500 * scale, 1);
export const append16 = (scale) => append('append-16', 500 * scale, 16);
export const append256 = (scale) => append('append-256', 250 * scale, 256);
export const calls256 = (scale) => append('calls-256', 250 * scale, 1, { calls: 256 });
export const append256New = (scale) => append('append-256-new', 250 * scale, 256, { isNew: true });

/** Many pages in one request, and single ones, in the pool and not. */
export async function read(scale) {
  let store = await openStore(LOG_SIZE_MAX);
  store.fill('a', PAGES);
  const file = await RawFile.ofSize('raw', (PAGES + 128) * PAGE_SIZE);
  const bulk = await inTurn(15 * scale, {
    ours: () => timed(1, () => expect(store.read(1, PAGES), PAGES, 'pages')),
    reads: () =>
      timed(1, () => {
        for (let page = 1; page < PAGES; page += 64) file.read(page * PAGE_SIZE, 64 * PAGE_SIZE);
      }),
  });
  const page = file.read(0, PAGE_SIZE);
  const hit = await inTurn(25 * scale, {
    ours: () => timed(1000, () => expect(store.read(7, 7), 1, 'pages')),
    'a copy': () => timed(1000, () => page.slice()),
  });
  store.free();

  store = await openStore(LOG_SIZE_MAX, 1);
  const spread = (nth) => 1 + ((nth * 97) % (PAGES - 100));
  const miss = await inTurn(25 * scale, {
    ours: () => timed(500, (nth) => expect(store.read(spread(nth), spread(nth)), 1, 'pages')),
    'a read': () => timed(500, (nth) => file.read(spread(nth) * PAGE_SIZE, PAGE_SIZE)),
  });
  store.free();
  file.close();
  const rows = { 'read-bulk': bulk, 'read-hit': hit, 'read-miss': miss };
  return Object.entries(rows).map(([name, { ours, ...raw }]) => ({ name, ours, raw }));
}

/** Opens what an ended worker left behind; opening the handles is not counted. */
async function openAgain(name, rounds) {
  const { ours, ...raw } = await inTurn(rounds, {
    ours: async () => {
      const handles = await openStoreFiles();
      let store;
      const time = timed(1, () => {
        store = new Store(...handles, NO_END, POOL_PAGES);
      });
      store.free();
      return time;
    },
    'read and check': async () => {
      const handle = await open('log-a');
      return timed(1, () => checksum(handle));
    },
  });
  return [
    { name, ours, raw },
    { name: `${name}-slowest`, ours: [Math.max(...ours)], raw: {} },
  ];
}

export async function open50MB(scale) {
  const store = await openStore(NO_END);
  while (store.logSize() < 50_000_000) store.fill('a', 1_000);
  store.free();
  return openAgain('open-50MB', 10 * scale);
}

export async function open1000Documents(scale) {
  const store = await openStore(NO_END);
  for (let number = 0; number < 1_000; number += 1) store.fill(`document-${number}`, 5);
  store.free();
  return openAgain('open-1000', 10 * scale);
}

/** The whole of a log goes into the page file, in slices. */
export async function checkpoint(scale) {
  const store = await openStore(LOG_SIZE_MAX);
  const file = await RawFile.ofSize('raw', LOG_SIZE_MAX);
  const bytes = new Uint8Array(LOG_SIZE_MAX).fill(7);
  const slices = [];
  const { ours, ...raw } = await inTurn(15 * scale, {
    ours: () => {
      store.fillLog(LOG_SIZE_MAX);
      return timed(1, () => {
        let isMore = true;
        while (isMore) {
          slices.push(
            timed(1, () => {
              isMore = store.poll();
            }),
          );
        }
      });
    },
    'in place': () => timed(1, () => file.append(bytes)),
  });
  store.free();
  file.close();
  return [
    { name: 'checkpoint', ours, raw },
    { name: 'checkpoint-slice', ours: [quantile(slices, 0.99)], raw: {} },
  ];
}
