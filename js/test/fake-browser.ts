import { afterEach, beforeEach, vi } from 'vitest';
import type { Connection } from '../src/connection.js';

// Tabs of earlier tests go on meanwhile, and find no browser any more.
globalThis.reportError ??= () => {};

/** No addresses but those that a page has by itself. */
export const NOWHERE = {
  workerUrl: undefined,
  coreWasmUrl: undefined,
  pageServerWasmUrl: undefined,
};

/** The lock of a core of our build. */
export const LOCK = 'tidelog-core:0.1.0+00000000 module https://app.example/w.js 4 1';

/** What a tab says to a core, which greets it at once. */
export class Core {
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
export const locks = {
  query: async () => ({ held: [] }),
  request: async (name: string, ...rest: unknown[]) => {
    if (name === LOCK) {
      watched.push(rest[0] as LockOptions);
      return;
    }
    await held();
    const granted = rest.at(-1) as () => unknown;
    taken.push(name);
    await granted();
    taken.splice(taken.indexOf(name), 1);
  },
};

/** Names of the locks that are held. */
export let taken: string[] = [];

/** How the locks of cores were asked for. */
export let watched: LockOptions[] = [];

/** Those of tabs that are held. */
export const ofTabs = (): string[] => taken.filter((name) => name.startsWith('tidelog-tab:'));

/** No lock is granted before what this gives has resolved. */
let held: () => Promise<unknown> | undefined = () => undefined;

export const storage = {
  estimate: vi.fn(async () => ({ usage: 1, quota: 2 })),
  persist: vi.fn(async () => true),
  persisted: vi.fn(async () => true),
};

/** Gives each test of a file a browser, which grants no lock before what `until` gives resolves. */
export function setUpBrowser(until: typeof held = () => undefined): void {
  beforeEach(() => {
    Reflect.deleteProperty(globalThis, Symbol.for('tidelog-welcomed'));
    Core.started = [];
    taken = [];
    watched = [];
    held = until;
    vi.stubGlobal('navigator', { locks, storage, userAgentData: {} });
    vi.stubGlobal('location', { href: 'https://app.example/' });
    vi.stubGlobal('SharedWorker', Core);
  });

  afterEach(() => {
    vi.unstubAllGlobals();
    vi.useRealTimers();
    vi.clearAllMocks();
  });
}

/** Lets all that is due in this turn of the event loop happen. */
export const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

/** Lists of messages that were posted. */
export const listsTo = (core: Core | undefined): unknown[] =>
  core!.said.filter((message) => message instanceof Uint8Array);

export const ask = (connection: Connection): number =>
  connection.call('query', { handle: 1, sql: '', params: [] }, () => {});
