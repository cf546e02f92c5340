/** Has modules of an app looked into by a process of its own, which always ends. */

import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { App, Found } from './modules.js';

/** How long it may take, milliseconds: a large app's Vite may need to start. */
const APART_MS = 60_000;

/** Says to Tidelog's plugin in that process that it is there, where it is to do nothing. */
export const IS_APART = 'TIDELOG_IS_APART';

/** Has a Node that can, and does not by itself, load modules in TypeScript. */
const FLAG = '--experimental-strip-types';
const TYPES_STRIPPED = process.allowedNodeEnvironmentFlags.has(FLAG) ? [FLAG] : [];

/** Looks into these modules. Where that cannot be done, it is what is said of each. */
export function lookApart(app: App, files: readonly string[]): Promise<readonly Found[]> {
  return new Promise((resolve) => {
    const child = fork(
      fileURLToPath(new URL('./child.js', import.meta.url)),
      [JSON.stringify([app, files])],
      {
        env: { ...process.env, [IS_APART]: '1' },
        execArgv: [...process.execArgv, ...TYPES_STRIPPED],
        // What modules print is not what was asked for.
        stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      },
    );
    const end = (found: readonly Found[]): void => {
      clearTimeout(timer);
      child.kill();
      resolve(found);
    };
    const fail = (failure: string): void => {
      end(files.map((file) => ({ file, doctypes: [], failure })));
    };
    const timer = setTimeout(() => fail('it takes more than a minute'), APART_MS);
    child.on('message', (answer: { found?: readonly Found[]; failure?: string }) => {
      if (answer.found) end(answer.found);
      else fail(answer.failure!);
    });
    child.on('error', (error) => fail(`${error}`));
    child.on('exit', (code) => fail(`its process ended with ${code}`));
  });
}
