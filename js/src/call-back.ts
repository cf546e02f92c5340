/** Calling what may throw. */

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
