/** What a process has open in one folder, or in memory: one tab, and one engine for it. */

import { readdir, stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { clearInterval, clearTimeout, setInterval, setTimeout } from 'node:timers';
import { type Caller, Connection, type GetToken, type OpenDocument } from '../connection.js';
import type { Answer, ToCore } from '../messages.js';
import type { Status } from '../status.js';
import type { CallKind } from '../step.js';
import type { TabHost } from '../tab-host.js';
import { NodeEngine } from './engine.js';
import { provideReportError } from './report-error.js';

/** No script and no module is loaded by a tab. */
const PLACES = { workerUrl: undefined, coreWasmUrl: undefined, pageServerWasmUrl: undefined };

/** How long `close` may take with all that comes of it: every call settles in ten seconds. */
const CLOSE_MS = 9_900;

/** After which a call is given up, as `tab.ts` has it. */
const CALL_MS = 9_500;

/** Between two looks at the disk. */
const DISK_MS = 30_000;

/** A process, as the code of a tab sees it. */
function hostOf(folder: string | undefined, made: (engine: NodeEngine) => void): TabHost {
  return {
    isBrowser: false,
    engine(_, hear, receive) {
      const engine = new NodeEngine(folder, hear, receive);
      made(engine);
      return engine;
    },
    now: () => Date.now(),
    uptime: () => performance.now(),
    // What is open keeps the process going, not what its tab waits for.
    wakeIn(ms, wake) {
      const timer = setTimeout(wake, Math.min(Math.max(ms, 0), 2 ** 31 - 1)).unref();
      return () => clearTimeout(timer);
    },
    draw: (bytes) => crypto.getRandomValues(bytes),
    uuid: () => crypto.randomUUID(),
  };
}

/**
 * The tab of a folder. It lives from the first thing that is opened or asked there to the last one
 * that is closed, and keeps the process going for as long.
 */
export class Device extends Connection {
  readonly engine: NodeEngine;
  readonly #folder: string | undefined;
  /** Documents that are open, or being opened, by handle. */
  readonly #documents = new Set<number>();
  /** Calls that are under way. */
  #calls = 0;
  #looks: ReturnType<typeof setInterval> | undefined;
  /** When something was asked to be closed last. */
  #closingAt = 0;
  #ended: Promise<void> | undefined;
  readonly #keepAlive = setInterval(() => {}, 2 ** 30);
  readonly #whenIdle: (end: () => Promise<void>) => Promise<void>;

  /** `whenIdle` is called once nothing is open any more, and given what ends the engine. */
  constructor(folder: string | undefined, whenIdle: (end: () => Promise<void>) => Promise<void>) {
    provideReportError();
    let made: NodeEngine | undefined;
    super(
      PLACES,
      hostOf(folder, (engine) => {
        made = engine;
      }),
    );
    this.engine = made!;
    this.#folder = folder;
    this.#whenIdle = whenIdle;
  }

  /** Does something while it does not end. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#calls++;
    try {
      return await work();
    } catch (error) {
      throw this.engine.refusal ?? error;
    } finally {
      this.#calls--;
      await this.#endIfIdle();
    }
  }

  override call<Kind extends CallKind>(
    kind: Kind,
    message: Omit<ToCore[Kind], 'call'>,
    caller: Caller,
    limited = true,
  ): number {
    if (kind === 'close') this.#closingAt = performance.now();
    return super.call(kind, message, caller, limited);
  }

  override open(
    message: Parameters<Connection['open']>[0],
    getToken: GetToken | undefined,
    caller: Parameters<Connection['open']>[2],
  ): void {
    this.#documents.add(message.handle);
    const inNode = (answer: Answer): Answer =>
      answer.type === 'opened' ? { ...answer, status: this.#standing(answer.status) } : answer;
    super.open(message, getToken && tolerant(getToken), (answer, last) =>
      caller(inNode(answer), last),
    );
  }

  override attach(handle: number, document: OpenDocument): void {
    super.attach(handle, {
      news: (news) =>
        document.news(
          news.type === 'status' ? { ...news, status: this.#standing(news.status) } : news,
        ),
      lost: (error) => document.lost(error),
    });
    const folder = this.#folder;
    if (folder === undefined || this.#looks) return;
    void this.#lookAtDisk(folder);
    this.#looks = setInterval(() => void this.#lookAtDisk(folder), DISK_MS).unref();
  }

  /** Whoever closes the last document waits until another process can have the folder. */
  override detach(handle: number): Promise<void> {
    super.detach(handle);
    this.#documents.delete(handle);
    return this.#endIfIdle();
  }

  /** Deletes copies. */
  destroy(message: Omit<ToCore['destroy'], 'call'>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.call('destroy', message, (answer) => {
        if (answer.type === 'failed') reject(answer.error);
        else resolve();
      });
    });
  }

  async #endIfIdle(): Promise<void> {
    if (this.#documents.size > 0 || this.#calls > 0) return;
    clearInterval(this.#looks);
    const end = (): Promise<void> =>
      this.engine.end(CLOSE_MS - Math.min(performance.now() - this.#closingAt, CALL_MS));
    this.#ended ??= this.#whenIdle(end).finally(() => clearInterval(this.#keepAlive));
    await this.#ended;
  }

  /** A folder is kept until somebody deletes it, and has room as long as its disk has. */
  async #lookAtDisk(folder: string): Promise<void> {
    try {
      const { bavail, bsize } = await statfs(folder);
      const files = await Promise.all(
        (await readdir(folder)).map((name) => stat(path.join(folder, name))),
      );
      const usage = files.reduce((sum, { size }) => sum + size, 0);
      this.tell('device', { persisted: true, usage, quota: usage + bavail * bsize });
    } catch {
      // A file may have gone meanwhile; whatever else is wrong is told by the engine.
    }
  }

  /** The core knows of browsers alone. */
  #standing(status: Status): Status {
    const isIn = this.#folder === undefined ? 'memory' : 'folder';
    const storage = status.storage === 'waiting' ? 'waiting' : isIn;
    return { ...status, storage, engine: 'worker' };
  }
}

/** A token that cannot be had is no end of the process: the core asks again, after a while. */
function tolerant(getToken: GetToken): GetToken {
  return async () => {
    try {
      return await getToken();
    } catch (error) {
      console.error('tidelog: there is no token:', error);
      return undefined as unknown as string;
    }
  };
}
