// A device: one browser process tree on one profile folder, which outlives it.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import puppeteer from 'puppeteer-core';
import { browsers } from './places.mjs';
import { sleep } from './time.mjs';

/** Another name of loopback, which is no secure context over http. */
export const INSECURE_HOST = 'insecure.test';

const CHROMIUM_FLAGS = [
  `--host-resolver-rules=MAP ${INSECURE_HOST} 127.0.0.1`,
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
  // A process for each tab, as in Chromium.
  'dom.ipc.processCount.webIsolated': 16,
  'network.dns.localDomains': INSECURE_HOST,
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
  // The name in parentheses may hold anything; the parent is the second field behind it.
  const text = textOf(`/proc/${pid}/stat`);
  return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1]);
}

/** Names of a process's threads. */
const threadsOf = (pid) =>
  listed(`/proc/${pid}/task`).map((thread) => textOf(`/proc/${pid}/task/${thread}/comm`).trim());

function textOf(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** What the threads of workers are called, by who it may be that works there. */
const WORKERS = {
  Chromium: { core: 'SharedWorker', 'page server': 'DedicatedWorker' },
  // It calls them all the same.
  Firefox: { core: 'DOM Worker', 'page server': 'DOM Worker' },
};

/** SIGKILL for a browser and all that it started, at once; resolves when it is gone. */
export async function killTree(child) {
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

/** In such windows Firefox gives no files to pages, and forgets all when it ends. */
const PRIVATE_PREFS = { 'browser.privatebrowsing.autostart': true };

/** A profile folder, and the browser that runs on it. */
export class Device {
  #kind;
  #prefs;
  #profile;
  #browser = null;
  #child = null;

  /** `isPrivate`: with private windows alone, and `room`: with so many bytes for a site, which only
   * Firefox can be started with. `profile`: a folder that is there, instead of a new one. */
  constructor(kind, { isPrivate = false, room = 0, profile = null } = {}) {
    this.#kind = kind;
    this.#profile = profile ?? mkdtempSync(path.join(os.tmpdir(), 'tidelog-profile-'));
    this.#prefs = {
      ...FIREFOX_PREFS,
      ...(isPrivate && PRIVATE_PREFS),
      ...(room && { 'dom.quotaManager.temporaryStorage.fixedLimit': room / 1024 }),
    };
    if (kind === 'Firefox') {
      const lines = Object.entries(this.#prefs).map(
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
      extraPrefsFirefox: this.#prefs,
      protocolTimeout: 120_000,
    });
    this.#child = this.#browser.process();
    return this;
  }

  /**
   * Starts the browser on an address, driven by nobody: the quickest start there is. Resolves when
   * it has ended, killed or not.
   */
  launchAt(url) {
    const args =
      this.#kind === 'Firefox'
        ? ['--headless', '--no-remote', '--profile', this.#profile, url]
        : ['--headless', ...CHROMIUM_FLAGS, `--user-data-dir=${this.#profile}`, url];
    const child = spawn(browsers[this.#kind], args, { stdio: 'ignore' });
    this.#child = child;
    return new Promise((resolve) => child.once('exit', resolve));
  }

  /** A tab at an address whose module has run: it says so by `globalThis.ready`. */
  open(url) {
    return this.#openIn(this.#browser, url);
  }

  /** The same in a context of its own, which shares nothing with the others: as on another device. */
  async openApart(url) {
    return this.#openIn(await this.#browser.createBrowserContext(), url);
  }

  async #openIn(context, url) {
    const page = await context.newPage();
    page.on('pageerror', (error) => {
      page.failure ??= error;
    });
    await page.goto(url);
    return page;
  }

  /** Ids of the processes that may run the core, or the page server. */
  processesOf(who) {
    const isWanted = (name) => name.startsWith(WORKERS[this.#kind][who]);
    // Firefox has workers of its own; the last argument says what a process is for.
    const isForPages = (pid) =>
      this.#kind !== 'Firefox' || /\btab\W*$/.test(textOf(`/proc/${pid}/cmdline`));
    return descendants(this.#child.pid).filter(
      (pid) => isForPages(pid) && threadsOf(pid).some(isWanted),
    );
  }

  /** Stops every process of the browser where it is, as a power cut does. Then `kill` it. */
  pause() {
    for (const pid of [this.#child.pid, ...descendants(this.#child.pid)]) {
      try {
        process.kill(pid, 'SIGSTOP');
      } catch {
        // It went by itself between the listing and now.
      }
    }
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
