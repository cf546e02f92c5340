/** A bound on how long the browser may take to answer. */

/** Whoever waits may hold a lock, and another worker may have better luck. */
export const ANSWER_MS = 10_000;

/** The answer, or `late` where there is none for ten seconds: then nobody hears it any more. */
export function inTime<T>(answer: Promise<T>, late: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(late)), ANSWER_MS);
    answer.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
