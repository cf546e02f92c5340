import { beforeEach, expect, test, vi } from 'vitest';
import { Connection } from '../src/connection.js';
import {
  ask,
  Core,
  listsTo,
  locks,
  NOWHERE,
  ofTabs,
  settled,
  setUpBrowser,
  storage,
  taken,
  watched,
} from './fake-browser.js';

/** Until then no lock is granted. */
let held: Promise<unknown> | undefined;

setUpBrowser(() => held);

beforeEach(() => {
  held = undefined;
});

/** A page that tells what becomes of it. */
function pageThatIs(visibilityState: DocumentVisibilityState) {
  const target = new EventTarget();
  const addEventListener = target.addEventListener.bind(target);
  const tell = (type: string, details = {}): void => {
    target.dispatchEvent(Object.assign(new Event(type), details));
  };
  const page = { visibilityState, addEventListener, tell };
  vi.stubGlobal('addEventListener', addEventListener);
  vi.stubGlobal('document', page);
  return page;
}

test('what a page that is rendered ahead asks has its time once somebody looks', async () => {
  vi.useFakeTimers();
  const page = Object.assign(pageThatIs('hidden'), { prerendering: true });
  // There a browser answers nothing that is asked of locks.
  let look = (_?: unknown): void => {};
  const looked = new Promise((resolve) => {
    look = resolve;
  });
  const query = vi.fn(() => looked.then(locks.query));
  vi.stubGlobal('navigator', { locks: { ...locks, query }, storage, userAgentData: {} });
  const caller = vi.fn();
  new Connection(NOWHERE).call('query', { handle: 1, sql: '', params: [] }, caller);
  await vi.advanceTimersByTimeAsync(120_000);
  expect([caller.mock.calls, query.mock.calls.length]).toEqual([[], 0]);

  page.prerendering = false;
  page.tell('prerenderingchange');
  look();
  await vi.advanceTimersByTimeAsync(0);
  expect(listsTo(Core.started[0])).not.toEqual([]);
  await vi.advanceTimersByTimeAsync(61_000);
  expect(caller.mock.calls).toMatchObject([[{ type: 'failed' }, true]]);
});

test('a page whose app has workers at two addresses is new but once', async () => {
  for (const workerUrl of ['https://app.example/one.js', 'https://app.example/two.js']) {
    ask(new Connection({ ...NOWHERE, workerUrl }));
    await settled();
  }
  // So is one that has loaded this package twice.
  vi.resetModules();
  const again = await import('../src/connection.js');
  ask(new again.Connection(NOWHERE));
  await settled();
  const hellos = Core.started.map(({ said }) => said[0]);
  expect(hellos).toMatchObject([{ isNew: true }, { isNew: false }, { isNew: false }]);
});

test('a page that comes back says so to the core: it is not one that was just loaded', async () => {
  const page = pageThatIs('visible');
  ask(new Connection(NOWHERE));
  await settled();
  page.tell('freeze');
  page.tell('resume');
  await settled();
  const hellos = Core.started.map(({ said }) => said[0]);
  expect(hellos).toMatchObject([{ isNew: true }, { isNew: false }]);
});

test('a page that is frozen holds nothing until it goes on', async () => {
  const page = pageThatIs('hidden');
  ask(new Connection(NOWHERE));
  await settled();
  expect(ofTabs()).toHaveLength(1);
  page.tell('freeze');
  await settled();
  expect(ofTabs()).toEqual([]);
  page.tell('resume');
  await settled();
  expect([Core.started.length, ofTabs().length]).toEqual([2, 1]);
});

test('a lock that is granted as it is given up is let go of', async () => {
  const page = pageThatIs('hidden');
  let grant = (_?: unknown): void => {};
  held = new Promise((resolve) => {
    grant = resolve;
  });
  ask(new Connection(NOWHERE));
  await settled();
  grant();
  page.tell('freeze');
  await settled();
  expect([ofTabs(), Core.started[0]!.port.close.mock.calls.length]).toEqual([[], 1]);
});

test('a page that is put aside while it is hidden already holds nothing', async () => {
  const page = pageThatIs('hidden');
  ask(new Connection(NOWHERE));
  await settled();
  page.tell('pagehide', { persisted: true });
  await settled();
  expect(ofTabs()).toEqual([]);
});

test('a page that is put aside before it has found a core takes no lock afterwards', async () => {
  const page = pageThatIs('visible');
  ask(new Connection(NOWHERE));
  page.tell('pagehide', { persisted: true });
  page.visibilityState = 'hidden';
  page.tell('visibilitychange');
  await settled();
  expect(ofTabs()).toEqual([]);
});

