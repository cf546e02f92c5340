// The hooks of React, whose renders and effects are done by hand.

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Database, Rejection } from '../src/database.js';
import { doctype, mutation } from '../src/doctype.js';
import type { MutateOptions } from '../src/hooks.js';

/** A component that is mounted: what its hooks keep, in their order. */
const react = vi.hoisted(() => {
  interface Effect {
    run: () => unknown;
    deps: readonly unknown[] | undefined;
    stop: unknown;
  }
  const kept: unknown[] = [];
  let at = 0;
  let due: Effect[] = [];
  const isSame = (one: readonly unknown[] | undefined, other: readonly unknown[] | undefined) =>
    one !== undefined && other !== undefined && one.every((it, nth) => Object.is(it, other[nth]));
  return {
    context: undefined as unknown,
    createContext: () => ({}),
    createElement() {},
    useContext: () => react.context,
    useSyncExternalStore: (_: unknown, __: unknown, onServer: () => unknown) => onServer(),
    useRef(first: unknown) {
      kept[at] ??= { current: first };
      return kept[at++];
    },
    useEffect(run: () => unknown, deps?: readonly unknown[]) {
      const before = kept[at] as Effect | undefined;
      const effect = { run, deps, stop: before?.stop };
      if (!isSame(before?.deps, deps)) due.push(effect);
      kept[at++] = effect;
    },
    render(component: () => void) {
      at = 0;
      component();
      const now = due;
      due = [];
      for (const { stop } of now) if (typeof stop === 'function') stop();
      for (const effect of now) effect.stop = effect.run();
    },
    mount: () => kept.splice(0),
  };
});
vi.mock('react', () => react);

const KIND = doctype({
  name: 'notes',
  migrations: [],
  mutations: { add: mutation({ id: 'uuid' }, 'select 1') },
});

beforeEach(() => {
  vi.resetModules();
  vi.stubGlobal('document', {});
  react.mount();
});
afterEach(() => vi.unstubAllGlobals());

/** A document that counts who listened to rejections, and tells of them. */
function listened() {
  const listeners = new Set<(rejection: Rejection) => void>();
  const it = {
    count: 0,
    listeners,
    db: {
      on: (event: string, listener: (rejection: Rejection) => void) => {
        if (event !== 'rejected') return () => {};
        it.count += 1;
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    } as unknown as Database<typeof KIND.mutations>,
    tell(reason: string) {
      for (const listener of listeners) listener({ reason } as Rejection);
    },
  };
  return it;
}

test('an inline onRejected listens once, and the latest one is called', async () => {
  const { createHooks } = await import('../src/react.js');
  const { openingsOf } = await import('../src/hooks.js');
  const { useMutate } = createHooks(KIND);
  const openings = openingsOf(KIND);
  const [first, second] = [listened(), listened()];
  const told: string[] = [];
  const show = (it: typeof first, options?: MutateOptions): void => {
    react.context = openings({ db: it.db });
    react.render(() => useMutate(options));
  };
  for (const render of [1, 2, 3]) {
    show(first, { onRejected: ({ reason }) => told.push(`${render} ${reason}`) });
  }
  expect(first.count).toBe(1);
  first.tell('full');
  expect(told).toEqual(['3 full']);
  // Another document is listened to, and the first one no more.
  show(second, { onRejected: ({ reason }) => told.push(reason) });
  first.tell('old');
  second.tell('new');
  expect([told, second.count]).toEqual([['3 full', 'new'], 1]);
  // Who wants to hear of none leaves them to others.
  show(second);
  expect(second.listeners.size).toBe(0);
});

test('what a server rendered is what a part of the page shows that is hydrated late', async () => {
  const { createHooks } = await import('../src/react.js');
  const { openingsOf } = await import('../src/hooks.js');
  const { Presence } = await import('../src/presence.js');
  const presence = new Presence(() => {});
  const db = { presence, on: () => () => {}, endWithIt() {} };
  const opening = openingsOf(KIND)({ db: db as unknown as Database<typeof KIND.mutations> });
  opening.presences.subscribe(() => {});
  const who = { user: null, client: 'c' };
  presence.take({ count: 2, keys: [1], others: [{ key: 1, who, state: '{}' }] });
  expect(opening.presences.shown().count).toBe(2);
  react.context = opening;
  let shown: unknown;
  react.render(() => {
    shown = createHooks(KIND).usePresence();
  });
  expect(shown).toMatchObject({ count: 1, others: [] });
});
