import { describe, expect, test, vi } from 'vitest';
import { Writer } from '../src/codec.js';
import { Connection } from '../src/connection.js';
import { destroyAll } from '../src/destroy-all.js';
import { doctype } from '../src/doctype.js';
import { InvalidOptionError } from '../src/errors.js';
import { type Answer, writeToCore } from '../src/messages.js';
import { type DestroyAllOptions, destroy, open } from '../src/open.js';
import type { TakeOver } from '../src/ports.js';
import {
  ask,
  Core,
  LOCK,
  listsTo,
  locks,
  NOWHERE,
  ofTabs,
  settled,
  setUpBrowser,
  storage,
  watched,
} from './fake-browser.js';

const KIND = doctype({ name: 'a', migrations: [], mutations: {} });

setUpBrowser();

test('an option that is misspelled is not left out in silence', async () => {
  const options = { document: 'd', sever: 'wss://sync.example' };
  await expect(open(KIND, options)).rejects.toThrow(
    'there is no option sever: there are document, server, token, user, ',
  );
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

test('names of which two would travel as the same one are refused', async () => {
  for (const half of ['\ud800', 'a\udc00']) {
    for (const names of [{ document: half }, { document: 'list', user: half }]) {
      await expect(open(KIND, names)).rejects.toThrow(InvalidOptionError);
      await expect(destroy(names.document, names)).rejects.toThrow(InvalidOptionError);
    }
  }
  expect(Core.started).toEqual([]);
});

test('who means one user by destroyAll, and names none, deletes nothing', async () => {
  const removed = vi.fn();
  vi.stubGlobal('navigator', { storage: { getDirectory: removed } });
  const wrong = [undefined, null, {}, { user: undefined }, { user: null }, { user: 7 }, 'ada'];
  const misnamed = [
    { user: 'ada', document: 'list' },
    { user: 'ada', forced: true },
  ];
  for (const options of [...wrong, ...misnamed]) {
    const destroyed = destroyAll(options as DestroyAllOptions);
    await expect(destroyed).rejects.toThrow(InvalidOptionError);
  }
  expect(removed).not.toHaveBeenCalled();
  expect(Core.started).toEqual([]);
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

const QUESTION = 2 ** 40 + 7;

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
  wanted.u64(QUESTION);
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
  writeToCore(none, 'token', { question: QUESTION, token: null });
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

test('a worker that shall lend a page server is told the build, and given a way', async () => {
  const told: unknown[] = [];
  class Lent {
    postMessage(message: unknown): void {
      told.push(message);
    }
  }
  vi.stubGlobal('Worker', Lent);
  ask(new Connection(NOWHERE));
  await settled();
  const port = expect.any(MessagePort);
  const prepare = { type: 'prepare', build: '0.1.0+00000000' };
  expect(told).toMatchObject([prepare, { type: 'serve', port }]);
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
