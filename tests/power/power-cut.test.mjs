// A power cut, really: nothing that was called durable may be missing afterwards.
//
// A browser's profile lies in a file system of its own, in an image over a loop device. A page
// writes rows and says of each when it is durable. The cut: every process of the browser is
// stopped where it is, and the image is copied. The copy holds what had reached the device;
// what was only in the caches of the mounted file system is missing, as after a power cut. It is
// mounted, so that the journal of the file system is replayed, and a new browser opens it.
//
// Needs root. Not here: what a device loses that has a cache of its own.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { Device } from '../browser/harness/device.mjs';
import { startSite } from '../browser/harness/site.mjs';
import { freePort } from '../browser/harness/tidelog-server.mjs';
import { eventually, sleep } from '../browser/harness/time.mjs';

const IMAGE_SIZE = 1024 ** 3;
/** Rows that are written at least, before the cut. */
const ROWS = 40;
/** In Chromium `settling` takes 45 s. */
const SETTLES_WITHIN_MS = 90_000;
const COPIES_MAX = 20;
const wanted = process.env.TIDELOG_BROWSERS?.split(',') ?? ['Chromium', 'Firefox'];

const run = (program, ...args) =>
  execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe' }).trim();

/** Mounts the file system of an image; gives the folder, and a way to let go of it. */
function mount(image, folder) {
  mkdirSync(folder, { recursive: true });
  const device = attach(image);
  run('mount', '-t', 'ext4', device, folder);
  return {
    folder,
    async release() {
      // Helpers of a browser may hold it for a moment after it was killed.
      await eventually(() => tried(() => run('umount', folder)), { everyMs: 100, what: 'umount' });
      run('losetup', '--detach', device);
    },
  };
}

/** Past the caches of the file system that the image lies in, where that can be had. */
function attach(image) {
  const attached = tried(() => run('losetup', '--find', '--show', '--direct-io=on', image));
  return attached || run('losetup', '--find', '--show', image);
}

function tried(work) {
  try {
    return work() || true;
  } catch {
    return false;
  }
}

/** Copies the image as it is at one moment: again, if anything reached it meanwhile. */
function copyAtRest(image, copy) {
  const written = () => statSync(image, { bigint: true }).mtimeNs;
  for (let tries = 0; tries < COPIES_MAX; tries += 1) {
    const before = written();
    run('cp', '--sparse=always', image, copy);
    if (written() === before) return;
  }
  throw new Error('the image never came to rest');
}

/** Everything that one cut needs, and its end. */
class Bench {
  #folder = mkdtempSync(path.join(os.tmpdir(), 'tidelog-power-'));
  #cleanups = [];
  #reports = [];

  async start(kind) {
    this.kind = kind;
    this.image = path.join(this.#folder, 'image');
    writeFileSync(this.image, '');
    truncateSync(this.image, IMAGE_SIZE);
    run('mkfs.ext4', '-q', '-F', this.image);
    this.site = await startSite({ onReport: (report) => this.#reports.push(report) });
    this.#cleanups.push(() => this.site.close());
    this.server = `ws://127.0.0.1:${await freePort()}`;
    return this;
  }

  /** Mounts an image and starts a browser on the profile in it. */
  launch(image, query = {}) {
    const mounted = mount(image, `${image}-mounted`);
    const profile = path.join(mounted.folder, 'profile');
    mkdirSync(profile, { recursive: true });
    const device = new Device(this.kind, { profile });
    this.#reports.length = 0;
    const ended = { is: false };
    const end = async () => {
      if (ended.is) return;
      ended.is = true;
      await device.kill();
      await mounted.release();
    };
    this.#cleanups.push(end);
    const words = new URLSearchParams({ server: this.server, ...query });
    device.launchAt(this.site.url(`power.html?${words}`));
    return { device, end };
  }

  /** The newest report, once it is as wanted. */
  async reported(what, isWanted, withinMs) {
    await eventually(
      () => {
        const failed = this.#reports.find((report) => report.error);
        if (failed) throw new Error(failed.error);
        return this.#reports.some(isWanted);
      },
      { what, withinMs },
    );
    return this.#reports.findLast(isWanted);
  }

  /** How many rows were called durable by now, and whether the files were still new. */
  get durable() {
    const { durable, settling } = this.#reports.findLast((report) => report.durable);
    return { durable, settling };
  }

  /** Cuts the power, and says what was durable and what a new browser finds. */
  async cut({ device, end }) {
    const { durable, settling } = this.durable;
    device.pause();
    const copy = `${this.image}-${durable}`;
    copyAtRest(this.image, copy);
    await end();
    const again = this.launch(copy, { read: '' });
    const { found } = await this.reported('what is left', (report) => report.found, 60_000);
    await again.end();
    rmSync(copy);
    const rows = Array.from({ length: durable }, (_, index) => `row ${index + 1}`);
    const missing = found.map((titles) => rows.filter((row) => !titles.includes(row)).length);
    return { durable, settling, missing };
  }

  async end() {
    for (const cleanup of this.#cleanups.reverse()) await cleanup();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

const told = ({ durable, missing }) =>
  `${durable} rows called durable, missing: ${missing[0]} of a local document, ` +
  `${missing[1]} of a timeline`;

for (const kind of wanted) {
  test(`a power cut loses nothing durable (${kind})`, { timeout: 300_000 }, async (t) => {
    const bench = await new Bench().start(kind);
    try {
      if (kind === 'Chromium') {
        // What the word is for: such a cut may lose the files, names and all.
        const running = bench.launch(bench.image);
        await bench.reported('rows', (report) => report.durable >= ROWS, 60_000);
        const early = await bench.cut(running);
        t.diagnostic(`while settling: ${told(early)}`);
        assert.equal(early.settling, true, 'the files are new, and the status says so');
        run('mkfs.ext4', '-q', '-F', bench.image);
      }
      const running = bench.launch(bench.image);
      const isSettled = ({ durable, settling }) => durable >= ROWS && settling === false;
      await bench.reported('settled files', isSettled, SETTLES_WITHIN_MS);
      await sleep(500);
      const late = await bench.cut(running);
      t.diagnostic(`settled: ${told(late)}`);
      assert.equal(late.settling, false);
      assert.deepEqual(late.missing, [0, 0], 'nothing that was called durable is missing');
    } finally {
      await bench.end();
    }
  });
}
