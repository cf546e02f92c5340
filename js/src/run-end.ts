/** How the code of a run ends. */

import { isA, reasonOf } from './attempts.js';
import type { Decision } from './command-requests.js';
import { WorkflowCancelledError } from './errors.js';
import { jsonOfResult, shortened } from './trying.js';

/** Thrown to end the code: the run has failed for good, or goes on as new. */
export class Ended {
  readonly decision: Decision;

  constructor(decision: Decision) {
    this.decision = decision;
  }
}

/** What it comes to that the code has returned, or thrown. */
export function decisionOf(
  ended: { readonly value: unknown } | { readonly error: unknown },
  tell: (error: unknown) => void,
): Decision {
  try {
    if ('value' in ended) return { result: jsonOfResult(ended.value) };
    throw ended.error;
  } catch (error) {
    if (isA(error, Ended)) return error.decision;
    if (isA(error, WorkflowCancelledError)) return { isCancelled: true };
    tell(error);
    return { reason: shortened(reasonOf(error)), isFinal: true };
  }
}
