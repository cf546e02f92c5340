// Where things lie: the apps to be bundled, what bundlers make of them, the package as installed.

import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { inRoot } from '../browser/harness.mjs';

/** This folder: a project of its own, with a lockfile and `node_modules` of its own. */
export const inProject = (...parts) =>
  path.join(fileURLToPath(new URL('.', import.meta.url)), ...parts);

/** What is built goes here, out of the sources' way. */
export const inTarget = (...parts) => inRoot('target/bundlers', ...parts);

/** Installs the package as its users get it: from the archive that `npm pack` makes. Says where
 * that is. */
export function installPackage() {
  rmSync(inTarget(), { recursive: true, force: true });
  mkdirSync(inTarget(), { recursive: true });
  const pack = ['pack', '--silent', '--pack-destination', inTarget(), inRoot('js')];
  const archive = inTarget(execFileSync('npm', pack, { encoding: 'utf8' }).trim());
  // Bundlers keep what they made of a version, and this one's content may have changed.
  for (const folder of ['tidelog', '.vite', '.cache']) {
    rmSync(inProject('node_modules', folder), { recursive: true, force: true });
  }
  const install = ['install', '--silent', '--no-save', '--offline', '--ignore-scripts'];
  execFileSync('npm', [...install, archive], { cwd: inProject(), stdio: 'inherit' });
  return archive;
}
