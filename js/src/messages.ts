/**
 * What tabs ask of the core, and what it tells them; see `protocol.rs` in crate `client`.
 *
 * The order of kinds and of fields is what travels.
 */

import type { Bytes, Reader, Value, Writer } from './codec.js';
import { type DoctypeDefinition, writeDoctype } from './doctype.js';
import { readFailure, type TidelogError } from './errors.js';
import { type RowBytes, readRowBytes } from './rows.js';
import { readStatus, type Status } from './status.js';

/** Parameters of a query: by position or by name. */
export type Params = readonly Param[] | Readonly<Record<string, Param>>;

/** What SQL may be given; a boolean is 1 or 0 there. */
export type Param = Value | boolean | ArrayBuffer;

/** Parameters as they travel. */
export type QueryParams =
  | readonly Value[]
  | { readonly named: readonly (readonly [string, Value])[] };

/** One entry of a journal; see `entry_id.rs` in crate `types`. */
export interface EntryId {
  readonly journal: Uint8Array;
  readonly life: Uint8Array;
  readonly lsn: number;
}

/** What a tab keeps of a document for the next core. */
export interface Memo {
  /**
   * What apps have said of the server last: when, in half milliseconds since 1970; odd to stay
   * away from it, even to go there. See `wordOnServer` in `document.ts`. */
  readonly word: number;
  /** The copy that is on the disk. */
  readonly copy: Uint8Array | undefined;
  /** Where the journal that is written now ends on the disk. */
  readonly head: EntryId | undefined;
}

/** What a tab knows of a mutation that it asks anew. */
export interface Again {
  /** What it was told is durable. */
  readonly durable: EntryId | undefined;
  /** The copy that was on the disk when it was handed over first. */
  readonly copy: Uint8Array | undefined;
  /** No entry before these can be its own. */
  readonly since: readonly [EntryId | undefined, EntryId | undefined];
}

/** What the code of streams asks, which writes the request itself. */
interface ByStreams {
  readonly call: number;
  readonly handle: number;
  readonly request: Bytes;
}

/** Every message to the core. `call` is the tab's number for what gets an answer. */
export interface ToCore {
  open: {
    readonly call: number;
    readonly handle: number;
    readonly document: string;
    readonly user: string;
    readonly server: string | undefined;
    readonly doctype: DoctypeDefinition;
    readonly hasToken: boolean;
    readonly word: number;
  };
  mutate: {
    readonly call: number;
    readonly handle: number;
    readonly id: Uint8Array;
    readonly name: string;
    readonly args: readonly (readonly [string, Value])[];
    readonly now: number;
    /** Set if an earlier core was asked. */
    readonly again: Again | undefined;
  };
  query: {
    readonly call: number;
    readonly handle: number;
    readonly sql: string;
    readonly params: QueryParams;
  };
  watch: ToCore['query'];
  events: ByStreams;
  outcome: ByStreams;
  handle: ByStreams;
  complete: ByStreams;
  records: ByStreams;
  giveUp: { readonly call: number };
  sync: { readonly call: number; readonly handle: number };
  export: ToCore['sync'];
  close: ToCore['sync'];
  destroy: {
    readonly call: number;
    /** Absent for the copies of all documents. */
    readonly document: string | undefined;
    readonly user: string;
    readonly force: boolean;
    readonly everywhere: boolean;
  };
  setConnected: { readonly handle: number; readonly word: number };
  listenRejections: { readonly handle: number };
  rejectionHandled: { readonly handle: number; readonly id: Uint8Array };
  /** By the number of the question. */
  token: { readonly question: number; readonly token: string | null };
  device: { readonly persisted: boolean; readonly usage: number; readonly quota: number };
  nudge: Readonly<Record<never, never>>;
  heard: { readonly lists: number };
  presence: { readonly handle: number; readonly state: string | null };
}

/** Requests about one document: their kinds are those of `Request` in `protocol.rs`. */
type Request =
  | 'open'
  | 'mutate'
  | 'query'
  | 'watch'
  | 'events'
  | 'sync'
  | 'export'
  | 'close'
  | 'outcome'
  | 'handle'
  | 'complete'
  | 'records';

