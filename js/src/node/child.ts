/**
 * The process in which modules of an app are run: they may do anything, as opening documents, for
 * which there is no browser here, and that is to end no build.
 */

import { type App, look } from './modules.js';

// Nobody waits for what a module began.
process.on('unhandledRejection', () => {});
process.on('uncaughtException', () => {});

const [app, files] = JSON.parse(process.argv[2]!) as [App, string[]];
let answer: object;
try {
  answer = { found: await look(app, files) };
} catch (error) {
  answer = { failure: `${error}` };
}
process.send!(answer, () => process.exit());
