/** The states of streams: what their events come to, from where they were looked at last. */

import type { Stream } from './doctype.js';
import { InvalidOptionError } from './errors.js';
import { type EventRow, recordedOf } from './event-row.js';
import type { RecordedEvent } from './events.js';
import type { OpenStreams } from './streams.js';

/** Streams whose states are kept, the latest ones. */
const STATES_MAX = 1_024;

/** How a state follows from events. */
interface Evolution {
  readonly initial: unknown;
  readonly evolve?: Readonly<Record<string, Evolve | undefined>>;
  readonly erased?: Evolve;
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
  /** What it is told apart by from one that took its place, when a server was restored. */
  readonly last: string;
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
    const read = async (after: number, waits: boolean): Promise<EventRow[]> => {
      const aggregate = this.#aggregate;
      const wanted = { aggregate, stream, types: [], after, waits, consumer: undefined };
      const rows = await this.#document.rows('events', wanted, signal);
      return rows as unknown as EventRow[];
    };
    let folded: Kept | undefined = this.#kept.get(stream);
    // Whoever else folds it meanwhile does so from the beginning: events may change it in place.
    this.#kept.delete(stream);
    if (folded) {
      const [last, ...rest] = await read(folded.sequence - 1, false);
      folded = last && markOf(last) === folded.last ? this.#fold(folded, rest) : undefined;
    }
    folded ??= { state: this.#initial(), position: 0, sequence: 0, last: '' };
    while (folded.position < least) {
      folded = this.#fold(folded, await read(folded.sequence, true));
    }
    if (folded.position > 0) this.#keep(stream, folded);
    return folded;
  }

  #keep(stream: string, folded: Kept): void {
    this.#kept.delete(stream);
    this.#kept.set(stream, folded);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > STATES_MAX) this.#kept.delete(oldest!);
  }

  #fold(from: Kept, events: readonly EventRow[]): Kept {
    let { state, position, sequence, last } = from;
    for (const event of events) {
      const { type, version } = event;
      const known = Object.hasOwn(this.#stream.events, type) && this.#stream.events[type]!;
      if (!known || version > known.upcast.length + 1) {
        throw new Error(
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
    return { state, position, sequence, last };
  }
}

/** What two events hardly have in common. */
const markOf = ({ sequence, position, type, time, user, client, cause, data }: EventRow): string =>
  JSON.stringify([sequence, position, type, time, user, client, cause, data.length]);
