// A peer as an app uses it: its database in a worker of its own, one message a call.

/** The page's side. Every call is one message there and one back. */
export function peer(worker, options) {
  const waiting = new Map();
  let last = 0;
  worker.onmessage = ({ data: [call, value, error] }) => {
    const { resolve, reject } = waiting.get(call);
    waiting.delete(call);
    if (error) reject(new Error(error));
    else resolve(value);
  };
  const ask = (...request) =>
    new Promise((resolve, reject) => {
      last += 1;
      waiting.set(last, { resolve, reject });
      worker.postMessage([last, ...request]);
    });
  return {
    open: (name, isText) => ask('open', name, { ...options, isText }),
    mutate: (statement, values) => ask('run', statement, listed(values)),
    query: (statement, values = {}) => ask('rows', statement, values),
  };
}

/** A list of rows goes as JSON, which is how SQLite takes it. */
function listed(values) {
  return values.rows ? { rows: JSON.stringify(values.rows) } : values;
}

/** The worker's side: answers each call in turn. */
export function serve(calls) {
  let turn = Promise.resolve();
  addEventListener('message', ({ data: [call, name, ...args] }) => {
    turn = turn.then(async () => {
      try {
        // Without an await where there is nothing to wait for: a peer that is synchronous stays so.
        const answer = calls[name](...args);
        postMessage([call, answer instanceof Promise ? await answer : answer]);
      } catch (error) {
        postMessage([call, null, String(error?.stack ?? error)]);
      }
    });
  });
}
