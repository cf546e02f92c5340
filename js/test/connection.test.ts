import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Writer } from '../src/codec.js';
import { Connection } from '../src/connection.js';
import { doctype } from '../src/doctype.js';
import { InvalidOptionError } from '../src/errors.js';
import { type Answer, writeToCore } from '../src/messages.js';
import { destroy, open } from '../src/open.js';
import type { TakeOver } from '../src/ports.js';

const NOWHERE = { workerUrl: undefined, coreWasmUrl: undefined, pageServerWasmUrl: undefined };
const KIND = doctype({ name: 'a', migrations: [], mutations: {} });

// Tabs of earlier tests go on meanwhile, and find no browser any more.
globalThis.reportError ??= () => {};

/** The lock of a core of our build. */
const LOCK = 'tidelog-core:0.1.0+00000000 module https://app.example/w.js 4 1';

/** What a tab says to a core, which greets it at once. */
class Core {
  static started: Core[] = [];
  readonly said: unknown[] = [];
  readonly port = {
    onmessage: (_: unknown) => {},
    onmessageerror: undefined as (() => void) | undefined,
    postMessage: (message: { type?: string }) => {
      this.said.push(message);
      const welcome = { type: 'welcome', lock: LOCK };
      if (message.type === 'hello') queueMicrotask(() => this.port.onmessage({ data: welcome }));
    },
    close: vi.fn(),
  };
  readonly url: string;
  readonly place: string;

  constructor(url: string | URL, { name }: { name: string }) {
    this.url = String(url);
    this.place = name.replace('tidelog-core-0.1.0+00000000-', '');
    Core.started.push(this);
  }
}

/** Every lock is free but those of cores, which somebody holds. */
const locks = {
  query: async () => ({ held: [] }),
  request: async (name: string, ...rest: unknown[]) => {
    if (name === LOCK) {
      watched.push(rest[0] as LockOptions);
      return;
    }
    await held;
    const granted = rest.at(-1) as () => unknown;
    taken.push(name);
    await granted();
    taken.splice(taken.indexOf(name), 1);
  },
};

/** Names of the locks that are held. */
let taken: string[] = [];

/** How the locks of cores were asked for. */
let watched: LockOptions[] = [];

/** Those of tabs that are held. */
const ofTabs = (): string[] => taken.filter((name) => name.startsWith('tidelog-tab:'));

/** Until then no lock is granted. */
let held: Promise<unknown> | undefined;

const storage = {
  estimate: vi.fn(async () => ({ usage: 1, quota: 2 })),
  persist: vi.fn(async () => true),
  persisted: vi.fn(async () => true),
};

beforeEach(() => {
  Reflect.deleteProperty(globalThis, Symbol.for('tidelog-welcomed'));
  Core.started = [];
  taken = [];
  watched = [];
  held = undefined;
  vi.stubGlobal('navigator', { locks, storage, userAgentData: {} });
  vi.stubGlobal('location', { href: 'https://app.example/' });
  vi.stubGlobal('SharedWorker', Core);
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
  vi.clearAllMocks();
});

/** Lets all that is due in this turn of the event loop happen. */
const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

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

/** Lists of messages that were posted. */
const listsTo = (core: Core | undefined): unknown[] =>
  core!.said.filter((message) => message instanceof Uint8Array);

const ask = (connection: Connection): number =>
  connection.call('query', { handle: 1, sql: '', params: [] }, () => {});

test('an option that is misspelled is not left out in silence', async () => {
  const options = { document: 'd', sever: 'wss://sync.example' };
  await expect(open(KIND, options)).rejects.toThrow('there is no option sever');
});

