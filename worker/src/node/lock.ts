/**
 * A lock on a folder that goes with the thread that took it, however that ends.
 *
 * Node has no `flock`. macOS, BSD and Windows open a file exclusively. Elsewhere the lock is a
 * Unix socket that somebody listens to: the kernel closes it with the process, and the name that
 * is left behind is known to be dead since nobody answers there.
 *
 * A dead name cannot be replaced safely: two who find it dead could each remove what the other one
 * has just made. So names are numbered, and whoever takes the lock makes the next one:
 *
 * ```text
 * lock-6 (dead)   lock-7 (dead)   lock-8 (listens)    the highest number has the lock
 * ```
 *
 * 1. A socket listens before it gets its name, by `link`, which fails where that is taken.
 * 2. Whoever has linked a number looks again, and has the lock only if there is no higher one.
 * 3. The highest number is never removed; lower ones are, by whoever has the lock.
 *
 * So each number above a living one would have been linked by somebody who had found that dead.
 * The folder has to be on a disk of this machine: over a network a socket answers nobody.
 */

import { randomUUID } from 'node:crypto';
import {
  closeSync,
  constants,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import os from 'node:os';
import path from 'node:path';

/** Somebody else has the lock. */
export class InUse extends Error {}

/** Lets go of the lock. */
export type Release = () => void;

/** Opens for one alone: `O_EXLOCK`, which libuv knows on Windows too. */
const EXCLUSIVE: { readonly [Platform in NodeJS.Platform]?: number } = {
  darwin: 0x20,
  freebsd: 0x20,
  openbsd: 0x20,
  win32: 0x1000_0000,
};

/** Longest path of a socket; a longer one is named by way of its folder's descriptor. */
const SOCKET_PATH_MAX = 100;

/** Says who has the lock, for whoever is refused. */
const OWNER = 'owner';

const NUMBERED = /^lock-(\d+)$/;
const UNNAMED = /^lock-new-/;

/**
 * Takes the lock of a folder.
 *
 * @throws InUse if another process or thread has it; otherwise what the system says.
 */
export async function lockFolder(folder: string): Promise<Release> {
  const exclusive = EXCLUSIVE[process.platform];
  const release = exclusive ? lockFile(folder, exclusive) : await new Sockets(folder).lock();
  try {
    const owner = { pid: process.pid, host: os.hostname() };
    writeFileSync(path.join(folder, OWNER), JSON.stringify(owner));
  } catch {
    // It is only said: a full disk is met by whoever writes.
  }
  return release;
}

function lockFile(folder: string, exclusive: number): Release {
  const { O_RDWR, O_CREAT, O_NONBLOCK = 0 } = constants;
  try {
    const file = openSync(path.join(folder, 'lock'), O_RDWR | O_CREAT | O_NONBLOCK | exclusive);
    return () => closeSync(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EAGAIN' || code === 'EBUSY') throw new InUse(ownerOf(folder));
    throw error;
  }
}

function ownerOf(folder: string): string {
  try {
    const { pid, host } = JSON.parse(readFileSync(path.join(folder, OWNER), 'utf8'));
    if (pid === process.pid && host === os.hostname()) return 'another thread of this process';
    return `process ${pid} on ${host}`;
  } catch {
    return 'another process';
  }
}

/** The numbered sockets of a folder. */
class Sockets {
  readonly #folder: string;
  /** The folder as it is named in the path of a socket. */
  readonly #named: string;
  readonly #descriptor: number | undefined;

  constructor(folder: string) {
    this.#folder = folder;
    const size = Buffer.byteLength(path.join(folder, `lock-new-${randomUUID()}`));
    if (size > SOCKET_PATH_MAX) this.#descriptor = openSync(folder, constants.O_RDONLY);
    this.#named = this.#descriptor !== undefined ? `/proc/self/fd/${this.#descriptor}` : folder;
  }

  async lock(): Promise<Release> {
    try {
      for (;;) {
        const server = await this.#tryLock();
        if (server) return () => server.close();
      }
    } finally {
      if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    }
  }

  /** Undefined where somebody else has changed something meanwhile. */
  async #tryLock(): Promise<Server | undefined> {
    const last = this.#highest();
    if (last > 0) {
      const answer = await answers(this.#socket(`lock-${last}`));
      if (answer === 'gone') return undefined;
      if (answer === 'yes') throw new InUse(ownerOf(this.#folder));
    }
    const own = `lock-new-${randomUUID()}`;
    const server = await listen(this.#socket(own));
    try {
      linkSync(path.join(this.#folder, own), path.join(this.#folder, `lock-${last + 1}`));
    } catch (error) {
      server.close();
      // Somebody was quicker, or has the lock by now and took ours for one that was left behind.
      if (/^(EEXIST|ENOENT)$/.test((error as NodeJS.ErrnoException).code!)) return undefined;
      throw error;
    } finally {
      rmSync(path.join(this.#folder, own), { force: true });
    }
    const isHighest = this.#highest() === last + 1;
    for (const name of readdirSync(this.#folder)) {
      const [, number] = NUMBERED.exec(name) ?? [];
      const isLower = isHighest && (UNNAMED.test(name) || Number(number) <= last);
      const isLate = !isHighest && Number(number) === last + 1;
      if (isLower || isLate) rmSync(path.join(this.#folder, name), { force: true });
    }
    if (isHighest) return server;
    server.close();
    return undefined;
  }

  #highest(): number {
    const numbers = readdirSync(this.#folder).map((name) => Number(NUMBERED.exec(name)?.[1] ?? 0));
    return Math.max(0, ...numbers);
  }

  #socket(name: string): string {
    return path.join(this.#named, name);
  }
}

/** Listens and says nothing. A process of a cluster does it itself: it is to end with it. */
function listen(socket: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((connection) => connection.destroy());
    server.unref();
    // Also of one that could not be accepted later, which asks nothing.
    server.on('error', reject);
    server.listen({ path: socket, exclusive: true }, () => resolve(server));
  });
}

/** Whether somebody listens to a socket, if there is one. */
function answers(socket: string): Promise<'yes' | 'no' | 'gone'> {
  return new Promise((resolve, reject) => {
    const connection = connect(socket);
    const settle = (answer: 'yes' | 'no' | 'gone'): void => {
      connection.destroy();
      resolve(answer);
    };
    connection.once('connect', () => settle('yes'));
    connection.once('error', (error: NodeJS.ErrnoException) => {
      // Full of others who ask: it is alive.
      if (error.code === 'EAGAIN') settle('yes');
      else if (error.code === 'ECONNREFUSED') settle('no');
      // Or it ended just now: whoever looks again finds it dead.
      else if (/^(ENOENT|ECONNRESET)$/.test(error.code!)) settle('gone');
      else reject(error);
    });
  });
}
