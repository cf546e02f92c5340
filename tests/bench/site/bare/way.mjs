// The bare way: what no engine that all tabs share can do without. A call goes from the tab to a
// SharedWorker, from there to the worker that a tab lends, which writes a few bytes and flushes
// them, and all the way back; what comes while it flushes is flushed together. A query goes as far
// as the SharedWorker.

/** A system as `measure.mjs` takes it. */
export function bareWay() {
  const core = new SharedWorker(new URL('./core.worker.mjs', import.meta.url), { type: 'module' });
  const waiting = new Map();
  let last = 0;
  core.port.onmessage = ({ data: [call, answer] }) => {
    waiting.get(call)(answer);
    waiting.delete(call);
  };
  const ask = (...request) =>
    new Promise((resolve) => {
      last += 1;
      waiting.set(last, resolve);
      core.port.postMessage([last, ...request]);
    });
  return {
    open(name) {
      const pages = new Worker(new URL('./pages.worker.mjs', import.meta.url), { type: 'module' });
      const { port1, port2 } = new MessageChannel();
      pages.postMessage(name, [port1]);
      core.port.postMessage('pages', [port2]);
      return ask('open');
    },
    mutate: (_statement, { rows, title }) => ask('run', rows ? JSON.stringify(rows) : title),
    query: (statement, values = {}) => ask('rows', statement, values),
  };
}
