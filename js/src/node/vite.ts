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

import { check, doctypesOf } from './check.js';
import { type Runner, startRunner } from './runner.js';

/** What is used of Vite's configuration; every version from 5 on has it. */
interface Resolved {
  readonly root: string;
  readonly mode: string;
  readonly resolve: { readonly alias: unknown };
  readonly logger: { error(message: string): void; warn(message: string): void };
}

/** What is used of its development server. */
interface Server extends Runner {
  readonly ws: { send(message: object): void };
}

/** Where a build reports what is wrong. */
interface Build {
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
  buildEnd(this: Build, error?: Error): Promise<void>;
}

/** What became of a module's doctypes. */
interface Checked {
  readonly flaws: readonly string[];
  /** What will be wrong, or why none could be looked at. */
  readonly warnings: readonly string[];
}

/**
 * Has Vite leave Tidelog's workers as they are, and checks with the engine itself, at each build and
 * while you develop, every doctype that a module of the app exports: a migration that does not run or
 * a statement that two devices would answer otherwise ends the build, or is shown over the page.
 *
 * A doctype is found where its module names `tidelog` and `doctype`. Such a module is run in Node: one
 * that needs a browser when it is loaded cannot be checked, which is warned of.
 */
export function tidelog(): TidelogPlugin {
  const modules = new Set<string>();
  let config: Resolved;
  let server: Server | undefined;

  const show = async (id: string): Promise<void> => {
    const { flaws, warnings } = await checkModule(server!, id);
    for (const warning of warnings) config.logger.warn(warning);
    if (flaws.length === 0) return;
    const message = flaws.join('\n');
    config.logger.error(message);
    server!.ws.send({ type: 'error', err: { plugin: 'tidelog', id, message, stack: '' } });
  };

  return {
    name: 'tidelog',
    config: () => ({ optimizeDeps: { exclude: ['tidelog'] } }),
    configResolved(resolved) {
      config = resolved;
    },
    configureServer(started) {
      server = started;
    },
    transform(code, id, { ssr = false } = {}) {
      if (ssr || id.includes('/node_modules/') || !definesDoctype(code)) return;
      const [file] = id.split('?') as [string];
      modules.add(file);
      if (server) void show(file);
    },
    async buildEnd(error) {
      if (error || server || modules.size === 0) return;
      const { root, mode, resolve } = config;
      const runner = await startRunner('vite', { root, mode, resolve: { alias: resolve.alias } });
      try {
        for (const id of modules) {
          const { flaws, warnings } = await checkModule(runner, id);
          for (const warning of warnings) this.warn(warning);
          if (flaws.length > 0) this.error({ id, message: flaws.join('\n') });
        }
      } finally {
        await runner.close();
      }
    },
  };
}

const definesDoctype = (code: string): boolean =>
  /['"]tidelog['"]/.test(code) && /\bdoctype\b/.test(code);

async function checkModule(runner: Runner, id: string): Promise<Checked> {
  let exports: object;
  try {
    exports = await runner.ssrLoadModule(id);
  } catch (error) {
    const { name, message } = error as Error;
    if (name === 'DoctypeError') return { flaws: [`${id}: ${message}`], warnings: [] };
    const way = 'put doctypes into a module of their own that needs no browser';
    return { flaws: [], warnings: [`the doctypes of ${id} were not checked (${message}): ${way}`] };
  }
  const found = [...doctypesOf(exports).values()];
  if (found.length === 0) {
    return { flaws: [], warnings: [`${id} exports no doctype, so none was checked: export it`] };
  }
  const findings = await Promise.all(found.map(check));
  const flaws = findings.flatMap(({ flaw }) => flaw ?? []);
  return { flaws, warnings: findings.flatMap(({ hints }) => hints) };
}
