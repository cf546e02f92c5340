import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { ReplyHost } from '../wasm/page_server.js';

const store = vi.hoisted(() => ({ openBlocks: vi.fn() }));
vi.mock('../wasm/page_server.js', () => store);

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const pass = (): void => {};

test('a lock that was refused once is asked for again', async () => {
  const { openBlocks } = await import('../src/blocks.js');
  const request = vi.fn(async (_: string, granted: () => unknown) => void granted());
  request.mockRejectedValueOnce(new DOMException('not now'));
  vi.stubGlobal('navigator', { locks: { request } });
  const open = vi.fn(() => {
    throw new DOMException('not here');
  });
  vi.stubGlobal('indexedDB', { open });
  await expect(openBlocks(pass, pass, pass)).rejects.toThrow('not now');
  await expect(openBlocks(pass, pass, pass)).rejects.toThrow('not here');
});

/** A database that says when somebody else wants to delete it, and its connections. */
class Databases {
  readonly connections: {
    onversionchange?: () => void;
    onclose?: () => void;
    /** For the way down to a transaction. */
    capturing: Record<string, (event: Event) => void>;
    isOpen: boolean;
  }[] = [];
  /** What the present one is marked with. */
  madeAt = 7;
  /** Who waits for an answer while there is none. */
  unanswered: (() => void)[] | undefined;
  /** Its version, or 0 if there is none. */
  version = 1;

  open(_: string, wanted?: number): object {
    const error = new DOMException('newer', 'VersionError');
    const request: Record<string, unknown> = { transaction: { abort: () => (this.version = 0) } };
    const answer = (): void => {
      const call = (name: string): void => (request[name] as (() => void) | undefined)?.();
      if (wanted !== undefined && wanted < this.version) {
        request.error = error;
        call('onerror');
        return;
      }
      const isMade = this.version === 0;
      this.version ||= wanted ?? 1;
      const connection = this.#connect();
      request.result = connection;
      if (isMade) call('onupgradeneeded');
      // Whoever gives up making it has no connection.
      if (this.version === 0) connection.isOpen = false;
      call(this.version === 0 ? 'onerror' : 'onsuccess');
    };
    if (this.unanswered) this.unanswered.push(answer);
    else queueMicrotask(answer);
    return request;
  }

  #connect(): { isOpen: boolean } {
    const made = { put: () => {}, get: () => succeeding(this.madeAt) };
    const capturing: Record<string, (event: Event) => void> = {};
    const connection = {
      isOpen: true,
      capturing,
      addEventListener: (type: string, listener: () => void, captures: boolean) => {
        if (captures) capturing[type] = listener;
      },
      removeEventListener: (type: string) => {
        delete capturing[type];
      },
      close: () => {
        connection.isOpen = false;
      },
      createObjectStore: () => made,
      transaction: () => ({ objectStore: () => made }),
    };
    this.connections.push(connection);
    return connection;
  }

  /** Whoever has it open hears of that, and of nothing once it is closed. */
  delete(): void {
    for (const it of this.connections) if (it.isOpen) it.onversionchange?.();
    this.version = 0;
  }

  /** The browser closes what is open, whatever has become of the data. */
  closeAll(): void {
    for (const it of this.connections.filter(({ isOpen }) => isOpen)) {
      it.isOpen = false;
      it.onclose?.();
    }
  }

  get openCount(): number {
    return this.connections.filter(({ isOpen }) => isOpen).length;
  }
}

function succeeding(result: unknown): object {
  const request = { result, onsuccess: () => {} };
  queueMicrotask(() => request.onsuccess());
  return request;
}

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

