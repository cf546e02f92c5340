/** What the machines of a tab have in common about time; all of it in milliseconds. */

/** A time that does not come. */
export const NEVER: number = Number.POSITIVE_INFINITY;

const PAUSE_MS = 500;
const PAUSE_MS_MAX = 8_000;

/** How long to wait before something is tried again that failed so often before. */
export const pause = (tries: number): number => Math.min(PAUSE_MS * 2 ** tries, PAUSE_MS_MAX);
