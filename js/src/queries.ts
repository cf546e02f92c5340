/** What `npx tidelog types` knows of an app's queries. Only types: nothing of it is loaded. */

import type { Params } from './messages.js';

/**
 * The queries of an app, by their SQL or by the names of their templates. `npx tidelog types`
 * writes a file that adds to it; there is nothing in it before.
 */
// biome-ignore lint/suspicious/noEmptyInterface: what is added to it stands in apps.
export interface Queries {}

/** The rows of a query: those that are known of `Key`, or else `R`. */
export type KnownRow<Key, R> = Key extends keyof Queries
  ? Queries[Key] extends { readonly row: infer Known }
    ? Known
    : R
  : R;

/** The parameters of a query: those that are known of `Key`, or else any. */
export type KnownParams<Key, Otherwise = Params> = Key extends keyof Queries
  ? Queries[Key] extends { readonly params: infer Known }
    ? Known
    : Otherwise
  : Otherwise;
