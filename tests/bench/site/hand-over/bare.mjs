// Rows written by whichever tab's worker has the lock.

const rows = new BroadcastChannel('bare');

/** Starts this tab's worker, which serves when it is its turn. */
export const lend = () => new Worker('/bare/bare.worker.mjs', { type: 'module' });

/** Resolves when the row of this name is written. */
export function write(name) {
  return new Promise((resolve) => {
    rows.onmessage = ({ data: { done } }) => {
      if (done === name) resolve();
      // Who has just taken over knows nothing of what was asked before.
      if (done === null) rows.postMessage({ wanted: name });
    };
    rows.postMessage({ wanted: name });
  });
}
