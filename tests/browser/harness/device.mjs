// A device: one browser process tree on one profile folder, which outlives it.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import puppeteer from 'puppeteer-core';
import { browsers } from './places.mjs';
import { sleep } from './time.mjs';

const CHROMIUM_FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Keeps a killed Firefox from asking what to do about it, and from calling home. */
const FIREFOX_PREFS = {
  'toolkit.startup.max_resumed_crashes': -1,
  'browser.sessionstore.resume_from_crash': false,
  'browser.shell.checkDefaultBrowser': false,
  'browser.aboutwelcome.enabled': false,
  'app.update.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
};

/** Every process below `pid`, by asking the kernel; empty where there is no /proc. */
function descendants(pid) {
  const children = new Map();
  for (const name of listed('/proc').filter((entry) => /^\d+$/.test(entry))) {
    const parent = parentOf(name);
    if (parent) children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  const found = [];
  const open = [pid];
  while (open.length > 0) {
    const next = children.get(open.pop()) ?? [];
    found.push(...next);
    open.push(...next);
  }
  return found;
}

function listed(folder) {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function parentOf(pid) {
  try {
    // The name in parentheses may hold anything; the parent is the second field behind it.
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return null;
  }
}

/** SIGKILL for a browser and all that it started, at once; resolves when it is gone. */
async function killTree(child) {
  const gone = new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve();
    else child.once('exit', resolve);
  });
  const pids = descendants(child.pid);
  // The main process first: nobody may be left who could still tidy up.
  for (const pid of [child.pid, ...pids]) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It went by itself between the listing and now.
    }
  }
  await gone;
}

/** A profile folder, and the browser that runs on it. */
export class Device {
  #kind;
  #profile = mkdtempSync(path.join(os.tmpdir(), 'tidelog-profile-'));
  #browser = null;
  #child = null;

  constructor(kind) {
    this.#kind = kind;
    if (kind === 'Firefox') {
      const lines = Object.entries(FIREFOX_PREFS).map(
        ([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`,
      );
      writeFileSync(path.join(this.#profile, 'user.js'), lines.join(''));
    }
  }

  get kind() {
    return this.#kind;
  }

  /** Starts the browser so that tests can drive it. */
  async launch() {
    this.#browser = await puppeteer.launch({
      browser: this.#kind === 'Firefox' ? 'firefox' : 'chrome',
      executablePath: browsers[this.#kind],
      headless: true,
      userDataDir: this.#profile,
      args: this.#kind === 'Firefox' ? [] : CHROMIUM_FLAGS,
      extraPrefsFirefox: FIREFOX_PREFS,
      protocolTimeout: 120_000,
    });
    this.#child = this.#browser.process();
    return this;
  }

  /** Starts the browser on an address, driven by nobody: the quickest start there is. */
  launchAt(url) {
    const args =
      this.#kind === 'Firefox'
        ? ['--headless', '--no-remote', '--profile', this.#profile, url]
        : ['--headless', ...CHROMIUM_FLAGS, `--user-data-dir=${this.#profile}`, url];
    this.#child = spawn(browsers[this.#kind], args, { stdio: 'ignore' });
  }

  /** A tab at an address whose module has run: it says so by `globalThis.ready`. */
  async open(url) {
    const page = await this.#browser.newPage();
    page.on('pageerror', (error) => {
      page.failure ??= error;
    });
    await page.goto(url);
    return page;
  }

  async kill() {
    const child = this.#child;
    this.#child = null;
    this.#browser = null;
    if (child) await killTree(child);
  }

  /** The profile goes too. */
  async dispose() {
    await this.kill();
    // Helpers of the browser may go on writing for a moment after it was killed.
    for (let tries = 0; tries < 10 && existsSync(this.#profile); tries += 1) {
      rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
      await sleep(20);
    }
  }
}