test('a turn to lend that comes once it was given up is given back', async () => {
  const page = pageThatIs('hidden');
  let grant = (_?: unknown): void => {};
  const granted = new Promise((resolve) => {
    grant = resolve;
  });
  const request = async (name: string, ...rest: unknown[]) => {
    if (name === 'tidelog-lend-next') await granted;
    await locks.request(name, ...rest);
  };
  const spawned = vi.fn();
  vi.stubGlobal('Worker', spawned);
  vi.stubGlobal('navigator', { locks: { ...locks, request }, storage, userAgentData: {} });
  ask(new Connection(NOWHERE));
  await settled();
  page.tell('pagehide', { persisted: true });
  grant();
  await settled();
  expect(taken).toEqual([]);
  expect(spawned).not.toHaveBeenCalled();
});

test('a core that was left is not watched any more', async () => {
  const page = pageThatIs('hidden');
  ask(new Connection(NOWHERE));
  await settled();
  page.tell('pagehide', { persisted: true });
  page.tell('pageshow', { persisted: true });
  await settled();
  expect(watched.map(({ signal }) => signal?.aborted)).toEqual([true, false]);
});

test('W22: a page that is put aside while it looks for a core says hello to none', async () => {
  const listeners: Record<string, (event: object) => void> = {};
  const addEventListener = (type: string, listener: (event: object) => void): void => {
    listeners[type] = listener;
  };
  vi.stubGlobal('addEventListener', addEventListener);
  vi.stubGlobal('document', { visibilityState: 'hidden', addEventListener });
  let grant = (_?: unknown): void => {};
  held = new Promise((resolve) => {
    grant = resolve;
  });
  ask(new Connection(NOWHERE));
  await settled();
  listeners.pagehide!({ persisted: true });
  listeners.visibilitychange!({});
  grant();
  await settled();
  expect(Core.started.flatMap(({ said }) => said)).toEqual([]);
});

test('what an app saves when its page is hidden is said before the page is put aside', async () => {
  type Listeners = Record<string, ((event: object) => void)[]>;
  const [ofWindow, ofDocument]: [Listeners, Listeners] = [{}, {}];
  const listening = (to: Listeners) => (type: string, listener: (event: object) => void) => {
    to[type] = [...(to[type] ?? []), listener];
  };
  vi.stubGlobal('addEventListener', listening(ofWindow));
  const page = { visibilityState: 'visible', addEventListener: listening(ofDocument) };
  vi.stubGlobal('document', page);
  const connection = new Connection(NOWHERE);
  ask(connection);
  await settled();
  const [core] = Core.started;
  const before = listsTo(core).length;
  // An app registers this after it has opened its documents.
  page.addEventListener('visibilitychange', () => ask(connection));

  const tell = (to: Listeners, type: string, event: object): void => {
    for (const listener of to[type] ?? []) listener(event);
  };
  tell(ofWindow, 'pagehide', { persisted: true });
  page.visibilityState = 'hidden';
  // It bubbles.
  for (const target of [ofDocument, ofWindow]) tell(target, 'visibilitychange', {});
  await settled();
  expect(listsTo(core)).toHaveLength(before + 1);
});

test('a page whose data were cleared asks no core that has other locks any more', async () => {
  const connection = new Connection(NOWHERE);
  const caller = vi.fn();
  connection.call('query', { handle: 1, sql: '', params: [] }, caller);
  await settled();
  Core.started[0]!.port.onmessage({ data: { type: 'elsewhere' } });
  await settled();
  Core.started[1]!.port.onmessage({ data: { type: 'apart' } });
  await settled();
  const error = expect.objectContaining({ message: expect.stringContaining('were cleared') });
  expect(caller.mock.calls).toEqual([[{ type: 'failed', error }, true]]);
  ask(connection);
  await settled();
  expect(Core.started).toHaveLength(2);
});

test('a page that was loaded after the data were cleared leaves a core of before', async () => {
  ask(new Connection(NOWHERE));
  await settled();
  Core.started[0]!.port.onmessage({ data: { type: 'apart' } });
  await settled();
  const hellos = Core.started.map(({ place, said }) => [place, said[0]]);
  const hello = expect.objectContaining({ type: 'hello', isNew: true });
  expect(hellos).toEqual([
    ['0', hello],
    ['1', hello],
  ]);
});

test('a page that knows the locks of no core does not leave cores for ever', async () => {
  const caller = vi.fn();
  new Connection(NOWHERE).call('query', { handle: 1, sql: '', params: [] }, caller);
  for (let cores = 0; cores < 50; cores++) {
    await settled();
    Core.started.at(-1)!.port.onmessage({ data: { type: 'apart' } });
  }
  await settled();
  expect(Core.started.length).toBeLessThan(10);
  const error = expect.objectContaining({ code: 'engine' });
  expect(caller.mock.calls).toEqual([[{ type: 'failed', error }, true]]);
});
