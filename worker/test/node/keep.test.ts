import { mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';

/** The handles that the store was given. */
const given = vi.hoisted(() => ({ files: [] as FileSystemSyncAccessHandle[] }));
vi.mock('../../wasm/page_server.js', () => ({
  openFiles: (...files: FileSystemSyncAccessHandle[]) => {
    given.files = files.slice(0, 3);
  },
}));
vi.mock('../../src/store-host.js', () => ({
  Unopened: class extends Error {
    readonly kind: string;
    constructor(kind: string, reason: unknown) {
      super(String(reason));
      this.kind = kind;
    }
  },
}));

/** What the device does, in the order in which it is asked. */
const device = vi.hoisted(() => ({
  asked: [] as string[],
  fault: undefined as string | undefined,
}));
vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>();
  const failing = <Args extends unknown[], Result>(
    name: string,
    call: (...args: Args) => Result,
  ) => {
    return (...args: Args): Result => {
      device.asked.push(name);
      if (device.fault === undefined) return call(...args);
      throw Object.assign(new Error('the device says so'), { code: device.fault });
    };
  };
  return {
    ...fs,
    writeSync: failing('write', fs.writeSync as (...args: unknown[]) => number),
    ftruncateSync: failing('truncate', fs.ftruncateSync),
    fdatasyncSync: failing('flush', fs.fdatasyncSync),
    fsyncSync: failing('sync names', fs.fsyncSync),
    openSync: failing('open', fs.openSync),
  };
});

const { openFolder, openMemory } = await import('../../src/node/keep.js');

const folders: string[] = [];
afterEach(() => {
  device.fault = undefined;
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function newFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'tidelog-keep-'));
  folders.push(folder);
  return folder;
}

const host = {} as Parameters<Awaited<ReturnType<typeof openMemory>>['open']>[0];

async function filesOf(keeping: ReturnType<typeof openMemory>) {
  (await keeping).open(host);
  return given.files as [
    FileSystemSyncAccessHandle,
    FileSystemSyncAccessHandle,
    FileSystemSyncAccessHandle,
  ];
}

const bytes = (text: string) => new TextEncoder().encode(text);

for (const [where, keeping] of [
  ['a folder', () => openFolder(newFolder(), true)],
  ['memory', openMemory],
] as const) {
  test(`files in ${where} are read and written like those of a browser`, async () => {
    const [log, other] = await filesOf(keeping());
    const read = (at: number, count: number): string => {
      const into = new Uint8Array(count);
      return new TextDecoder().decode(into.subarray(0, log.read(into, { at })));
    };
    expect([log.getSize(), read(0, 4)]).toEqual([0, '']);
    expect(log.write(bytes('tide'), { at: 2 })).toBe(4);
    expect([log.getSize(), read(0, 9)]).toEqual([6, '\0\0tide']);
    log.truncate(4);
    expect([log.getSize(), read(2, 9)]).toEqual([4, 'ti']);
    // What was cut off does not come back.
    log.truncate(7);
    expect([log.getSize(), read(0, 9)]).toEqual([7, '\0\0ti\0\0\0']);
    const large = new Uint8Array(300_000).fill(7);
    expect(log.write(large, { at: 5 })).toBe(large.length);
    expect([log.getSize(), read(4, 2)]).toEqual([300_005, '\0\x07']);
    expect(read(300_004, 9)).toBe('\x07');
    log.flush();
    expect(other.getSize()).toBe(0);
    for (const file of given.files) file.close();
    for (const file of given.files) file.close();
  });
}

test('names are durable before a store is opened, and bytes with a flush', async () => {
  device.asked.length = 0;
  const [log] = await filesOf(openFolder(newFolder(), true));
  expect(device.asked.slice(-2)).toEqual(['open', 'sync names']);
  expect(device.asked.filter((it) => it === 'open').length).toBe(5);
  log.write(bytes('tide'), { at: 0 });
  log.flush();
  expect(device.asked.slice(-2)).toEqual(['write', 'flush']);
  device.fault = 'EIO';
  expect(() => log.flush()).toThrow('the device says so');
});

test('a full device has the name that it has in a browser', async () => {
  const folder = newFolder();
  const [log] = await filesOf(openFolder(folder, true));
  for (device.fault of ['ENOSPC', 'EDQUOT', 'EFBIG']) {
    for (const call of [() => log.write(bytes('x'), { at: 0 }), () => log.truncate(9), log.flush]) {
      expect(() => call.call(log)).toThrow(expect.objectContaining({ name: 'QuotaExceededError' }));
    }
    await expect(openFolder(folder, true)).rejects.toMatchObject({ kind: 'full' });
  }
  device.fault = 'EACCES';
  expect(() => log.truncate(9)).toThrow(expect.objectContaining({ code: 'EACCES' }));
  await expect(openFolder(folder, true)).rejects.toMatchObject({ code: 'EACCES' });
});

test('files that are gone take nothing more, and are not made once more', async () => {
  const folder = newFolder();
  const keep = await openFolder(folder, true);
  keep.open(host);
  const [log] = given.files;
  expect(await keep.isThere()).toBe(true);
  rmSync(folder, { recursive: true });
  expect(await keep.isThere()).toBe(false);
  log!.write(bytes('tide'), { at: 0 });
  expect(() => log!.flush()).toThrow('log-a was deleted');
  await expect(openFolder(folder, false)).rejects.toMatchObject({ kind: 'lost' });
});

test('files that somebody else has put in their place are not opened anew', async () => {
  const [folder, other] = [newFolder(), newFolder()];
  (await openFolder(other, true)).giveUp();
  (await openFolder(folder, true)).giveUp();
  (await openFolder(folder, false)).giveUp();
  rmSync(folder, { recursive: true });
  renameSync(other, folder);
  await expect(openFolder(folder, false)).rejects.toMatchObject({ kind: 'lost' });
});
