// What the tests in this folder are written with.
//
// `both` registers a test for each browser. Within one file the browsers, with up to two profiles
// each, and the site are shared; a test gets document names of its own, and its pages are closed
// when it ends, so that the engine stops too. A test that kills starts a browser of its own.
//
// Start reading: `both` here, then `harness/device.mjs` and `harness/tidelog-server.mjs`.
// Not here: anything of the product but its public surface.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Device } from './harness/device.mjs';
import { startSite } from './harness/site.mjs';
import { prepareServer } from './harness/tidelog-server.mjs';
import { eventually } from './harness/time.mjs';

export { INSECURE_HOST } from './harness/device.mjs';
export * from './harness/in-page.mjs';
export { inRoot, realData } from './harness/places.mjs';
export { tabWithRoom } from './harness/room.mjs';
export { startSite } from './harness/site.mjs';
export { contentOf, contentOfSql, fileOfSql, queryFile } from './harness/stock-sqlite.mjs';
export { crc32c, readStore, writeStore } from './harness/store-files.mjs';
export { freePort } from './harness/tidelog-server.mjs';
export { eventually, sleep } from './harness/time.mjs';

const wanted = process.env.TIDELOG_BROWSERS?.split(',') ?? ['Chromium', 'Firefox'];
const TEST_TIMEOUT_MS = 120_000;

let site = null;
const devices = new Map();
let executed = 0;
let registered = 0;

async function sharedDevice(kind, name) {
  const key = `${kind} ${name}`;
  if (!devices.has(key)) devices.set(key, new Device(kind).launch());
  return devices.get(key);
}

/** One test's view of a browser. */
class Stage {
  #test;
  #pages = [];
  #cleanups = [];
  #servers = [];

  constructor(t, kind, number) {
    this.#test = t;
    this.kind = kind;
    /** A document name that no other test uses. */
    this.document = `${kind.toLowerCase()}-${number}`;
  }

  get site() {
    return site;
  }

  /** Says something beside the test's name. */
  note(text) {
    this.#test.diagnostic(text);
  }

  onEnd(cleanup) {
    this.#cleanups.push(cleanup);
  }

  /** A running server that ends with the test. */
  async server(options) {
    const server = await this.stoppedServer(options);
    return server.start();
  }

  /** A server that the test starts itself. */
  async stoppedServer(options) {
    const server = await prepareServer(options);
    this.#servers.push(server);
    this.onEnd(() => server.dispose());
    return server;
  }

  /** A server, and the options of the test's document on it. */
  async synced({ isUp = true } = {}) {
    const server = await this.stoppedServer();
    if (isUp) await server.start();
    return { server, options: { document: this.document, server: server.ws } };
  }

  /** A site of this test alone: its origin has a store of its own. */
  async ownSite(options) {
    const own = await startSite(options);
    this.onEnd(() => own.close());
    return own;
  }

  /** A browser of this test alone, on a new profile, not started yet. */
  ownDevice(options) {
    const device = new Device(this.kind, options);
    this.onEnd(() => device.dispose());
    return device;
  }

  /** A tab on the shared first profile. */
  tab(place) {
    return this.#tabOn('first', place);
  }

  /** A tab on the shared second profile: another device. */
  otherTab(place) {
    return this.#tabOn('second', place);
  }

  /** A tab on each of the two profiles. */
  async twoDevices() {
    return [await this.tab(), await this.otherTab()];
  }

  async #tabOn(name, place) {
    return this.tabOf(await sharedDevice(this.kind, name), place);
  }

  /** A tab of `device`. A place without a host is on the site; `app.html` is waited for. */
  async tabOf(device, place = '/app.html') {
    const url = new URL(place, site.origin);
    const page = await device.open(url.href);
    this.#pages.push(page);
    if (url.pathname === '/app.html') await ready(page);
    return page;
  }

  /** After a failure: what the servers said. */
  explain() {
    for (const server of this.#servers) {
      const log = server.log().trim().split('\n').slice(-30).join('\n');
      if (log) this.note(`the server's log:\n${log}`);
    }
  }

  async end() {
    for (const page of this.#pages.filter((open) => !open.isClosed())) {
      const unhandled = await page.evaluate(() => globalThis.unhandled ?? []).catch(() => []);
      await page.close().catch(() => {});
      assert.deepEqual(unhandled, [], 'no rejection was left unhandled');
    }
  }

  async cleanUp() {
    for (const page of this.#pages.filter((open) => !open.isClosed())) {
      await page.close().catch(() => {});
    }
    for (const cleanup of this.#cleanups.reverse()) await cleanup();
  }
}

/** Waits until a fixture page's module has run. */
export const ready = (page) =>
  eventually(
    async () => {
      if (page.failure) throw page.failure;
      return page.evaluate(() => globalThis.ready === true).catch(() => false);
    },
    { what: 'the page' },
  );

/** Loads a fixture page anew. */
export async function reload(page) {
  await page.reload();
  await ready(page);
}

/** What browsers report that nobody drives. */
export class Reports {
  #arrived = () => {};

  /** Takes a report, for a site. */
  onReport = (report) => this.#arrived(report);

  /** The report of a browser on this address, however long its start takes. */
  async of(device, url) {
    const arrived = new Promise((resolve) => {
      this.#arrived = resolve;
    });
    const ended = device.launchAt(url).then(() => {
      throw new Error('the browser ended before it reported anything');
    });
    return Promise.race([arrived, ended]);
  }
}

/** Registers one test for each browser. `body` gets a `Stage`. */
export function both(name, body, { timeout = TEST_TIMEOUT_MS, skip = false } = {}) {
  for (const kind of wanted) {
    registered += 1;
    const number = `${registered}-${process.pid}`;
    test(`${name} (${kind})`, { timeout, skip }, async (t) => {
      site ??= await startSite();
      const stage = new Stage(t, kind, number);
      try {
        await body(stage);
        await stage.end();
        executed += 1;
      } catch (error) {
        stage.explain();
        throw error;
      } finally {
        await stage.cleanUp();
      }
    });
  }
}

/** Fails the file if fewer than `count` tests a browser ran: a green run that ran nothing is red.
 * Tests picked by name, or that failed by themselves, are not counted as missing. */
export function atLeast(count) {
  const picked = [...process.execArgv, ...process.argv].some((arg) =>
    /test-name-pattern|test-only/.test(arg),
  );
  after(async () => {
    for (const device of devices.values()) await (await device).dispose();
    await site?.close();
    if (!picked && process.exitCode === undefined) {
      assert.ok(
        executed >= count * wanted.length,
        `${executed} of ${count * wanted.length} tests ran`,
      );
    }
  });
}
