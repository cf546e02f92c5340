// What a process of `process.mjs` runs. Functions find here what pages of the browsers' tests have.

import { createRequire, syncBuiltinESMExports } from 'node:module';
import { WebSocket } from 'ws';

/** Where a test keeps what its next step needs. */
const kept = {};

/** The threads that were started here, so that a test can end one. */
const threads = [];
const threadsModule = createRequire(import.meta.url)('node:worker_threads');
const { Worker } = threadsModule;
threadsModule.Worker = class extends Worker {
  constructor(...given) {
    if (kept.hangs) super(new URL('data:text/javascript,for(;;);'));
    else super(...given);
    threads.push(this);
  }
};
syncBuiltinESMExports();

const tidelog = await import('tidelog/node');
const doctypes = await import('../pages/doctypes.mjs');

Object.assign(globalThis, {
  tidelog,
  doctypes,
  threads,
  webSocket: WebSocket,
  kept,
  report: (report) => process.send({ report }),
  errorOf: (error) => ({
    name: error.name,
    code: error.code,
    outcome: error.outcome,
    message: error.message,
    ours: error instanceof tidelog.TidelogError,
  }),
});

process.on('message', async ({ number, what, args }) => {
  try {
    const value = await new Function(`return ${what}`)()(...args);
    process.send({ number, value });
  } catch (error) {
    process.send({ number, error: errorOf(error) });
  }
});
