/** What a process has open in one folder, or in memory: one tab, and one engine for it. */

import { clearInterval, clearTimeout, setInterval, setTimeout } from 'node:timers';
import { Connection, type GetToken, type OpenDocument } from '../connection.js';
import type { Answer, ToCore } from '../messages.js';
import type { Status } from '../status.js';
import type { TabHost } from '../tab-host.js';
import { NodeEngine } from './engine.js';
import { provideReportError } from './report-error.js';

/** No script and no module is loaded by a tab. */
const PLACES = { workerUrl: undefined, coreWasmUrl: undefined, pageServerWasmUrl: undefined };

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
      const timer = setTimeout(wake, Math.min(ms, 2 ** 31 - 1)).unref();
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
  readonly #isIn: 'folder' | 'memory';
  /** Documents that are open, or being opened, by handle. */
  readonly #documents = new Set<number>();
  /** Calls that are under way. */
  #calls = 0;
  #ended: Promise<void> | undefined;
  readonly #keepAlive = setInterval(() => {}, 2 ** 30);
  readonly #whenIdle: (device: Device) => Promise<void>;

  /** `whenIdle` is called once nothing is open any more. */
  constructor(folder: string | undefined, whenIdle: (device: Device) => Promise<void>) {
    provideReportError();
    let made: NodeEngine | undefined;
    super(
      PLACES,
      hostOf(folder, (engine) => {
        made = engine;
      }),
    );
    this.engine = made!;
    this.#isIn = folder === undefined ? 'memory' : 'folder';
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
    this.#ended ??= this.#whenIdle(this).finally(() => clearInterval(this.#keepAlive));
    await this.#ended;
  }

  /** The core knows of browsers alone. */
  #standing(status: Status): Status {
    const storage = status.storage === 'waiting' ? 'waiting' : this.#isIn;
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
