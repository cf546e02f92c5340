/** The states of streams: what their events come to, from where they were looked at last. */

import type { NewSnapshot } from './command-requests.js';
import type { Stream } from './doctype.js';
import { InvalidOptionError, UnknownEventError } from './errors.js';
import { type EventRow, readEvents, recordedOf } from './event-rows.js';
import type { RecordedEvent } from './events.js';
import type { OpenStreams } from './streams.js';

/** Streams whose states are kept here, the latest ones. */
const STATES_MAX = 1_024;

/** Events after which a state is kept in the document again, where the app wants that. */
const SNAPSHOT_EVENTS = 1_000;

/** Limits of crate `types`. */
const SNAPSHOT_SIZE_MAX = 256 * 1024;
const SNAPSHOT_NAME_SIZE_MAX = 64;

/** How deep a state that is kept may be, of which SQLite knows a thousand. */
const DEPTH_MAX = 500;

const SNAPSHOT = `select state, position, sequence from tidelog_snapshots
  where aggregate = ? and stream = ? and name = ?`;

/** How a state follows from events. */
interface Evolution {
  readonly initial: unknown;
  readonly evolve?: Readonly<Record<string, Evolve | undefined>>;
  readonly erased?: Evolve;
  readonly snapshot?: string;
}

type Evolve = (state: unknown, event: RecordedEvent) => unknown;

/** The state of a stream after so many events. */
export interface Folded {
  readonly state: unknown;
  /** How many. */
  readonly position: number;
}

interface Kept extends Folded {
  /** The last one's place among all events of the document. */
  readonly sequence: number;
  /**
   * What it is told apart by from one that took its place, when a server was restored. Nothing of
   * the one behind which a snapshot stands, which went back with the document.
   */
  readonly last: string;
  /** After how many events the document has kept a state, as far as is known here. */
  snapshotAt: number;
}

/** The states of an aggregate's streams. */
export class Folds {
  readonly #document: OpenStreams;
  readonly #aggregate: string;
  readonly #stream: Stream;
  readonly #of: Evolution;
  readonly #kept = new Map<string, Kept>();

  constructor(document: OpenStreams, aggregate: string, stream: Stream, of: unknown) {
    this.#document = document;
    this.#aggregate = aggregate;
    this.#stream = stream;
    this.#of = of as Evolution;
    const { snapshot = 'none' } = this.#of;
    const size = typeof snapshot === 'string' && new TextEncoder().encode(snapshot).length;
    if (!size || size > SNAPSHOT_NAME_SIZE_MAX) {
      throw new InvalidOptionError(
        `snapshot has to be a name of 1 to ${SNAPSHOT_NAME_SIZE_MAX} bytes, as 'order-1'`,
      );
    }
    this.#initial();
  }

