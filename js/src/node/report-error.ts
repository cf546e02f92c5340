/** What a listener throws, in a process that has no `reportError`. */

import { setTimeout } from 'node:timers';

/** Taken at once: a test may put another clock into its place. */
const nextTask = setTimeout;

/**
 * Node has none. As in a page, what a listener throws harms nobody else; in a test it fails that,
 * and in a process nobody has caught it.
 */
export function provideReportError(): void {
  globalThis.reportError ??= (error) => {
    nextTask(() => {
      throw error;
    });
  };
}
