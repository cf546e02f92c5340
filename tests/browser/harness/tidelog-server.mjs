// The server under test: started, stopped, killed, and started again at the same address.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { serverBinary } from './places.mjs';
import { eventually } from './time.mjs';

/** A port of loopback that nobody listens on now. */
export async function freePort() {
  const probe = createServer();
  await new Promise((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

/** Prepares a server with a data folder and an address of its own; `start` runs it. It is one for
 * development unless it is told whom to let in, in its environment. */
export async function prepareServer({ args = [], env } = {}) {
  const port = await freePort();
  const listen = `127.0.0.1:${port}`;
  const data = mkdtempSync(path.join(os.tmpdir(), 'tidelog-server-'));
  let process_ = null;
  let log = '';

  async function end(signal) {
    const running = process_;
    process_ = null;
    if (!running || running.exitCode !== null || running.signalCode !== null) return null;
    const exited = new Promise((resolve) => running.once('exit', resolve));
    running.kill(signal);
    return exited;
  }

  const server = {
    data,
    http: `http://${listen}`,
    ws: `ws://${listen}`,

    async start() {
      const mode = env ? [] : ['--dev'];
      const child = spawn(
        serverBinary(),
        ['serve', ...mode, '--data', data, '--listen', listen, ...args],
        { env: { ...process.env, ...env } },
      );
      process_ = child;
      for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (bytes) => {
          log = (log + bytes).slice(-20_000);
        });
      }
      await eventually(async () => {
        if (child.exitCode !== null) throw new Error(`the server ended by itself:\n${log}`);
        const response = await fetch(`${server.http}/healthz`).catch(() => null);
        return response?.ok;
      });
      return server;
    },
    /** SIGTERM; the exit code, which must be 0. */
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    log: () => log,

    /** What the server says of a document. */
    async document(name) {
      const response = await fetch(`${server.http}/v1/documents/${encodeURIComponent(name)}`);
      return response.ok ? response.json() : null;
    },
    /** The server's copy of a document, as a SQLite file. */
    async export(name) {
      const address = `${server.http}/v1/documents/${encodeURIComponent(name)}/export`;
      const response = await fetch(address);
      if (!response.ok) throw new Error(`export of ${name}: ${response.status}`);
      return new Uint8Array(await response.arrayBuffer());
    },
    async dispose() {
      await end('SIGKILL');
      rmSync(data, { recursive: true, force: true });
    },
  };
  return server;
}

/** A running server. */
export const startServer = async (options) => (await prepareServer(options)).start();
