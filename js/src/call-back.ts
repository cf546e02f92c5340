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
 * The same with each of several, but for one that another has taken from them meanwhile. Says
 * whether there are any, and all returned.
 */
export function callAll<Listener>(
  listeners: ReadonlySet<Listener>,
  call: (listener: Listener) => void,
): boolean {
  const returned = [...listeners].map((it) => !listeners.has(it) || callBack(() => call(it)));
  return returned.length > 0 && returned.every(Boolean);
}

/**
 * Calls `work` as soon as what runs now has ended. Not by `queueMicrotask`, which tests may have
 * faked.
 */
export function soon(work: () => void): void {
  void Promise.resolve().then(() => callBack(work));
}
