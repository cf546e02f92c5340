/** Stores for Svelte 4 and 5. While a server renders they open nothing, and queries are loading. */

import { getContext, onDestroy, setContext } from 'svelte';
import type { Database, Mutate } from './database.js';
import type { Doctype, Mutations, Streams, Workflows } from './doctype.js';
import {
  type Live,
  type MutateOptions,
  type Opening,
  openingsOf,
  type Presences,
  type Wanted,
} from './hooks.js';
import type { KnownRow } from './queries.js';
import type { Row } from './rows.js';
import type { Watching } from './sql.js';
import type { Status } from './status.js';

export type { Live, Presences } from './hooks.js';

/** A store as Svelte reads it: `$name` is its value. */
export interface Readable<T> {
  /** Calls `run` with the value, and with each that follows, until what it returns is called. */
  subscribe(run: (value: T) => void): () => void;
}

/** The stores for documents of one doctype. All of these are for the script of a component. */
export interface Hooks<
  Defined extends Mutations,
  Recorded extends Streams = Streams,
  Flows extends Workflows = Workflows,
> {
  /**
   * Opens a document for a component and what is in it, as `open` does, or takes one that is open
   * as `db`. It is closed some seconds after the last component that has it is gone.
   */
  readonly provide: (wanted: Wanted<Defined>) => void;
  /** What a query shows, kept up to date. Components that show the same share it. */
  readonly useLive: <R = Row, const Sql extends string = string>(
    ...watching: Watching<R, Sql>
  ) => Readable<Live<KnownRow<Sql, R>>>;
  /** How the document stands; undefined until it is open. */
  readonly useStatus: () => Readable<Status | undefined>;
  /**
   * The document's mutations, the same functions for as long as the component lives. Until the
   * document is open each throws `DocumentClosedError`.
   *
   * @param options `onRejected` is told what the server has undone.
   */
  readonly useMutate: (options?: MutateOptions) => Mutate<Defined>;
  /** The document, once it is open. */
  readonly useDocument: () => Readable<Database<Defined, Recorded, Flows> | undefined>;
  /** Who else is present, and what tells them of this one. */
  readonly usePresence: <State extends object = Readonly<Record<string, unknown>>>() => Readable<
    Presences<State>
  >;
}

/**
 * The stores for documents of this doctype.
 *
 * @example
 * ```ts
 * const { provide, useLive, useMutate } = createHooks(todos);
 * // In the script of a component: provide({ document: 'groceries' });
 * // and in that of one within it, where the markup reads {#each $items.rows as { title }}:
 * const items = useLive<{ title: string }>('select title from todo');
 * const { add } = useMutate({ onRejected: ({ reason }) => alert(reason) });
 * ```
 */
export function createHooks<
  const Defined extends Mutations,
  const Recorded extends Streams = Record<never, never>,
  const Flows extends Workflows = Record<never, never>,
>(doctype: Doctype<Defined, Recorded, Flows>): Hooks<Defined, Recorded, Flows> {
  const openings = openingsOf<Defined>(doctype);
  const KEY = Symbol(doctype.name);

  function useOpening(): Opening<Defined> {
    const opening = getContext<Opening<Defined> | undefined>(KEY);
    if (!opening) throw new Error(`no component around this one provides ${doctype.name}`);
    return opening;
  }

  function provide(wanted: Wanted<Defined>): void {
    const opening = openings(wanted);
    setContext(KEY, opening);
    onDestroy(opening.subscribe(() => {}));
  }

  function useLive<R = Row, const Sql extends string = string>(
    ...watching: Watching<R, Sql>
  ): Readable<Live<KnownRow<Sql, R>>> {
    const { subscribe, shown } = useOpening().watch<KnownRow<Sql, R>>(...watching);
    return readable(subscribe, shown);
  }

  function useStatus(): Readable<Status | undefined> {
    const opening = useOpening();
    return readable(opening.subscribe, () => opening.db?.status);
  }

  function useDocument(): Readable<Database<Defined, Recorded, Flows> | undefined> {
    const opening = useOpening();
    const db = (): typeof opening.db => opening.db;
    return readable(opening.subscribe, db as () => Database<Defined, Recorded, Flows> | undefined);
  }

  function useMutate({ onRejected }: MutateOptions = {}): Mutate<Defined> {
    const opening = useOpening();
    if (onRejected) onDestroy(opening.onRejected(onRejected));
    return opening.mutate;
  }

  const usePresence = (() => {
    const { subscribe, shown } = useOpening().presences;
    return readable(subscribe, shown);
  }) as Hooks<Defined>['usePresence'];

  return { provide, useLive, useStatus, useMutate, useDocument, usePresence };
}

/** A store of what `look` sees. */
function readable<T>(subscribe: (listener: () => void) => () => void, look: () => T): Readable<T> {
  return {
    subscribe(run) {
      let seen = look();
      run(seen);
      // Svelte takes an object for another one each time that it is given.
      return subscribe(() => {
        const before = seen;
        seen = look();
        if (seen !== before) run(seen);
      });
    },
  };
}
