/** How a document stands. */

import type { Reader } from './codec.js';
import { readFailure, type TidelogError } from './errors.js';

/** How a document stands, as `db.status` says. */
export interface Status {
  /** The way to the server; `local` where there is none; `offline` once the document is closed. */
  readonly connection: 'local' | 'connecting' | 'online' | 'offline';
  /** Whether the app stays away from the server: `disconnect` was called last, in any tab. */
  readonly away: boolean;
  /** What is wrong and belongs to no call, while it lasts. */
  readonly error: TidelogError | null;
  /** Mutations without a verdict of the server. */
  readonly pending: number;
  /** The storage LSN up to which this device has seen verdicts; 0 before the first. */
  readonly confirmedLsn: number;
  /**
   * What keeps the data; `waiting` while no page server is at hand. In Node that is a `folder` or
   * `memory`.
   */
  readonly storage: 'opfs' | 'indexeddb' | 'folder' | 'memory' | 'waiting';
  /** Whether a power cut could still lose files that were made just now. */
  readonly settling: boolean;
  /** Whether the browser promised not to evict the data. */
  readonly persisted: boolean;
  /** Bytes used by this origin. */
  readonly usage: number;
  /** Bytes that this origin may use. */
  readonly quota: number;
  /** Where the engine runs. */
  readonly engine: 'shared-worker' | 'worker';
  /** The timeline's LSNs: trimmed before `start`, at the server before `acked`, and so on. */
  readonly timeline: {
    readonly start: number;
    readonly acked: number;
    readonly durable: number;
    readonly head: number;
  };
  /** The storage journal's LSNs: on disk before `durable`, read by queries before `visible`. */
  readonly journal: { readonly durable: number; readonly visible: number };
  /**
   * Whether this copy has ever had all that its server had: before that, what is missing may only
   * not be here yet. Always of a local document.
   */
  readonly synced: boolean;
  /**
   * `newer-elsewhere` once a newer release of the app has migrated the document, in another tab or
   * on another device: what this one issues still counts, and to load the page anew gets the newer
   * one.
   */
  readonly release: 'current' | 'newer-elsewhere';
  /**
   * What the server has said last that this user may do with the document; null of a local one, and
   * where it has said nothing yet or gives no access. Who may only read is told so by each mutation
   * at once; who may `send`, by each that neither sends a command nor starts or cancels a run.
   */
  readonly access: 'read' | 'send' | 'write' | 'admin' | null;
}

/** In the order of `Connection` in crate `client`. */
export const CONNECTIONS = ['local', 'connecting', 'online', 'offline'] as const;
/** In the order of `Storage` in crate `client`. */
export const STORAGES = ['opfs', 'indexeddb', 'memory', 'waiting'] as const;

/** In the order of `Role` in crate `types`. */
export const ROLES = ['read', 'send', 'write', 'admin'] as const;

/** Reads a `Status`. */
export function readStatus(r: Reader): Status {
  return {
    connection: CONNECTIONS[r.u32()]!,
    away: r.flag(),
    error: r.option(() => readFailure(r)),
    pending: r.u64(),
    confirmedLsn: r.u64(),
    storage: STORAGES[r.u32()]!,
    settling: r.flag(),
    persisted: r.flag(),
    usage: r.u64(),
    quota: r.u64(),
    engine: 'shared-worker',
    timeline: { start: r.u64(), acked: r.u64(), durable: r.u64(), head: r.u64() },
    journal: { durable: r.u64(), visible: r.u64() },
    synced: r.flag(),
    release: r.flag() ? 'newer-elsewhere' : 'current',
    access: r.option(() => ROLES[r.u32()]!),
  };
}