  /** Each stream has its own, so that none is changed by what is done to another one. */
  #initial(): unknown {
    const { initial } = this.#of;
    if (typeof initial === 'function') return initial();
    try {
      return structuredClone(initial);
    } catch (error) {
      throw new InvalidOptionError(
        `initial cannot be copied (${error}): give a function that makes it`,
      );
    }
  }

  /** The state of a stream by `least` events or more: it waits for those that are yet to come. */
  async stateOf(stream: string, least: number, signal: AbortSignal): Promise<Folded> {
    const read = async (from: Kept, after: number, waits: boolean): Promise<EventRow[]> => {
      const aggregate = this.#aggregate;
      const wanted = { aggregate, stream, types: [], after, waits, consumer: undefined };
      try {
        return await readEvents(this.#document, wanted, signal);
      } catch (error) {
        // Whoever asks again goes on from here: an attempt has no time for a stream of any length.
        if (from.last) this.#keep(stream, from);
        throw error;
      }
    };
    let folded: Kept | undefined = this.#kept.get(stream);
    // Whoever else folds it meanwhile does so from the beginning: events may change it in place.
    this.#kept.delete(stream);
    if (folded) {
      const [last, ...rest] = await read(folded, folded.sequence - 1, false);
      folded = last && markOf(last) === folded.last ? this.#fold(folded, rest) : undefined;
    }
    folded ??= await this.#begun(stream, signal);
    while (folded.position < least) {
      folded = this.#fold(folded, await read(folded, folded.sequence, true));
    }
    // By an event that was read here it is known again.
    if (folded.last) this.#keep(stream, folded);
    return folded;
  }

  /**
   * The state of a stream, if the document is to keep it now.
   *
   * @throws {TypeError} if it cannot, which is said once.
   */
  snapshotOf(stream: string): NewSnapshot | undefined {
    const { snapshot: name } = this.#of;
    const folded = this.#kept.get(stream);
    if (name === undefined || !folded) return undefined;
    const { state, position, snapshotAt } = folded;
    if (position - snapshotAt < SNAPSHOT_EVENTS) return undefined;
    try {
      return { name, state: snapshotJsonOf(state) };
    } catch (error) {
      this.noteSnapshot(stream);
      throw error;
    }
  }

  /** The document has kept that. */
  noteSnapshot(stream: string): void {
    const folded = this.#kept.get(stream);
    if (folded) folded.snapshotAt = folded.position;
  }

  /** From where a stream is folded that is not known here. */
  async #begun(stream: string, signal: AbortSignal): Promise<Kept> {
    const { snapshot } = this.#of;
    if (snapshot !== undefined) {
      const params = [this.#aggregate, stream, snapshot];
      const [kept] = await this.#document.rows('query', { sql: SNAPSHOT, params }, signal);
      if (kept) {
        const { state, position, sequence } = kept as unknown as SnapshotRow;
        return { state: JSON.parse(state), position, sequence, last: '', snapshotAt: position };
      }
    }
    return { state: this.#initial(), position: 0, sequence: 0, last: '', snapshotAt: 0 };
  }

  #keep(stream: string, folded: Kept): void {
    this.#kept.delete(stream);
    this.#kept.set(stream, folded);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > STATES_MAX) this.#kept.delete(oldest!);
  }

  #fold(from: Kept, events: readonly EventRow[]): Kept {
    let { state, position, sequence, last } = from;
    const { snapshotAt } = from;
    for (const event of events) {
      const { type, version } = event;
      const known = Object.hasOwn(this.#stream.events, type) && this.#stream.events[type]!;
      if (!known || version > known.upcast.length + 1) {
        throw new UnknownEventError(
          `this release knows no event ${type} of version ${version}: load a newer one`,
        );
      }
      const { evolve = {}, erased } = this.#of;
      const ofType = Object.hasOwn(evolve, type) ? evolve[type] : undefined;
      // What evolves by data would find none.
      const next = event.erased === 1 ? erased : ofType;
      if (next) state = next(state, recordedOf(event));
      ({ position, sequence } = event);
      last = markOf(event);
    }
    return { state, position, sequence, last, snapshotAt };
  }
}

/** A row of what is asked for snapshots. */
interface SnapshotRow {
  readonly state: string;
  readonly position: number;
  readonly sequence: number;
}

function snapshotJsonOf(state: unknown): string {
  const odd = notJsonIn(state, 'state', 0);
  if (odd) throw new TypeError(`a state is kept as JSON, and ${odd} would not come back`);
  const json = JSON.stringify(state);
  const size = new TextEncoder().encode(json).length;
  if (size > SNAPSHOT_SIZE_MAX) {
    throw new TypeError(`a state of ${size} bytes is not kept: ${SNAPSHOT_SIZE_MAX} are, at most`);
  }
  return json;
}

/** Where something is in it that is not the same, or not there, once it was JSON. */
function notJsonIn(value: unknown, place: string, depth: number): string | undefined {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return undefined;
  if (typeof value === 'number') {
    return Number.isFinite(value) && !Object.is(value, -0) ? undefined : place;
  }
  if (typeof value !== 'object' || depth >= DEPTH_MAX) return place;
  if (Array.isArray(value)) {
    for (let at = 0; at < value.length; at += 1) {
      const odd = notJsonIn(value[at], `${place}[${at}]`, depth + 1);
      if (odd) return odd;
    }
    return undefined;
  }
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) return place;
  for (const [name, member] of Object.entries(value)) {
    // It comes back as one that is not there, which reads the same.
    if (member === undefined) continue;
    const odd = notJsonIn(member, `${place}.${name}`, depth + 1);
    if (odd) return odd;
  }
  return undefined;
}

/** What two events hardly have in common. */
const markOf = ({ sequence, position, type, time, user, client, cause, data }: EventRow): string =>
  // A time may be more than a number holds.
  [sequence, position, type, time, user, client, cause, data.length].join('\0');
