/** Calling what may throw, now or soon. */

/**
 * Calls what an app gave us, or what may be refused by the browser: what it throws is reported, and
 * harms nobody else. Says whether it returned.
 */
export function callBack(listener: () => void): boolean {
  try {
    listener();
    return true;
  } catch (error) {
    reportError(error);
    return false;
  }
}

/**
 * Calls `work` as soon as what runs now has ended. Not by `queueMicrotask`, which tests may have
 * faked.
 */
export function soon(work: () => void): void {
  void Promise.resolve().then(() => callBack(work));
}
