// WebKit as Debian has it: MiniBrowser, driven by WebDriver, on a display of its own.
//
// A tab here answers to the few words of Puppeteer's pages that the tests use.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { killTree } from '../browser/harness/device.mjs';
import { eventually, freePort } from '../browser/harness.mjs';

/** The browser, which no package puts on the path: distributions keep it with the library. */
function miniBrowser() {
  const libraries = ['/usr/libexec', '/usr/lib', ...folders('/usr/lib', /-linux-gnu$/)];
  const found = libraries
    .flatMap((library) => folders(library, /^webkit(2gtk|gtk)-/))
    .map((folder) => path.join(folder, 'MiniBrowser'))
    .find((file) => existsSync(file));
  if (!found) throw new Error('there is no MiniBrowser, which comes with webkit2gtk-driver');
  return found;
}

function folders(below, named) {
  if (!existsSync(below)) return [];
  const names = readdirSync(below).filter((name) => named.test(name));
  return names.map((name) => path.join(below, name));
}

/** A screen that nobody sees. */
export async function startDisplay() {
  const child = spawn('Xvfb', ['-displayfd', '3', '-screen', '0', '800x600x24', '-noreset'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  });
  const number = await new Promise((resolve, reject) => {
    child.stdio[3].once('data', (bytes) => resolve(String(bytes).trim()));
    child.once('error', reject);
    child.once('exit', () => reject(new Error('Xvfb ended by itself')));
  });
  return { name: `:${number}`, close: () => child.kill() };
}

/** A profile folder, on which the browser can be started again and again, driven by nobody. */
export class WebKitDevice {
  #profile = mkdtempSync(path.join(os.tmpdir(), 'tidelog-webkit-'));
  #display;
  #child = null;

  constructor(display) {
    this.#display = display;
  }

  launchAt(url) {
    this.#child = spawn(miniBrowser(), [url], {
      stdio: 'ignore',
      env: environment(this.#display, this.#profile),
    });
  }

  async kill() {
    const child = this.#child;
    this.#child = null;
    if (child) await killTree(child);
  }

  async dispose() {
    await this.kill();
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

function environment(display, home) {
  const own = Object.fromEntries(
    ['DATA', 'CACHE', 'CONFIG', 'STATE'].map((kind) => [`XDG_${kind}_HOME`, path.join(home, kind)]),
  );
  return { ...process.env, ...own, HOME: home, DISPLAY: display.name };
}

/** A browser that is driven, and forgets everything when it ends. */
export class WebKit {
  #home = mkdtempSync(path.join(os.tmpdir(), 'tidelog-webkit-'));
  #driver;
  #address;
  #session;
  /** One command after another: each is for the window that is chosen then. */
  #last = Promise.resolve();
  #isFirst = true;

  static async launch(display) {
    const webkit = new WebKit();
    await webkit.#start(display);
    return webkit;
  }

  async #start(display) {
    const port = await freePort();
    this.#address = `http://127.0.0.1:${port}`;
    this.#driver = spawn('WebKitWebDriver', [`--port=${port}`], {
      stdio: 'ignore',
      env: environment(display, this.#home),
    });
    const what = 'the driver of WebKit';
    await eventually(() => fetch(`${this.#address}/status`).catch(() => null), { what });
    const { sessionId } = await this.#send('POST', '/session', { capabilities: {} });
    this.#session = `/session/${sessionId}`;
    await this.#send('POST', `${this.#session}/timeouts`, { script: 60_000 });
  }

  async #send(method, place, body) {
    const response = await fetch(this.#address + place, { method, body: JSON.stringify(body) });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`${method} ${place}: ${value.error}: ${value.message}`);
    return value;
  }

  /** Sends a command for a window. */
  command(window, method, place, body) {
    const run = async () => {
      await this.#send('POST', `${this.#session}/window`, { handle: window });
      return this.#send(method, this.#session + place, body);
    };
    this.#last = this.#last.then(run, run);
    return this.#last;
  }

  /** A tab at an address. */
  async open(url) {
    const first = this.#isFirst && (await this.#send('GET', `${this.#session}/window`));
    this.#isFirst = false;
    const handle =
      first || (await this.#send('POST', `${this.#session}/window/new`, { type: 'tab' })).handle;
    const tab = new Tab(this, handle);
    await this.command(handle, 'POST', '/url', { url });
    return tab;
  }

  async dispose() {
    await killTree(this.#driver);
    rmSync(this.#home, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

class Tab {
  #webkit;
  #handle;

  constructor(webkit, handle) {
    this.#webkit = webkit;
    this.#handle = handle;
  }

  /** Calls a function in the page with one argument, and brings what it resolves to. */
  async evaluate(run, argument = null) {
    const script = `
      const [argument, done] = arguments;
      Promise.resolve(argument).then(${run}).then(
        (value) => done({ value }),
        (error) => done({ thrown: String(error) }),
      );`;
    const body = { script, args: [argument] };
    const answer = await this.#webkit.command(this.#handle, 'POST', '/execute/async', body);
    if (answer.thrown !== undefined) throw new Error(answer.thrown);
    return answer.value;
  }

  reload() {
    return this.#webkit.command(this.#handle, 'POST', '/refresh', {});
  }

  close() {
    return this.#webkit.command(this.#handle, 'DELETE', '/window');
  }
}