type Encoders = { [Kind in keyof ToCore]: (w: Writer, message: ToCore[Kind]) => void };

function writeQuery(w: Writer, { sql, params }: ToCore['query']): void {
  w.text(sql);
  if ('named' in params) {
    w.u32(1);
    w.named(params.named);
  } else {
    w.u32(0);
    w.list(params, (value) => w.value(value));
  }
}

const writeRequest = (w: Writer, { request }: ByStreams): void => w.raw(request);

function writeEntryId(w: Writer, { journal, life, lsn }: EntryId): void {
  w.raw(journal);
  w.raw(life);
  w.u64(lsn);
}

const readId = (r: Reader): Uint8Array => r.view(16).slice();

/** An id as text. */
export const hexOf = (id: Uint8Array): string =>
  Array.from(id, (byte) => byte.toString(16).padStart(2, '0')).join('');

const readEntryId = (r: Reader): EntryId => ({
  journal: readId(r),
  life: readId(r),
  lsn: r.u64(),
});

const readStanding = (r: Reader): { status: Status; memo: Memo } => ({
  status: readStatus(r),
  memo: {
    word: r.u64(),
    copy: r.option(() => readId(r)) ?? undefined,
    head: r.option(() => readEntryId(r)) ?? undefined,
  },
});

/** What follows the kind, the call and the handle; in the order of `Request`'s variants. */
const REQUESTS: Pick<Encoders, Request> = {
  open(w, { document, user, server, doctype, hasToken, word }) {
    w.text(document);
    w.text(user);
    w.option(server, (it) => w.text(it));
    writeDoctype(w, doctype);
    w.u8(hasToken);
    w.u64(word);
  },
  mutate(w, { id, name, args, now, again }) {
    w.raw(id);
    w.text(name);
    w.named(args);
    w.u64(now);
    w.option(again, ({ durable, copy, since }) => {
      const entry = (it: EntryId): void => writeEntryId(w, it);
      w.option(durable, entry);
      w.option(copy, (id) => w.raw(id));
      for (const it of since) w.option(it, entry);
    });
  },
  query: writeQuery,
  watch: writeQuery,
  events: writeRequest,
  sync() {},
  export() {},
  close() {},
  outcome: writeRequest,
  handle: writeRequest,
  complete: writeRequest,
  records: writeRequest,
};

/** What follows the kind; in the order of `ToCore`'s variants, without the first, `Ask`. */
const OTHERS: Omit<Encoders, Request> = {
  giveUp: (w, { call }) => w.u32(call),
  destroy(w, { call, document, user, force, everywhere }) {
    w.u32(call);
    w.option(document, (it) => w.text(it));
    w.text(user);
    w.u8(force);
    w.u8(everywhere);
  },
  setConnected(w, { handle, word }) {
    w.u32(handle);
    w.u64(word);
  },
  listenRejections: (w, { handle }) => w.u32(handle),
  rejectionHandled(w, { handle, id }) {
    w.u32(handle);
    w.raw(id);
  },
  token(w, { question, token }) {
    w.u64(question);
    w.option(token, (it) => w.text(it));
  },
  device(w, { persisted, usage, quota }) {
    w.u8(persisted);
    w.u64(usage);
    w.u64(quota);
  },
  nudge() {},
  heard: (w, { lists }) => w.u32(lists),
  presence(w, { handle, state }) {
    w.u32(handle);
    w.option(state, (it) => w.text(it));
  },
};

const REQUEST_KINDS = Object.keys(REQUESTS);
const ENCODERS: Encoders = { ...REQUESTS, ...OTHERS };
/** `Ask`, and the others behind it. */
const KINDS = ['ask', ...Object.keys(OTHERS)];

/** Writes one message. */
export function writeToCore<Kind extends keyof ToCore>(
  w: Writer,
  kind: Kind,
  message: ToCore[Kind],
): void {
  const request = REQUEST_KINDS.indexOf(kind);
  if (request < 0) {
    w.u32(KINDS.indexOf(kind));
  } else {
    const { call, handle } = message as ToCore[Request];
    w.u32(KINDS.indexOf('ask'));
    w.u32(call);
    w.u32(handle);
    w.u32(request);
  }
  ENCODERS[kind](w, message);
}

