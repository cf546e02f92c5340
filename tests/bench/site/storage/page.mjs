// The store beside the raw calls: `bench(NAME, quick)` gives the rows of one measure.

/** Each measure in a worker of its own, with a memory of its own. */
globalThis.bench = (name, quick) =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./worker.mjs', import.meta.url), { type: 'module' });
    worker.onmessage = ({ data: { rows, error } }) => {
      worker.terminate();
      if (error) reject(new Error(error));
      else resolve(rows);
    };
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.postMessage({ name, quick });
  });
globalThis.ready = true;
