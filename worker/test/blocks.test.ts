import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { ReplyHost } from '../wasm/page_server.js';

const store = vi.hoisted(() => ({ openBlocks: vi.fn() }));
vi.mock('../wasm/page_server.js', () => store);

afterEach(() => vi.unstubAllGlobals());

test('a lock that was refused once is asked for again', async () => {
  const { openBlocks } = await import('../src/blocks.js');
  const request = vi.fn(async (_: string, granted: () => unknown) => void granted());
  request.mockRejectedValueOnce(new DOMException('not now'));
  vi.stubGlobal('navigator', { locks: { request } });
  const open = vi.fn(() => {
    throw new DOMException('not here');
  });
  vi.stubGlobal('indexedDB', { open });
  await expect(openBlocks(() => {})).rejects.toThrow('not now');
  await expect(openBlocks(() => {})).rejects.toThrow('not here');
});

/** A database that says when somebody else wants to delete it, and its connections. */
class Databases {
  readonly connections: { onversionchange?: () => void; isOpen: boolean }[] = [];
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
      request.result = this.#connect();
      if (isMade) call('onupgradeneeded');
      call(this.version === 0 ? 'onerror' : 'onsuccess');
    };
    queueMicrotask(answer);
    return request;
  }

  #connect(): object {
    const made = { put: () => {}, get: () => succeeding(7) };
    const connection = {
      isOpen: true,
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
    for (const _ of [1, 2]) (await openBlocks(lost)).open({ failed } as never);
    await settled();
    expect([failed.mock.calls.length, databases.openCount]).toEqual([2, 1]);
    databases.delete();
    expect([lost.mock.calls.length, databases.openCount]).toEqual([1, 0]);
  });

  test('is of a newer version', async () => {
    const { openBlocks } = await import('../src/blocks.js');
    const lost = vi.fn();
    databases.version = 2;
    await expect(openBlocks(lost)).rejects.toMatchObject({ kind: 'newer-format' });
    await settled();
    databases.delete();
    expect([lost.mock.calls.length, databases.openCount]).toEqual([1, 0]);
  });

  test('is damaged, and the database gone before anybody could listen', async () => {
    const { openBlocks } = await import('../src/blocks.js');
    const lost = vi.fn();
    store.openBlocks.mockImplementation((database: IDBDatabase, host: ReplyHost) => {
      database.close();
      host.failed(2, 'damaged');
      databases.delete();
    });
    (await openBlocks(lost)).open({ failed: () => {} } as never);
    await settled();
    expect([lost.mock.calls.length, databases.version]).toEqual([1, 0]);
  });
});
