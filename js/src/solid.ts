/** Hooks for Solid. While a server renders they open nothing, and queries are loading. */

import {
  type Accessor,
  createComponent,
  createContext,
  createEffect,
  createMemo,
  createSignal,
  type JSX,
  onCleanup,
  useContext,
} from 'solid-js';
import type { Database, Mutate } from './database.js';
import type { Doctype, Mutations, Streams, Workflows } from './doctype.js';
import {
  type Live,
  type MutateOptions,
  mutationsOf,
  type Opening,
  openingsOf,
  type Presences,
  type Shared,
  type Wanted,
} from './hooks.js';
import type { Params } from './messages.js';
import type { KnownParams, KnownRow } from './queries.js';
import type { Row } from './rows.js';
import type { Got, Query } from './sql.js';
import type { Status } from './status.js';

export type { Live, Presences } from './hooks.js';

/** SQL and its parameters, or a query that has both; each may be an accessor. */
type BySql<Sql = string, P = Params> = readonly [
  sql: Sql | Accessor<Sql>,
  params?: P | Accessor<Got<P> | undefined>,
];
type Watching<R, Sql> =
  | BySql<Sql, KnownParams<Sql>>
  | readonly [query: Query<R> | Accessor<Query<R>>];

/** The hooks for documents of one doctype. */
export interface Hooks<
  Defined extends Mutations,
  Recorded extends Streams = Streams,
  Flows extends Workflows = Workflows,
> {
  /**
   * Opens a document for what is in it: `of` is what `open` takes, or `{ db }` with one that is
   * open. It is closed some seconds after the last component that has it is gone.
   */
  readonly Provider: (props: {
    readonly of: Wanted<Defined>;
    readonly children?: JSX.Element;
  }) => JSX.Element;
  /** What a query shows, kept up to date. Components that show the same share it. */
  readonly useLive: <R = Row, const Sql extends string = string>(
    ...watching: Watching<R, Sql>
  ) => Accessor<Live<KnownRow<Sql, R>>>;
  /** How the document stands; undefined until it is open. */
  readonly useStatus: () => Accessor<Status | undefined>;
  /**
   * The document's mutations, the same functions for as long as the component lives. Until the
   * document is open each throws `DocumentClosedError`.
   *
   * @param options `onRejected` is told what the server has undone.
   */
  readonly useMutate: (options?: MutateOptions) => Mutate<Defined>;
  /** The document, once it is open. */
  readonly useDocument: () => Accessor<Database<Defined, Recorded, Flows> | undefined>;
  /** Who else is present, and what tells them of this one. */
  readonly usePresence: <State extends object = Readonly<Record<string, unknown>>>() => Accessor<
    Presences<State>
  >;
}

/**
 * The hooks for documents of this doctype.
 *
 * @example
 * ```ts
 * const { Provider, useLive, useMutate } = createHooks(todos);
 * // In a component within <Provider of={{ document: 'groceries' }}>:
 * const items = useLive<{ title: string }>('select title from todo');
 * const titles = () => items().rows.map(({ title }) => title);
 * const { add } = useMutate({ onRejected: ({ reason }) => alert(reason) });
 * ```
 */
export function createHooks<
  const Defined extends Mutations,
  const Recorded extends Streams = Record<never, never>,
  const Flows extends Workflows = Record<never, never>,
>(doctype: Doctype<Defined, Recorded, Flows>): Hooks<Defined, Recorded, Flows> {
  const openings = openingsOf<Defined>(doctype);
  const Context = createContext<Accessor<Opening<Defined>>>();

  function useOpening(): Accessor<Opening<Defined>> {
    const opening = useContext(Context);
    if (!opening) throw new Error(`${doctype.name} has no Provider around this`);
    return opening;
  }

  const Provider: Hooks<Defined>['Provider'] = (props) => {
    const opening = createMemo(() => openings(props.of));
    useShared(opening, () => undefined);
    return createComponent(Context.Provider, {
      value: opening,
      get children() {
        return props.children;
      },
    });
  };

  const useLive: Hooks<Defined>['useLive'] = <R = Row, const Sql extends string = string>(
    ...watching: Watching<R, Sql>
  ) => {
    const [sql, params] = watching as unknown as BySql;
    const opening = useOpening();
    const watched = createMemo(() => opening().watch<KnownRow<Sql, R>>(now(sql), now(params)));
    return useShared(watched, (it) => it.shown());
  };

  const useStatus: Hooks<Defined>['useStatus'] = () =>
    useShared(useOpening(), (it) => it.db?.status);
  const useDocument: Hooks<Defined, Recorded, Flows>['useDocument'] = () =>
    useShared(useOpening(), (it) => it.db as Database<Defined, Recorded, Flows> | undefined);

  function useMutate({ onRejected }: MutateOptions = {}): Mutate<Defined> {
    const opening = useOpening();
    createEffect(() => {
      if (onRejected) onCleanup(opening().onRejected(onRejected));
    });
    return mutationsOf(() => opening().db);
  }

  const usePresence = (() => {
    const opening = useOpening();
    return useShared(
      () => opening().presences,
      (it) => it.shown(),
    );
  }) as Hooks<Defined>['usePresence'];

  return { Provider, useLive, useStatus, useMutate, useDocument, usePresence };
}

const now = <T>(it: T | Accessor<T>): T => (typeof it === 'function' ? (it as Accessor<T>)() : it);

/** What `look` sees of something, whenever that has changed. */
function useShared<S extends Shared, T>(shared: Accessor<S>, look: (shared: S) => T): Accessor<T> {
  const [changes, change] = createSignal(undefined, { equals: false });
  // Effects run in pages alone.
  createEffect(() => {
    onCleanup(shared().subscribe(change));
    change();
  });
  return createMemo(() => {
    changes();
    return look(shared());
  });
}