test.each([
  ['http://sync.example', /begins with ws/],
  ['ws://', /begins with ws/],
  ['ws://sync.example?user=1', /without spaces, \? and #/],
  ['ws://sync.example/a?', /without spaces, \? and #/],
  ['wss://sync.example#a', /without spaces, \? and #/],
  ['ws://sync.example ', /without spaces, \? and #/],
  ['ws://sync.example:8787/v1/sync', /without \/v1\/sync/],
  [new URL('wss://sync.example/a/v1/sync/'), /without \/v1\/sync/],
])('a server at %s, which could never be reached, is refused', async (server, why) => {
  const opening = open(KIND, { document: 'd', server });
  const refused = { code: 'invalid-option', message: expect.stringMatching(why) };
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error('not refused'))));
  await expect(Promise.race([opening, late])).rejects.toMatchObject(refused);
});

test('W21: the browser is asked once to keep the data, and often whether it does', async () => {
  vi.useFakeTimers();
  const connection = new Connection(NOWHERE);
  const document = { news: () => {}, lost: () => {} };
  for (const handle of [1, 2]) connection.attach(handle, document);
  await vi.advanceTimersByTimeAsync(300_000);
  expect(storage.persist).toHaveBeenCalledTimes(1);
  expect(storage.persisted).toHaveBeenCalledTimes(10);
});

test('a device is looked at for as long as a document is open, and no longer', async () => {
  vi.useFakeTimers();
  const connection = new Connection(NOWHERE);
  const document = { news: () => {}, lost: () => {} };
  const looks = async (): Promise<number> => {
    storage.estimate.mockClear();
    await vi.advanceTimersByTimeAsync(300_000);
    return storage.estimate.mock.calls.length;
  };
  for (const handle of [1, 2]) connection.attach(handle, document);
  connection.detach(1);
  expect(await looks()).toBeGreaterThan(5);
  connection.detach(2);
  expect(await looks()).toBe(0);
  connection.attach(3, document);
  expect(await looks()).toBeGreaterThan(5);
});

test('W25: each set of addresses is used, and one set by one connection', async () => {
  for (const name of ['one', 'two', 'one', 'two']) {
    const workerUrl = `/${name}.js`;
    void open(KIND, { document: 'd', workerUrl }).catch(() => {});
  }
  await settled();
  expect(Core.started.map(({ url }) => url)).toEqual([
    'https://app.example/one.js',
    'https://app.example/two.js',
  ]);
});

test('an address is that of the same server with and without a slash behind it', async () => {
  const asked: unknown[] = [];
  const address = 'wss://sync.example';
  for (const server of [address, `${address}//`, new URL(address)]) {
    void open(KIND, { document: 'd', server, workerUrl: `/${asked.length}.js` }).catch(() => {});
    await settled();
    asked.push(listsTo(Core.started.at(-1))[0]);
  }
  expect(new Set(asked.map(String)).size).toBe(1);
});

/** Opens a document with a token function, and has its core ask for a token, which is given. */
async function giveToken(workerUrl: string, token: () => Promise<string>): Promise<Uint8Array> {
  const server = 'wss://sync.example';
  void open(KIND, { document: 'd', server, token, workerUrl }).catch(() => {});
  await settled();
  const [core] = Core.started;
  const before = listsTo(core).length;
  const wanted = new Writer();
  wanted.u64(1);
  // After nine kinds of answers and two of other news; of the first handle.
  wanted.u32(11);
  wanted.u32(1);
  core!.port.onmessage({ data: wanted.take() });
  await settled();
  const said = listsTo(core).slice(before);
  expect(said).toHaveLength(1);
  return said[0] as Uint8Array;
}

test('a token is asked for before its document is open', async () => {
  const token = vi.fn(async () => 'a secret');
  const said = await giveToken('/token.js', token);
  expect(token).toHaveBeenCalledTimes(1);
  expect(new TextDecoder().decode(said)).toContain('a secret');
});

test('W8: a token function that throws is reported, and gives none', async () => {
  const report = vi.spyOn(globalThis, 'reportError').mockImplementation(() => {});
  const fault = new Error('the session is over');
  const said = await giveToken('/throws.js', async () => {
    throw fault;
  });
  expect(report).toHaveBeenCalledWith(fault);
  const none = new Writer();
  none.u64(1);
  writeToCore(none, 'token', { handle: 1, token: null });
  // Behind how many lists were heard.
  expect(said.subarray(8)).toEqual(none.take().subarray(8));
});

test('a worker that may not even be asked for is no page server, and harms nothing', async () => {
  vi.stubGlobal(
    'Worker',
    class {
      constructor() {
        throw new DOMException('of another origin', 'SecurityError');
      }
    },
  );
  const connection = new Connection(NOWHERE);
  ask(connection);
  await settled();
  const [core] = Core.started;
  expect(core!.said).toContainEqual(expect.objectContaining({ type: 'lendFailed' }));
  const before = listsTo(core).length;
  ask(connection);
  await settled();
  expect(listsTo(core)).toHaveLength(before + 1);
});

/** Locks whose names begin like this are refused, until they are not. */
function refuse(start: string): { isRefused: boolean } {
  const how = { isRefused: true };
  const request = async (name: string, ...rest: unknown[]) => {
    if (how.isRefused && name.startsWith(start)) throw new DOMException('not now');
    await locks.request(name, ...rest);
  };
  vi.stubGlobal('navigator', { locks: { ...locks, request }, storage, userAgentData: {} });
  return how;
}

test('a lock that was refused once is asked for again', async () => {
  const how = refuse('tidelog-tab:');
  const connection = new Connection(NOWHERE);
  ask(connection);
  await settled();
  how.isRefused = false;
  ask(connection);
  await settled();
  expect(ofTabs()).toHaveLength(1);
});

test('a turn to lend that was refused is told, and asked for again', async () => {
  vi.useFakeTimers();
  const spawned = vi.fn(
    class {
      postMessage(): void {}
    },
  );
  vi.stubGlobal('Worker', spawned);
  const how = refuse('tidelog-lend-next');
  ask(new Connection(NOWHERE));
  await vi.advanceTimersByTimeAsync(0);
  const reason = expect.stringContaining('not now');
  expect(Core.started[0]!.said).toContainEqual({ type: 'lendFailed', reason });
  how.isRefused = false;
  await vi.advanceTimersByTimeAsync(1_000);
  expect(spawned).toHaveBeenCalledTimes(1);
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

test('a core whose end cannot be waited for is left, and another one asked', async () => {
  vi.useFakeTimers();
  const how = refuse(LOCK);
  ask(new Connection(NOWHERE));
  await vi.advanceTimersByTimeAsync(0);
  const [asked] = listsTo(Core.started[0]) as Uint8Array[];
  how.isRefused = false;
  await vi.advanceTimersByTimeAsync(1_000);
  expect(Core.started).toHaveLength(2);
  expect(String(listsTo(Core.started[1])[0])).toContain(String(asked!.slice(8)));
  expect(watched.map(({ signal }) => signal?.aborted)).toEqual([false]);
});

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

test('a core that nothing can be sent to is no core', async () => {
  vi.useFakeTimers();
  class Deaf extends Core {
    constructor(url: string | URL, options: { name: string }) {
      super(url, options);
      const { postMessage } = this.port;
      this.port.postMessage = (message) => {
        if (message instanceof Uint8Array) throw new DOMException('no', 'DataCloneError');
        postMessage(message);
      };
    }
  }
  vi.stubGlobal('SharedWorker', Deaf);
  const told = vi.fn();
  new Connection(NOWHERE).call('query', { handle: 1, sql: '', params: [] }, told);
  await vi.advanceTimersByTimeAsync(30_000);
  expect(told).toHaveBeenCalledWith(expect.objectContaining({ type: 'failed' }), true);
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

test('a look for cores that is never answered is not the last', async () => {
  vi.useFakeTimers();
  const answers = [() => new Promise(() => {}), locks.query];
  const query = () => (answers.shift() ?? locks.query)();
  vi.stubGlobal('navigator', { locks: { ...locks, query }, storage, userAgentData: {} });
  const connection = new Connection(NOWHERE);
  connection.call('sync', { handle: 1 }, () => {}, false);
  await vi.advanceTimersByTimeAsync(9_000);
  expect(Core.started).toHaveLength(0);
  await vi.advanceTimersByTimeAsync(2_000);
  expect(Core.started).toHaveLength(1);
  const [asked] = listsTo(Core.started[0]);
  const alone = new Writer();
  writeToCore(alone, 'sync', { call: 1, handle: 1 });
  expect(String(asked)).toContain(String(alone.take()));
});

test('a lock that the browser does not grant is asked for again, on another port', async () => {
  vi.useFakeTimers();
  const unanswered: LockOptions[] = [];
  let isDeaf = true;
  const request = async (name: string, ...rest: unknown[]) => {
    if (isDeaf && name.startsWith('tidelog-tab:')) {
      unanswered.push(rest[0] as LockOptions);
      await new Promise(() => {});
    }
    await locks.request(name, ...rest);
  };
  vi.stubGlobal('navigator', { locks: { ...locks, request }, storage, userAgentData: {} });
  const told = vi.fn();
  const connection = new Connection(NOWHERE);
  connection.call('sync', { handle: 1 }, told, false);
  await vi.advanceTimersByTimeAsync(25_000);
  const isClosed = () => Core.started.map(({ port }) => port.close.mock.calls.length > 0);
  expect(isClosed()).toEqual([true, true, false]);
  expect(unanswered.map(({ signal }) => signal?.aborted)).toEqual([true, true, false]);
  isDeaf = false;
  await vi.advanceTimersByTimeAsync(10_000);
  expect(isClosed()).toEqual([true, true, true, false]);
  expect(Core.started.map((core) => listsTo(core).length > 0)).toEqual([false, false, false, true]);
  expect([ofTabs().length, told.mock.calls.length]).toEqual([1, 0]);
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

test('a page that is put aside while it is hidden already holds nothing', async () => {
  const page = pageThatIs('hidden');
  ask(new Connection(NOWHERE));
  await settled();
  page.tell('pagehide', { persisted: true });
  await settled();
  expect(ofTabs()).toEqual([]);
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

test('a page that is put aside before it has found a core takes no lock afterwards', async () => {
  const page = pageThatIs('visible');
  ask(new Connection(NOWHERE));
  page.tell('pagehide', { persisted: true });
  page.visibilityState = 'hidden';
  page.tell('visibilitychange');
  await settled();
  expect(ofTabs()).toEqual([]);
});

test('a browser that does not say how much room there is is not asked in vain', async () => {
  const unhandled = vi.fn();
  process.on('unhandledRejection', unhandled);
  storage.estimate.mockRejectedValue(new TypeError('not here'));
  new Connection(NOWHERE).attach(1, { news: () => {}, lost: () => {} });
  await settled();
  await settled();
  process.off('unhandledRejection', unhandled);
  expect(unhandled).not.toHaveBeenCalled();
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

test('a lock of a core that has died is not taken for a core, whoever watched it', async () => {
  const name = 'tidelog-core:0.1.1+00000001 module https://app.example/w.js 1';
  const query = async () => ({ held: [{ name, mode: 'shared' }] });
  vi.stubGlobal('navigator', { locks: { ...locks, query }, storage, userAgentData: {} });
  const caller = vi.fn();
  new Connection(NOWHERE).call('query', { handle: 1, sql: '', params: [] }, caller);
  await settled();
  expect([caller.mock.calls, Core.started.length]).toEqual([[], 1]);
});

test.each([
  ['says so', { type: 'otherBuild' }],
  ['does not say so', { type: 'welcome', lock: LOCK.replace('0.1.0', '0.2.0') }],
])(
  'a script of another build that %s is left, and the page has to be loaded anew',
  async (_, it) => {
    class Other extends Core {
      constructor(url: string | URL, options: { name: string }) {
        super(url, options);
        this.port.postMessage = (message) => this.said.push(message);
      }
    }
    vi.stubGlobal('SharedWorker', Other);
    const told: Answer[] = [];
    const ask = { handle: 1, sql: '', params: [] };
    new Connection(NOWHERE).call('query', ask, (answer) => told.push(answer));
    await settled();
    const { said, port } = Core.started[0]!;
    expect(said[0]).toMatchObject({ type: 'hello', build: '0.1.0+00000000' });
    const before = said.length;
    port.onmessage({ data: it });
    await settled();
    const error = { code: 'engine', message: expect.stringContaining('load this page anew') };
    expect(told).toMatchObject([{ type: 'failed', error }]);
    expect([said.length, watched.length, Core.started.length]).toEqual([before, 0, 1]);
  },
);

test('a core that is not where its lock says is left for the one at our own address', async () => {
  class Silent extends Core {
    constructor(url: string | URL, options: { name: string }) {
      super(url, options);
      const { postMessage } = this.port;
      this.port.postMessage = url === 'https://app.example/own.js' ? postMessage : () => {};
    }
  }
  vi.stubGlobal('SharedWorker', Silent);
  const query = async () => ({ held: [{ name: LOCK, mode: 'exclusive' }] });
  vi.stubGlobal('navigator', { locks: { ...locks, query }, storage, userAgentData: {} });
  ask(new Connection({ ...NOWHERE, workerUrl: 'https://app.example/own.js' }));
  await settled();
  Core.started[0]!.port.onmessage({ data: { type: 'elsewhere' } });
  await settled();
  expect(Core.started.map(({ url, place }) => [url, place])).toEqual([
    ['https://app.example/w.js', '4'],
    ['https://app.example/own.js', '5'],
  ]);
  expect(watched).toHaveLength(1);
});

test('a worker that shall lend a page server is told the build', async () => {
  const told: unknown[] = [];
  class Lent {
    postMessage(message: unknown): void {
      told.push(message);
    }
  }
  vi.stubGlobal('Worker', Lent);
  ask(new Connection(NOWHERE));
  await settled();
  expect(told).toMatchObject([{ type: 'prepare', build: '0.1.0+00000000' }]);
});

describe('of two cores that began at once one gives way', () => {
  const OURS = 'tidelog-core:0.1.0+00000000';
  const OLDER = 'tidelog-core:0.0.9+00000001';
  const NEWER = 'tidelog-core:0.1.1+00000001';
  const BUILD = 'tidelog-core:0.1.0+00000001';

  /** The locks that a tab names which found these cores, and then these. */
  async function namedBy(before: string[], then: string[]): Promise<unknown> {
    const found = (names: string[]) => ({
      held: names.map((name) => ({
        name: `${name} module https://app.example/w.js 1`,
        mode: 'exclusive',
      })),
    });
    const query = vi.fn().mockResolvedValueOnce(found(before)).mockResolvedValue(found(then));
    vi.stubGlobal('navigator', { locks: { ...locks, query }, storage, userAgentData: {} });
    ask(new Connection(NOWHERE));
    await settled();
    const said = Core.started[0]!.said as { type?: string }[];
    return (said.find(({ type }) => type === 'takeOver') as TakeOver | undefined)?.locks;
  }

  test.each([
    ['no other', [], [], undefined],
    ['an older release that was there', [OLDER], [OLDER], [OLDER]],
    ['another build that was there', [BUILD], [BUILD], [BUILD]],
    ['an older release', [], [OLDER], [OLDER]],
    ['a newer release', [], [NEWER], [OURS]],
    ['one of two builds', [], [BUILD], [OURS]],
    ['a newer release, of three', [OLDER], [OLDER, NEWER], [OURS]],
  ])('%s', async (_, before, then, named) => {
    expect(await namedBy(before, [OURS, ...then])).toEqual(named);
  });
});

test('names of which two would travel as the same one are refused', async () => {
  for (const half of ['\ud800', 'a\udc00']) {
    for (const names of [{ document: half }, { document: 'list', user: half }]) {
      await expect(open(KIND, names)).rejects.toThrow(InvalidOptionError);
      await expect(destroy(names.document, names)).rejects.toThrow(InvalidOptionError);
    }
  }
  expect(Core.started).toEqual([]);
});
