// Takes the lock of a folder again and again, and may be killed at any moment. Who has it makes a
// file that nobody else may have then.

import { closeSync, openSync, rmSync } from 'node:fs';
import path from 'node:path';
import { sleep } from '../browser/harness/time.mjs';

const { lockFolder } = await import('../../js/dist/worker/node/lock.js');

const [folder, ms] = process.argv.slice(2);
const mine = path.join(folder, 'mine');
const until = Date.now() + Number(ms);
let times = 0;
while (Date.now() < until) {
  const release = await lockFolder(folder).catch((error) => {
    if (error.constructor.name !== 'InUse') throw error;
  });
  if (release) {
    closeSync(openSync(mine, 'wx'));
    if (times % 3 === 0) await sleep(2);
    rmSync(mine);
    times += 1;
    // With the lock, but without the file, which nobody would remove.
    if (times % 40 === 0) process.kill(process.pid, 'SIGKILL');
    release();
  } else await sleep(Math.random() * 3);
}
process.exit(times > 0 ? 0 : 1);
