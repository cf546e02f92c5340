/**
 * Tidelog's plugin for Vite 5 and later.
 *
 * @example
 * ```ts
 * // vite.config.ts
 * import { tidelog } from 'tidelog/vite';
 * export default { plugins: [tidelog()] };
 * ```
 */

import { existsSync } from 'node:fs';
import path from 'node:path';
import { IS_APART, lookApart } from './apart.js';
import { Checks } from './checks.js';
import { type App, definesDoctype, type Found } from './modules.js';

/** What is used of Vite's configuration; every version from 5 on has it. */
interface Resolved {
  readonly root: string;
  readonly mode: string;
  readonly configFile?: string | false | undefined;
  readonly command: string;
  readonly logger: { error(message: string): void; warn(message: string): void };
}

/** What is used of its development server. */
interface Server {
  readonly ws: { send(message: object): void };
}

/** Where a build reports what is wrong. */
interface Build {
  getModuleIds(): Iterable<string>;
  error(message: { readonly id: string; readonly message: string }): never;
  warn(message: string): void;
}

/** A plugin as all these versions take it. */
export interface TidelogPlugin {
  name: string;
  config(): { optimizeDeps: { exclude: string[] } };
  configResolved(config: Resolved): void;
  configureServer(server: Server): void;
  transform(code: string, id: string, options?: { readonly ssr?: boolean | undefined }): void;
  handleHotUpdate(changed: { readonly modules: readonly unknown[] }): void;
  buildEnd(this: Build, error?: Error): Promise<void>;
}

/**
 * Has Vite leave Tidelog's workers as they are, and checks with the engine itself, at each build
 * and while you develop, every doctype that a module of the app defines and exports: a migration
 * that does not run or a statement that two devices would answer otherwise ends the build, or is
 * shown over the page.
 *
 * A module that calls `doctype` is run for that, in a process of its own that has the app's
 * configuration and no browser: of one that needs a browser when it is loaded it is warned that it
 * could not be checked.
 */
export function tidelog(): TidelogPlugin {
  const modules = new Set<string>();
  let app: App;
  let config: Resolved;
  let server: Server | undefined;
  /** What was warned of last, and need not be again at each save. */
  let warned: readonly string[] = [];

  /** Of all modules: what they import may have changed. */
  const checks = new Checks(
    async () => {
      for (const file of modules) if (!existsSync(file)) modules.delete(file);
      return sorted(await lookApart(app, [...modules]));
    },
    ({ flaws, warnings }) => {
      for (const it of warnings) if (!warned.includes(it)) config.logger.warn(it);
      warned = warnings;
      if (flaws.length === 0) return;
      const message = flaws.map((flaw) => flaw.message).join('\n');
      const placed = flaws.map(({ id, message }) => `${path.relative(app.root, id)}: ${message}`);
      config.logger.error(placed.join('\n'));
      const err = { plugin: 'tidelog', id: flaws[0]!.id, message, stack: '' };
      server?.ws.send({ type: 'error', err });
    },
  );

  return {
    name: 'tidelog',
    config: () => ({ optimizeDeps: { exclude: ['tidelog'] } }),
    configResolved(resolved) {
      config = resolved;
      app = { root: resolved.root, mode: resolved.mode, configFile: resolved.configFile ?? false };
      server = undefined;
    },
    configureServer(started) {
      server = started;
    },
    transform(code, id, { ssr = false } = {}) {
      const [file] = id.split('?') as [string];
      if (ssr || process.env[IS_APART] || file.includes('/node_modules/')) return;
      if (!definesDoctype(code)) {
        // Of a component's parts one may define it, and another one not.
        if (id === file) modules.delete(file);
        return;
      }
      modules.add(file);
      if (server) checks.saved();
    },
    handleHotUpdate(changed) {
      // A file that is no module of the app changes nothing here, as the store of a server that is
      // started beside it, which is written again and again.
      if (modules.size > 0 && changed.modules.length > 0) checks.saved();
    },
    async buildEnd(error) {
      const ids = new Set([...this.getModuleIds()].map((id) => id.split('?')[0]!));
      // One that was built before, and is not any more, may be gone.
      const files = [...modules].filter((file) => ids.has(file));
      if (error || config.command !== 'build' || files.length === 0) return;
      const { flaws, warnings } = sorted(await lookApart(app, files));
      for (const warning of warnings) this.warn(warning);
      if (flaws.length === 0) return;
      this.error({ id: flaws[0]!.id, message: flaws.map(({ message }) => message).join('\n') });
    },
  };
}

/** What ends a build, and what does not. */
interface Sorted {
  readonly flaws: readonly { readonly id: string; readonly message: string }[];
  readonly warnings: readonly string[];
}

function sorted(found: readonly Found[]): Sorted {
  const flaws = found.flatMap(({ file, doctypes, flaw }) => {
    const messages = [flaw, ...doctypes.map(({ flaw }) => flaw)];
    return messages.flatMap((message) => (message ? { id: file, message } : []));
  });
  const warnings = found.flatMap(({ file, doctypes, failure }) => {
    const hints = doctypes.flatMap(({ hints }) => hints);
    const way = 'export doctypes from a module of their own that needs no browser';
    return failure ? [`no doctype of ${file} was checked (${failure}): ${way}`] : hints;
  });
  return { flaws, warnings };
}
