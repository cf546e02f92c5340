// Where things lie: the clone, the package, the server's binary, the browsers, real data.

import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../../..', import.meta.url));

/** A path in the clone. */
export const inRoot = (...parts) => path.join(root, ...parts);

/** What cargo has built: where the repository's commands say, or where cargo puts it. */
function built(what, named) {
  const target = process.env.CARGO_TARGET_DIR;
  const places = [named, target && path.resolve(root, target, what), inRoot('target', what)];
  const found = places.find((place) => place && existsSync(place));
  if (!found) throw new Error(`there is no target/${what}: npm run build`);
  return found;
}

/** The server. */
export const serverBinary = () => built('release/tidelog', process.env.TIDELOG_SERVER);

/** The example of the client in Rust that has runs go on; `npm test -- node` builds it. */
export const rustWorker = () => built('release/examples/worker', process.env.TIDELOG_WORKER);

/** The package's entry as a path below js/, from its own `exports`. */
export function packageEntry() {
  const manifest = JSON.parse(readFileSync(inRoot('js/package.json'), 'utf8'));
  let entry = manifest.exports['.'];
  while (typeof entry === 'object') entry = entry.browser ?? entry.import ?? entry.default;
  if (!existsSync(inRoot('js', entry))) throw new Error(`there is no js/${entry}: npm run build`);
  return path.posix.join('/', entry);
}

export const browsers = {
  Chromium: process.env.TIDELOG_CHROMIUM ?? '/usr/bin/chromium',
  Firefox: process.env.TIDELOG_FIREFOX ?? '/usr/bin/firefox-esr',
};

/** A file of the real data that this repository does not hold, or null where that is absent. */
export function realData(name) {
  const folder = process.env.TIDELOG_DATA ?? inRoot('../shared/data');
  const file = path.join(folder, name);
  return existsSync(file) ? file : null;
}