/** What the core says about a call. */
export type Answer =
  | { readonly type: 'opened'; readonly status: Status; readonly memo: Memo }
  | { readonly type: 'failed'; readonly error: TidelogError }
  | { readonly type: 'durable'; readonly entry: EntryId }
  /** With its entry: that it is durable may still be on its way, on another port. */
  | { readonly type: 'confirmed'; readonly entry: EntryId; readonly lsn: number }
  | { readonly type: 'rejected'; readonly entry: EntryId; readonly error: TidelogError }
  | { readonly type: 'rows'; readonly rows: RowBytes }
  /** A view of the message: what can fail for want of memory is the caller's. */
  | { readonly type: 'exported'; readonly file: Bytes }
  | { readonly type: 'done' }
  /** The server takes in the local document that this `open` waits for: no answer yet. */
  | { readonly type: 'handingOver' };

/** What the core says about a document. */
export type News =
  | { readonly type: 'status'; readonly status: Status; readonly memo: Memo }
  | {
      readonly type: 'rejection';
      readonly id: Uint8Array;
      readonly mutation: string;
      readonly args: Record<string, Value>;
      readonly reason: string;
      readonly lsn: number;
    }
  | { readonly type: 'tokenWanted'; readonly question: number }
  /** Another tab deletes the document everywhere. */
  | { readonly type: 'closeWanted' }
  /** Who is present: how many, who is seen, if that has changed, and what is new of them. */
  | {
      readonly type: 'presence';
      readonly count: number;
      readonly keys: readonly number[] | null;
      readonly others: readonly {
        readonly key: number;
        /** Who it is, if that was not said since it is seen. */
        readonly who: { readonly user: string | null; readonly client: string } | null;
        readonly state: string;
      }[];
    };

/** Where {@link readFromCore} takes what it reads. */
export interface Listener {
  /** The answer to a call. */
  answer(call: number, answer: Answer): void;
  /** News of an opened document. */
  news(handle: number, news: News): void;
}

type AnswerDecoder = (r: Reader) => Answer;
type NewsDecoder = (r: Reader) => News;

/** In the order of `FromCore`'s variants: first those of calls, then those of documents. */
const ANSWERS: readonly AnswerDecoder[] = [
  (r) => ({ type: 'opened', ...readStanding(r) }),
  (r) => ({ type: 'failed', error: readFailure(r) }),
  (r) => ({ type: 'durable', entry: readEntryId(r) }),
  (r) => ({ type: 'confirmed', entry: readEntryId(r), lsn: r.u64() }),
  (r) => ({ type: 'rejected', entry: readEntryId(r), error: readFailure(r) }),
  (r) => ({ type: 'rows', rows: readRowBytes(r) }),
  (r) => ({ type: 'exported', file: r.bytes() }),
  () => ({ type: 'done' }),
  () => ({ type: 'handingOver' }),
];
const NEWS: readonly NewsDecoder[] = [
  (r) => ({ type: 'status', ...readStanding(r) }),
  (r) => ({
    type: 'rejection',
    id: readId(r),
    mutation: r.text(),
    args: r.named(),
    reason: r.text(),
    lsn: r.u64(),
  }),
  (r) => ({ type: 'tokenWanted', question: r.u64() }),
  () => ({ type: 'closeWanted' }),
  (r) => ({
    type: 'presence',
    count: r.u32(),
    keys: r.option(() => r.list(() => r.u64())),
    others: r.list(() => ({
      key: r.u64(),
      who: r.option(() => ({
        user: r.option(() => r.text()) ?? null,
        client: hexOf(r.view(16)),
      })),
      state: r.text(),
    })),
  }),
];

/** Hands each message of a list to `listener`, in order. */
export function readFromCore(r: Reader, listener: Listener): void {
  for (let left = r.u64(); left > 0; left--) {
    const kind = r.u32();
    const number = r.u32();
    if (kind < ANSWERS.length) listener.answer(number, ANSWERS[kind]!(r));
    else listener.news(number, NEWS[kind - ANSWERS.length]!(r));
  }
}
