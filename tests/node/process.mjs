// A process that does what a test tells it: functions come as their text, as they do to a page.

import { fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const SCRIPT = fileURLToPath(new URL('told.mjs', import.meta.url));

/** What a process answers late, it does not answer: every call settles in ten seconds. */
const ANSWER_MS = 30_000;

/** A process of Node that has `tidelog/node`; see `told.mjs`. */
export class Process {
  #child;
  #waiting = new Map();
  #count = 0;
  #said = '';
  /** Its exit code and signal, once it has ended. */
  ended;
  /** Everything that it has reported. */
  reports = [];

  constructor({ limit = '', execArgv = [] } = {}) {
    const command = limit && `ulimit ${limit} && exec "$0" "$@"`;
    const shell = limit && { execPath: '/bin/sh', execArgv: ['-c', command, process.execPath] };
    const own = shell || { execArgv };
    const stdio = ['ignore', 'pipe', 'pipe', 'ipc'];
    this.#child = fork(SCRIPT, { ...own, stdio, serialization: 'advanced' });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.on('data', (text) => {
        this.#said += text;
      });
    }
    this.#child.on('message', ({ number, value, error, report }) => {
      if (number === undefined) this.reports.push(report);
      const { resolve, reject } = this.#waiting.get(number) ?? {};
      this.#waiting.delete(number);
      if (error) reject?.(Object.assign(new Error(error.message), error));
      else resolve?.(value);
    });
    this.ended = new Promise((resolve) => {
      this.#child.once('exit', (code, signal) => {
        resolve({ code, signal });
        for (const { reject } of this.#waiting.values()) {
          reject(new Error(`the process ended: ${code ?? signal}\n${this.#said}`));
        }
        this.#waiting.clear();
      });
    });
  }

  get pid() {
    return this.#child.pid;
  }

  /** What it has written. */
  get said() {
    return this.#said;
  }

  /** Runs a function there, with these arguments, and gives what that gives. */
  run(what, ...args) {
    const number = ++this.#count;
    return new Promise((resolve, reject) => {
      const late = () => reject(new Error(`no answer to ${what}\n${this.#said}`));
      const timer = setTimeout(late, ANSWER_MS);
      const settle = (then) => (it) => {
        clearTimeout(timer);
        then(it);
      };
      this.#waiting.set(number, { resolve: settle(resolve), reject: settle(reject) });
      this.#child.send({ number, what: String(what), args }, (error) => error && reject(error));
    });
  }

  /** Opens a document there under a name. */
  open(doctype, options, name = 'db') {
    return this.run(
      async (doctype, options, name) => {
        kept[name] = await tidelog.open(doctypes[doctype], { webSocket, ...options });
      },
      doctype,
      options,
      name,
    );
  }

  /** How opening fails, as plain data; null where it does not. */
  tryOpen(...args) {
    return this.open(...args).then(
      () => null,
      (error) => error,
    );
  }

  query(sql, name = 'db') {
    return this.run((sql, name) => kept[name].query(sql), sql, name);
  }

  /** Issues a mutation, and waits until it has come as far as that. */
  mutate(mutation, args, stage = 'durable', name = 'db') {
    return this.run(
      (mutation, args, stage, name) => kept[name].mutate[mutation](args)[stage],
      mutation,
      args,
      stage,
      name,
    );
  }

  close(name = 'db') {
    return this.run((name) => kept[name].close(), name);
  }

  /** Lets it end by itself once nothing is open. */
  leave() {
    this.#child.disconnect();
    return this.ended;
  }

  kill(signal = 'SIGKILL') {
    this.#child.kill(signal);
    return this.ended;
  }
}

/** A folder and processes of one test, which end with it. */
export class Stage {
  #processes = [];
  #folders = [];

  constructor(test) {
    test.after(async () => {
      await Promise.all(this.#processes.map((it) => it.kill()));
      for (const folder of this.#folders) rmSync(folder, { recursive: true, force: true });
    });
  }

  folder() {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'tidelog-node-'));
    this.#folders.push(folder);
    return folder;
  }

  process(options) {
    const started = new Process(options);
    this.#processes.push(started);
    return started;
  }
}