describe('a store in a database', () => {
  let databases: Databases;
  beforeEach(() => {
    vi.resetModules();
    databases = new Databases();
    vi.stubGlobal('navigator', { locks: { request: async (_: string, it: () => void) => it() } });
    vi.stubGlobal('indexedDB', databases);
  });

  test('is not waited for without end, and what comes late is closed', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const { openBlocks } = await import('../src/blocks.js');
    const late: (() => void)[] = [];
    databases.unanswered = late;
    const opened = openBlocks(pass, pass, pass).catch(String);
    await vi.advanceTimersByTimeAsync(30_000);
    expect(await Promise.race([opened, 'pending'])).toMatch('the database does not open');
    databases.unanswered = undefined;
    await openBlocks(pass, pass, pass);
    for (const answer of late) answer();
    await vi.advanceTimersByTimeAsync(0);
    expect([late.length, databases.connections.length, databases.openCount]).toEqual([1, 2, 1]);
  });

  /** A store that is being read, the event of an answer to it, and what it has said. */
  async function loading() {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const { openBlocks } = await import('../src/blocks.js');
    const host = { opened: vi.fn(), failed: vi.fn() };
    let replies = host;
    store.openBlocks.mockImplementation((_: IDBDatabase, to: typeof host) => {
      replies = to;
    });
    const keep = await openBlocks(pass, pass, pass);
    keep.open(host as never);
    const [database] = databases.connections;
    const answer = (type: 'success' | 'error' = 'success') => {
      const event = { stopPropagation: vi.fn() };
      database!.capturing[type]?.(event as never);
      return event.stopPropagation.mock.calls.length === 0 ? 'heard' : 'kept from it';
    };
    return { keep, host, replies, answer, database: database! };
  }

  test('takes its time, but not for one answer', async () => {
    const { host, answer, database } = await loading();
    for (let nth = 0; nth < 10; nth += 1) {
      await vi.advanceTimersByTimeAsync(8_000);
      expect([answer(), host.failed.mock.calls.length]).toEqual(['heard', 0]);
    }
    await vi.advanceTimersByTimeAsync(12_000);
    expect(host.failed.mock.calls).toEqual([[1, 'the database does not answer']]);
    // What would open it beside the next one goes nowhere.
    expect([answer(), answer('error')]).toEqual(['kept from it', 'kept from it']);
    expect([host.opened.mock.calls.length, database.isOpen]).toEqual([0, false]);
  });

  test('is left in peace once it is open', async () => {
    const { keep, host, replies, answer, database } = await loading();
    replies.opened();
    expect(host.opened).toHaveBeenCalledTimes(1);
    keep.giveUp();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([answer(), host.failed.mock.calls.length, database.isOpen]).toEqual(['heard', 0, true]);
  });

  test('does not open after it was given up', async () => {
    const { keep, host, answer, database } = await loading();
    keep.giveUp();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([answer(), host.failed.mock.calls.length]).toEqual(['kept from it', 0]);
    expect(database.isOpen).toBe(false);
  });

  test.each<[string, (databases: Databases) => void, boolean]>([
    ['as it was is opened anew', () => {}, true],
    [
      'of which nothing can be told now is opened anew',
      (it) => {
        it.open = () => {
          throw new DOMException('not now');
        };
      },
      true,
    ],
    [
      'and cleared is lost',
      (it) => {
        it.version = 0;
      },
      false,
    ],
    [
      'and made anew by somebody is lost',
      (it) => {
        it.madeAt += 1;
      },
      false,
    ],
  ])('that the browser has closed %s', async (_, happen, isThere) => {
    const { openBlocks } = await import('../src/blocks.js');
    const [lost, closed] = [vi.fn(), vi.fn()];
    store.openBlocks.mockImplementation(() => {});
    (await openBlocks(lost, closed, pass)).open({ failed: pass } as never);
    happen(databases);
    databases.closeAll();
    // Nobody may write until it is known what has become of it.
    expect(closed).toHaveBeenCalledTimes(1);
    expect(await closed.mock.calls[0]![0]).toBe(isThere);
    await settled();
    expect([lost.mock.calls.length, closed.mock.calls.length]).toEqual([0, 1]);
    expect([databases.openCount, databases.version === 0]).toEqual([
      0,
      'and cleared is lost' === _,
    ]);
  });
});

test.each([true, false])(
  'what a transaction is aborted for is looked for first: %s',
  async (it) => {
    vi.resetModules();
    const databases = new Databases();
    vi.stubGlobal('navigator', { locks: { request: async (_: string, it: () => void) => it() } });
    vi.stubGlobal('indexedDB', databases);
    const { openBlocks } = await import('../src/blocks.js');
    const aborted = vi.fn();
    await openBlocks(pass, pass, aborted);
    if (!it) databases.version = 0;
    databases.connections[0]!.capturing.abort!(new Event('abort'));
    expect(aborted).toHaveBeenCalledTimes(1);
    expect(await aborted.mock.calls[0]![0]).toBe(it);
  },
);

describe('that a database is deleted is heard where its store', () => {
  let databases: Databases;
  beforeEach(() => {
    vi.resetModules();
    databases = new Databases();
    vi.stubGlobal('navigator', { locks: { request: async (_: string, it: () => void) => it() } });
    vi.stubGlobal('indexedDB', databases);
  });

  test('is damaged, so that its disks have closed it', async () => {
    const { openBlocks } = await import('../src/blocks.js');
    const lost = vi.fn();
    const failed = vi.fn();
    store.openBlocks.mockImplementation((database: IDBDatabase, host: ReplyHost) => {
      host.failed(2, 'damaged');
      database.close();
    });
    // However often that is tried.
    for (const _ of [1, 2]) (await openBlocks(lost, pass, pass)).open({ failed } as never);
    await settled();
    expect([failed.mock.calls.length, databases.openCount]).toEqual([2, 1]);
    databases.delete();
    expect([lost.mock.calls.length, databases.openCount]).toEqual([1, 0]);
  });

  test('is of a newer version', async () => {
    const { openBlocks } = await import('../src/blocks.js');
    const lost = vi.fn();
    databases.version = 2;
    await expect(openBlocks(lost, pass, pass)).rejects.toMatchObject({ kind: 'newer-format' });
    await settled();
    databases.delete();
    expect([lost.mock.calls.length, databases.openCount]).toEqual([1, 0]);
  });

  test.each(['QuotaExceededError', 'AbortError'])('finds no room: %s', async (name) => {
    const { openBlocks } = await import('../src/blocks.js');
    const transaction = { error: new DOMException('full', 'QuotaExceededError') };
    const request = { error: new DOMException('full', name), transaction, onerror: () => {} };
    vi.spyOn(databases, 'open').mockImplementation(() => {
      setTimeout(() => request.onerror());
      return request;
    });
    await expect(openBlocks(pass, pass, pass)).rejects.toMatchObject({ kind: 'full' });
  });

  test('is damaged, and the database gone before anybody could listen', async () => {
    const { openBlocks } = await import('../src/blocks.js');
    const lost = vi.fn();
    store.openBlocks.mockImplementation((database: IDBDatabase, host: ReplyHost) => {
      database.close();
      host.failed(2, 'damaged');
      databases.delete();
    });
    (await openBlocks(lost, pass, pass)).open({ failed: () => {} } as never);
    await settled();
    expect([lost.mock.calls.length, databases.version]).toEqual([1, 0]);
  });
});
