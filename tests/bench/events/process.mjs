// Processes beside the one that measures.

import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Runs a script of this folder. Resolves with what it says first, and with what ends it. */
export async function start(script, ...args) {
  const file = fileURLToPath(new URL(script, import.meta.url));
  const child = fork(file, args.map(String), { stdio: 'inherit' });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const said = await new Promise((resolve, reject) => {
    child.once('message', resolve);
    ended.then((code) => reject(new Error(`${script} has ended with ${code}`)));
  });
  const end = async () => {
    child.kill();
    await ended;
  };
  return { said, end };
}
