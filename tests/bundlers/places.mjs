// Where things lie: the apps to be bundled, what bundlers make of them, the package as installed.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { inRoot } from '../browser/harness.mjs';

/** This folder: a project of its own, with a lockfile and `node_modules` of its own. */
export const inProject = (...parts) =>
  path.join(fileURLToPath(new URL('.', import.meta.url)), ...parts);

/** What is built goes here, out of the sources' way. */
export const inTarget = (...parts) => inRoot('target/bundlers', ...parts);

/** Says which archive is installed. */
const INSTALLED = 'installed';

/** Installs the package as its users get it: from the archive that `npm pack` makes. Says where
 * that is. What another script has installed is left as it is, with all that was built of it. */
export function installPackage() {
  mkdirSync(inTarget(), { recursive: true });
  const pack = ['pack', '--silent', '--pack-destination', inTarget(), inRoot('js')];
  const archive = inTarget(execFileSync('npm', pack, { encoding: 'utf8' }).trim());
  const hash = createHash('sha256').update(readFileSync(archive)).digest('hex');
  const folder = inProject('node_modules', 'tidelog');
  const mark = path.join(folder, INSTALLED);
  if (existsSync(mark) && readFileSync(mark, 'utf8') === hash) return archive;
  for (const name of readdirSync(inTarget())) {
    if (inTarget(name) !== archive) rmSync(inTarget(name), { recursive: true, force: true });
  }
  // Bundlers keep what they made of a version, and this one's content may have changed.
  for (const name of ['tidelog', '.vite', '.cache']) {
    rmSync(inProject('node_modules', name), { recursive: true, force: true });
  }
  const install = ['install', '--silent', '--no-save', '--offline', '--ignore-scripts'];
  execFileSync('npm', [...install, archive], { cwd: inProject(), stdio: 'inherit' });
  writeFileSync(mark, hash);
  return archive;
}
