// What the server rejected, each rejection once.

import type { Rejection } from 'tidelog';
import type { AnyDatabase } from './status.ts';

/**
 * Calls `listener` for every mutation of this device that the server rejected, also for those of
 * earlier visits. They are told at least once; their id tells repeats apart.
 */
export function onRejected(db: AnyDatabase, listener: (rejection: Rejection) => void): () => void {
  const seen = new Set<string>();
  return db.on('rejected', (rejection) => {
    if (seen.has(rejection.id)) return;
    seen.add(rejection.id);
    listener(rejection);
  });
}
