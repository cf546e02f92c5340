import { expect, test, vi } from 'vitest';
import { Writer } from '../src/codec.js';
import { Connection } from '../src/connection.js';
import { type Answer, writeToCore } from '../src/messages.js';
import { ask, Core, listsTo, NOWHERE, settled, setUpBrowser } from './fake-browser.js';

setUpBrowser();

test.each([
  ['cannot be read', (core: Core) => core.port.onmessage({ data: new Uint8Array([1]) })],
  ['did not get through', (core: Core) => core.port.onmessageerror?.()],
  ['the core cannot read', (core: Core) => core.port.onmessage({ data: { type: 'unread' } })],
])('what was in a list that %s is asked for again', async (_, tell) => {
  vi.useFakeTimers();
  vi.stubGlobal('reportError', () => {});
  ask(new Connection(NOWHERE));
  await vi.advanceTimersByTimeAsync(0);
  const [core] = Core.started;
  const [asked] = listsTo(core) as Uint8Array[];
  try {
    tell(core!);
  } catch {
    // It is an error of the page then.
  }
  await vi.advanceTimersByTimeAsync(1_000);
  expect(Core.started).toHaveLength(2);
  expect(String(listsTo(Core.started[1])[0])).toContain(String(asked!.slice(8)));
});

test('what was in a list that cannot be sent is asked for again', async () => {
  vi.useFakeTimers();
  const connection = new Connection(NOWHERE);
  ask(connection);
  await vi.advanceTimersByTimeAsync(0);
  const [core] = Core.started;
  const [asked] = listsTo(core) as Uint8Array[];
  core!.port.postMessage = () => {
    throw new DOMException('out of memory', 'DataCloneError');
  };
  const told = vi.fn();
  connection.call('sync', { handle: 1 }, told, false);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(Core.started).toHaveLength(2);
  expect(String(listsTo(Core.started[1])[0])).toContain(String(asked!.slice(8)));
  expect(told).not.toHaveBeenCalled();
});

test('a message that cannot be written spoils nothing of what travels with it', async () => {
  const told: Answer[] = [];
  const connection = new Connection(NOWHERE);
  ask(connection);
  await settled();
  const [core] = Core.started;
  const blob = {
    get length(): number {
      throw new RangeError('Array buffer allocation failed');
    },
  };
  const params = [blob as unknown as Uint8Array];
  vi.stubGlobal('reportError', () => {});
  connection.call('query', { handle: 1, sql: 'a', params }, (answer) => told.push(answer));
  connection.call('query', { handle: 1, sql: 'b', params: [] }, () => {});
  await settled();
  expect(told.map(({ type }) => type)).toEqual(['failed']);
  const alone = new Writer();
  alone.u64(1);
  writeToCore(alone, 'query', { call: 3, handle: 1, sql: 'b', params: [] });
  expect(listsTo(core).at(-1)).toEqual(alone.take());
});

test('what has no answer and cannot be written is said to the next core', async () => {
  vi.useFakeTimers();
  vi.stubGlobal('reportError', () => {});
  const connection = new Connection(NOWHERE);
  ask(connection);
  await vi.advanceTimersByTimeAsync(0);
  const [core] = Core.started;
  const [asked] = listsTo(core) as Uint8Array[];
  let isFull = true;
  const device = {
    persisted: false,
    quota: 0,
    get usage(): number {
      if (isFull) throw new RangeError('Array buffer allocation failed');
      return 7;
    },
  };
  connection.tell('device', device);
  isFull = false;
  await vi.advanceTimersByTimeAsync(1_000);
  expect(Core.started).toHaveLength(2);
  const said = String(listsTo(Core.started[1])[0]);
  const alone = new Writer();
  writeToCore(alone, 'device', { persisted: false, usage: 7, quota: 0 });
  expect(said).toContain(String(alone.take()));
  expect(said).toContain(String(asked!.slice(8)));
});

test('what is said in one turn travels in several lists where it is large', async () => {
  const connection = new Connection(NOWHERE);
  ask(connection);
  await settled();
  const before = listsTo(Core.started[0]).length;
  const params = [new Uint8Array(2 ** 20)];
  for (let nth = 0; nth < 6; nth++) {
    connection.call('query', { handle: 1, sql: '', params }, () => {});
  }
  await settled();
  const sizes = (listsTo(Core.started[0]) as Uint8Array[]).slice(before).map((it) => it.length);
  expect(sizes.reduce((sum, size) => sum + size)).toBeGreaterThan(6 * 2 ** 20);
  expect(Math.max(...sizes)).toBeLessThan(3 * 2 ** 20);
});

test('a core that counts each message of a long list is told that all were heard', async () => {
  ask(new Connection(NOWHERE));
  await settled();
  const [core] = Core.started;
  const before = listsTo(core).length;
  // As many answers to `sync` as a core holds everything else back for.
  const MESSAGES = 4_096;
  const told = new Writer();
  told.u64(MESSAGES);
  for (let call = 1_000; call < 1_000 + MESSAGES; call++) {
    told.u32(7);
    told.u32(call);
  }
  core!.port.onmessage({ data: told.take() });
  await settled();
  expect(listsTo(core)).toHaveLength(before + 1);
});
