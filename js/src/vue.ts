/** Composables for Vue 3. While a server renders they open nothing, and queries are loading. */

import {
  type Component,
  type ComputedRef,
  computed,
  defineComponent,
  type InjectionKey,
  inject,
  type MaybeRefOrGetter,
  type PropType,
  provide,
  type ShallowRef,
  shallowRef,
  toValue,
  watchEffect,
} from 'vue';
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

/** SQL and its parameters, or a query that has both; each may be a ref or a getter. */
type BySql<Sql = string, P = Params> = readonly [
  sql: MaybeRefOrGetter<Sql>,
  params?: P | MaybeRefOrGetter<Got<P> | undefined>,
];
type Watching<R, Sql> = BySql<Sql, KnownParams<Sql>> | readonly [query: MaybeRefOrGetter<Query<R>>];

/** Each field of what is shown, as a ref. */
type Refs<Shown> = { readonly [Name in keyof Shown]: ComputedRef<Shown[Name]> };

/** Who is present, each field as a ref, and what tells the others of this one. */
type Presence<State extends object> = Refs<Omit<Presences<State>, 'set'>> &
  Pick<Presences<State>, 'set'>;

/** The composables for documents of one doctype. */
export interface Hooks<
  Defined extends Mutations,
  Recorded extends Streams = Streams,
  Flows extends Workflows = Workflows,
> {
  /**
   * Opens a document for what is in it: `of` is what `open` takes, or `{ db }` with one that is
   * open. It is closed some seconds after the last component that has it is gone.
   */
  readonly Provider: Component<{ readonly of: Wanted<Defined> }>;
  /** What a query shows, kept up to date. Components that show the same share it. */
  readonly useLive: <R = Row, const Sql extends string = string>(
    ...watching: Watching<R, Sql>
  ) => Refs<Live<KnownRow<Sql, R>>>;
  /** How the document stands; undefined until it is open. */
  readonly useStatus: () => Readonly<ShallowRef<Status | undefined>>;
  /**
   * The document's mutations, the same functions for as long as the component lives. Until the
   * document is open each throws `DocumentClosedError`.
   *
   * @param options `onRejected` is told what the server has undone.
   */
  readonly useMutate: (options?: MutateOptions) => Mutate<Defined>;
  /** The document, once it is open. */
  readonly useDocument: () => Readonly<ShallowRef<Database<Defined, Recorded, Flows> | undefined>>;
  /** Who else is present, and what tells them of this one. */
  readonly usePresence: <
    State extends object = Readonly<Record<string, unknown>>,
  >() => Presence<State>;
}

/**
 * The composables for documents of this doctype.
 *
 * @example
 * ```ts
 * const { Provider, useLive, useMutate } = createHooks(todos);
 * // In the setup of a component within <Provider :of="{ document: 'groceries' }">:
 * const { rows, state } = useLive<{ id: string }>('select id from todo where title = ?', ['milk']);
 * const { remove } = useMutate();
 * const clear = () => state.value === 'ready' && rows.value.forEach(({ id }) => remove({ id }));
 * ```
 */
export function createHooks<
  const Defined extends Mutations,
  const Recorded extends Streams = Record<never, never>,
  const Flows extends Workflows = Record<never, never>,
>(doctype: Doctype<Defined, Recorded, Flows>): Hooks<Defined, Recorded, Flows> {
  const openings = openingsOf<Defined>(doctype);
  const KEY: InjectionKey<ComputedRef<Opening<Defined>>> = Symbol(doctype.name);

  function useOpening(): ComputedRef<Opening<Defined>> {
    const opening = inject(KEY);
    if (!opening) throw new Error(`${doctype.name} has no Provider around this`);
    return opening;
  }

  /** What `look` sees of an opening or of something in it, whenever that has changed. */
  function useShared<S extends Shared, T>(
    shared: ComputedRef<S>,
    look: (shared: S) => T,
  ): Readonly<ShallowRef<T>> {
    const seen = shallowRef(look(shared.value)) as ShallowRef<T>;
    watchEffect((onCleanup) => {
      const show = (): void => {
        seen.value = look(shared.value);
      };
      onCleanup(shared.value.subscribe(show));
      show();
    });
    return seen;
  }

  const Provider = defineComponent({
    name: `Provider of ${doctype.name}`,
    props: { of: { type: Object as PropType<Wanted<Defined>>, required: true } },
    setup(props, { slots }) {
      const opening = computed(() => openings(props.of));
      useShared(opening, () => undefined);
      provide(KEY, opening);
      return () => slots.default?.();
    },
  }) as unknown as Hooks<Defined>['Provider'];

  const useLive: Hooks<Defined>['useLive'] = <R = Row, const Sql extends string = string>(
    ...watching: Watching<R, Sql>
  ) => {
    const [sql, params] = watching as unknown as BySql;
    const opening = useOpening();
    const watched = computed(() =>
      opening.value.watch<KnownRow<Sql, R>>(toValue(sql), toValue(params)),
    );
    return refsOf(useShared(watched, (it) => it.shown()));
  };

  const useStatus: Hooks<Defined>['useStatus'] = () =>
    useShared(useOpening(), (it) => it.db?.status);
  const useDocument: Hooks<Defined, Recorded, Flows>['useDocument'] = () =>
    useShared(useOpening(), (it) => it.db as Database<Defined, Recorded, Flows> | undefined);

  function useMutate({ onRejected }: MutateOptions = {}): Mutate<Defined> {
    const opening = useOpening();
    if (onRejected) watchEffect((stop) => stop(opening.value.onRejected(onRejected)));
    return mutationsOf(() => opening.value.db);
  }

  const usePresence = (() => {
    const opening = useOpening();
    const presences = computed(() => opening.value.presences);
    const seen = useShared(presences, (it) => it.shown());
    return { ...refsOf(seen), set: (state: object | null) => seen.value.set(state) };
  }) as Hooks<Defined>['usePresence'];

  return { Provider, useLive, useStatus, useMutate, useDocument, usePresence };
}

/** Each field of what is seen, as a ref. */
function refsOf<Seen extends object>(seen: ShallowRef<Seen>): Refs<Seen> {
  const names = Object.keys(seen.value) as (keyof Seen)[];
  const refs = names.map((name) => [name, computed(() => seen.value[name])]);
  return Object.fromEntries(refs) as Refs<Seen>;
}
