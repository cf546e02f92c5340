/**
 * Hooks for React 18 and later.
 *
 * They open nothing while a server renders, where queries show that they are loading.
 */

import {
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useContext,
  useEffect,
  useRef,
  useSyncExternalStore,
} from 'react';
import type { Database, Mutate } from './database.js';
import type { Doctype, Mutations, Streams, Workflows } from './doctype.js';
import {
  IS_PAGE,
  type Live,
  loaded,
  type MutateOptions,
  type Opening,
  openingsOf,
  type Presences,
  type Shared,
  type Shown,
  type Wanted,
} from './hooks.js';
import { NONE } from './presence.js';
import type { KnownRow } from './queries.js';
import type { Row } from './rows.js';
import type { Watching } from './sql.js';
import type { Status } from './status.js';

export type { Live, Presences } from './hooks.js';

/** The hooks for documents of one doctype. */
export interface Hooks<
  Defined extends Mutations,
  Recorded extends Streams = Streams,
  Flows extends Workflows = Workflows,
> {
  /**
   * Opens a document for what is in it, as `open` does, or takes one that is open as `db`. It is
   * closed some seconds after the last component that has it is gone.
   */
  readonly Provider: (props: Wanted<Defined> & { readonly children?: ReactNode }) => ReactElement;
  /** What a query shows, kept up to date. Components that show the same share it. */
  readonly useLive: <R = Row, const Sql extends string = string>(
    ...watching: Watching<R, Sql>
  ) => Live<KnownRow<Sql, R>>;
  /** The rows of a query: suspends until there are some, and throws what is wrong before that. */
  readonly useSuspenseLive: <R = Row, const Sql extends string = string>(
    ...watching: Watching<R, Sql>
  ) => readonly KnownRow<Sql, R>[];
  /** How the document stands; undefined until it is open. */
  readonly useStatus: () => Status | undefined;
  /**
   * The document's mutations, the same functions for as long as the Provider has that document:
   * what was begun for one is written into no other. Until the document is open each throws
   * `DocumentClosedError`.
   *
   * @param options `onRejected` is told what the server has undone.
   */
  readonly useMutate: (options?: MutateOptions) => Mutate<Defined>;
  /** The document, once it is open. */
  readonly useDocument: () => Database<Defined, Recorded, Flows> | undefined;
  /** Who else is present, and what tells them of this one. */
  readonly usePresence: <
    State extends object = Readonly<Record<string, unknown>>,
  >() => Presences<State>;
}

/**
 * The hooks for documents of this doctype.
 *
 * @example
 * ```tsx
 * const { Provider, useLive, useMutate } = createHooks(todos);
 *
 * function List() {
 *   const { rows, error, state } = useLive<{ id: string; title: string }>(
 *     'select id, title from todo',
 *   );
 *   const { add } = useMutate({ onRejected: ({ reason }) => alert(reason) });
 *   if (error) return <p>{error.message}</p>;
 *   if (state === 'loading') return <p>Loading</p>;
 *   return (
 *     <>
 *       <ul>{rows.map(({ id, title }) => <li key={id}>{title}</li>)}</ul>
 *       <button onClick={() => add({ title: 'milk' })}>Milk</button>
 *     </>
 *   );
 * }
 *
 * const app = <Provider document="groceries"><List /></Provider>;
 * ```
 */
export function createHooks<
  const Defined extends Mutations,
  const Recorded extends Streams = Record<never, never>,
  const Flows extends Workflows = Record<never, never>,
>(doctype: Doctype<Defined, Recorded, Flows>): Hooks<Defined, Recorded, Flows> {
  const openings = openingsOf<Defined>(doctype);
  const Context = createContext<Opening<Defined> | undefined>(undefined);

  function useOpening(): Opening<Defined> {
    const opening = useContext(Context);
    if (!opening) throw new Error(`${doctype.name} has no Provider around this`);
    return opening;
  }

  function Provider({
    children,
    ...wanted
  }: Wanted<Defined> & { readonly children?: ReactNode }): ReactElement {
    const opening = openings(wanted);
    useShared(opening, () => undefined);
    return createElement(Context.Provider, { value: opening }, children);
  }

  function useLive<R = Row, const Sql extends string = string>(
    ...watching: Watching<R, Sql>
  ): Live<KnownRow<Sql, R>> {
    return useShown(useOpening().watch<KnownRow<Sql, R>>(...watching));
  }

  function useSuspenseLive<R = Row, const Sql extends string = string>(
    ...watching: Watching<R, Sql>
  ): readonly KnownRow<Sql, R>[] {
    const watched = useOpening().watch<KnownRow<Sql, R>>(...watching);
    const { rows, error } = useShown(watched);
    if (rows === NONE) throw error ?? (IS_PAGE ? loaded(watched) : notOnServers());
    return rows;
  }

  const useStatus = (): Status | undefined => useShared(useOpening(), (it) => it.db?.status);
  const useDocument = () =>
    useShared(useOpening(), (it) => it.db as Database<Defined, Recorded, Flows> | undefined);

  function useMutate({ onRejected }: MutateOptions = {}): Mutate<Defined> {
    const opening = useOpening();
    const latest = useRef(onRejected);
    useEffect(() => {
      latest.current = onRejected;
    });
    // Whoever listens anew is told once more of all that nobody has handled: not at each render.
    useEffect(
      () => onRejected && opening.onRejected((it) => latest.current!(it)),
      [opening, !onRejected],
    );
    return opening.mutate;
  }

  const usePresence = (() => useShown(useOpening().presences)) as Hooks<Defined>['usePresence'];

  return { Provider, useLive, useSuspenseLive, useStatus, useMutate, useDocument, usePresence };
}

/** What something shows, and what it shows first where a server renders. */
const useShown = <T>(it: Shown<T>): T => useShared(it, it.shown, it.first);

/** What `look` sees of something, whenever that has changed; `first` where a server renders. */
const useShared = <S extends Shared, T>(it: S, look: (it: S) => T, first?: T): T =>
  useSyncExternalStore(
    it.subscribe,
    () => look(it),
    () => first as T,
  );

/**
 * Where a server renders, its answer has what is shown meanwhile, and the page goes on itself.
 * Next.js calls what has this `digest` no error.
 */
const notOnServers = (): Error =>
  Object.assign(new Error(), { digest: 'BAILOUT_TO_CLIENT_SIDE_RENDERING' });
