// An app from a template: first what is to be written, all of it, then the writing.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { TEMPLATES, UsageError } from './arguments.mjs';

const inPackage = (...parts) => path.join(fileURLToPath(new URL('..', import.meta.url)), ...parts);

/** What npm takes for the name of a package that is not published under a scope. */
const NAME = /^[a-z0-9][a-z0-9._-]{0,213}$/;

/** npm leaves these out of archives, or takes them for its own: here they have other names. */
const RENAMED = { _gitignore: '.gitignore' };

/**
 * What an app consists of: `{ folder, files, advice }`, with the files' texts by their names.
 *
 * @throws {UsageError} if there can be no such app.
 */
export function plan({ folder, template, tidelog }, cwd) {
  if (!TEMPLATES.includes(template)) {
    throw new UsageError(`there is no template ${template}: one of ${TEMPLATES.join(', ')}`);
  }
  const target = path.resolve(cwd, folder);
  const name = path.basename(target);
  const files = filesOf(template);
  const manifest = JSON.parse(files['package.json']);
  check(name, folder, manifest);
  if (existsSync(target)) throw new UsageError(`${folder} is there already`);

  manifest.name = name;
  if (tidelog !== undefined) manifest.dependencies.tidelog = dependency(tidelog, target, cwd);
  files['package.json'] = `${JSON.stringify(manifest, null, 2)}\n`;
  for (const file of ['README.md', 'index.html']) {
    files[file] = files[file].replaceAll('NAME', name);
  }
  const advice = `${folder} is made. What is next:

  cd ${folder}
  npm install
  npm run dev

Its README.md says how to start a server.`;
  return { folder: target, files, advice };
}

function check(name, folder, { dependencies, devDependencies }) {
  if (!NAME.test(name) || name === 'node_modules') {
    throw new UsageError(
      `${JSON.stringify(folder)} is no name for an app: lower-case letters, digits, - . and _`,
    );
  }
  // npm installs no package into one of that name.
  if (name in dependencies || name in devDependencies) {
    throw new UsageError(`an app cannot be called ${name}: it needs the package of that name`);
  }
}

/** A file is named from the app's folder, so that both can be moved together. */
function dependency(spec, target, cwd) {
  const file = path.resolve(cwd, spec.replace(/^file:/, ''));
  if (!existsSync(file)) return spec;
  return `file:${path.relative(target, file).replaceAll(path.sep, '/')}`;
}

/** The texts of a template, and of what all have, by the names that they get. */
const filesOf = (template) => ({ ...filesIn('shared'), ...filesIn(template) });

function filesIn(part) {
  const folder = inPackage('templates', part);
  const names = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((it) => it.isFile())
    .map((it) => path.relative(folder, path.join(it.parentPath ?? it.path, it.name)));
  const nameOf = (name) => RENAMED[name] ?? name.replaceAll(path.sep, '/');
  return Object.fromEntries(
    names.map((name) => [nameOf(name), readFileSync(path.join(folder, name), 'utf8')]),
  );
}

/** Writes an app into a folder that was not there. */
export function write({ folder, files }) {
  mkdirSync(path.dirname(folder), { recursive: true });
  // Whoever made it meanwhile keeps it.
  mkdirSync(folder);
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(folder, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text, { flag: 'wx' });
  }
}
