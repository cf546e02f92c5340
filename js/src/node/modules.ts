/**
 * Looks for doctypes in modules of an app, which are run for that: by the app's own Vite where it
 * has one, with its configuration, and by Node itself where not.
 */

import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Command, DoctypeDefinition } from '../doctype.js';
import { check, doctypesOf, type Finding, flawAmong } from './check.js';

/** Where an app is, and how its Vite was configured. */
export interface App {
  readonly root: string;
  readonly mode?: string | undefined;
  /** False where it has no such file; looked for where nothing is said. */
  readonly configFile?: string | false | undefined;
}

/** A doctype that a module exports. */
export interface FoundDoctype extends Finding {
  readonly name: string;
  /** How many it has. */
  readonly migrations: number;
  readonly mutations: number;
  /** The migrations themselves. */
  readonly schema: readonly string[];
  /** All of it, as a server takes it. */
  readonly json: string;
}

/** What is found in a module. */
export interface Found {
  readonly file: string;
  readonly doctypes: readonly FoundDoctype[];
  /** What is wrong with one, which was found out as it was defined. */
  readonly flaw?: string;
  /** Why there is none. */
  readonly failure?: string;
  /** Whether it was loaded, and exports none. */
  readonly isNone?: true;
}

/** What is used of Vite's development server; every version from 5 on has it. */
interface Runner {
  ssrLoadModule(id: string): Promise<object>;
}

/** Whether a module may define a doctype. */
export const definesDoctype = (code: string): boolean =>
  /['"]tidelog['"]/.test(code) && /\bdoctype\s*\(/.test(code);

/** Looks into these modules, one after the other. */
export async function look(app: App, files: readonly string[]): Promise<readonly Found[]> {
  const load = await loader(app);
  const found: Found[] = [];
  for (const file of files) found.push(await lookInto(file, load));
  return found;
}

type Load = (file: string) => Promise<object>;

async function loader({ root, mode, configFile }: App): Promise<Load> {
  let vite: string;
  try {
    vite = createRequire(path.join(root, 'package.json')).resolve('vite');
  } catch {
    return (file) => import(pathToFileURL(file).href);
  }
  // That of the older ones which `require` finds has its exports where `import` does not see them.
  process.env.VITE_CJS_IGNORE_WARNING = 'true';
  const exports = await import(pathToFileURL(vite).href);
  const { createServer } = exports.createServer ? exports : exports.default;
  const runner: Runner = await createServer({
    root,
    ...(mode && { mode }),
    ...(configFile !== undefined && { configFile }),
    logLevel: 'silent',
    appType: 'custom',
    optimizeDeps: { noDiscovery: true, include: [] },
    server: { middlewareMode: true, hmr: false, ws: false, watch: null },
  });
  return (file) => runner.ssrLoadModule(file);
}

async function lookInto(file: string, load: Load): Promise<Found> {
  try {
    const doctypes: FoundDoctype[] = [];
    const exports = await load(file);
    for (const doctype of doctypesOf(exports)) {
      const { name, migrations, mutations, streams, workflows } = doctype;
      const counts = { migrations: migrations.length, mutations: Object.keys(mutations).length };
      const hasEvents = Object.keys({ ...streams, ...workflows }).length > 0;
      const schema = hasEvents ? [...EVENTS, ...migrations] : migrations;
      const of = { name, ...counts, schema, json: jsonOf(doctype) };
      doctypes.push({ ...of, ...(await check(doctype)) });
    }
    const flaw = flawAmong(exports);
    if (flaw) return { file, doctypes, flaw };
    if (doctypes.length > 0) return { file, doctypes };
    return { file, doctypes, failure: 'it exports no doctype', isNone: true };
  } catch (error) {
    const message = error instanceof Error ? error.message : `${error}`;
    const isFlaw = error instanceof Error && error.name === 'DoctypeError';
    return { file, doctypes: [], [isFlaw ? 'flaw' : 'failure']: message };
  }
}

/**
 * What queries see of events, commands and workflows, as tables: a view does not say of what type
 * its columns are.
 */
const EVENTS = [
  `create table tidelog_events (
     sequence integer primary key, aggregate text not null, stream text not null,
     position integer not null, type text not null, version integer not null, data text,
     time integer not null, user text not null, client text not null, cause text not null,
     erased integer not null) strict`,
  `create table tidelog_streams (
     aggregate text not null, stream text not null, length integer not null,
     archived integer not null) strict`,
  `create table tidelog_commands (
     number integer primary key, aggregate text not null, stream text not null,
     command text not null, args text, key text, state text not null,
     attempt integer not null, time integer not null, user text not null, client text not null,
     instance integer, first integer, last integer, reason text, ended integer) strict`,
  `create table tidelog_workflows (
     number integer primary key, workflow text not null, id text not null,
     version integer not null, args text, state text not null, attempt integer not null,
     time integer not null, user text not null, client text not null, instance integer,
     records integer not null, is_cancelled integer not null, result text, reason text,
     ended integer) strict`,
  `create table tidelog_records (
     record integer primary key, number integer not null, workflow text not null,
     id text not null, name text not null, count integer not null, kind text not null,
     state text not null, result text, time integer, due integer) strict`,
  `create table tidelog_requests (
     record integer primary key, number integer not null, workflow text not null,
     id text not null, name text not null, count integer not null, state text not null,
     result text, time integer) strict`,
  `create table tidelog_instances (
     instance integer primary key, client text not null, user text not null,
     since integer not null) strict`,
  `create table tidelog_snapshots (
     aggregate text not null, stream text not null, name text not null,
     position integer not null, sequence integer not null, state text not null) strict`,
];

/** What a server takes of a doctype, and nothing that an app has put beside it. */
function jsonOf({ name, migrations, mutations, ...more }: DoctypeDefinition): string {
  const { streams, workflows } = more;
  return JSON.stringify({
    name,
    migrations,
    mutations: each(mutations, ({ params, sql }) => ({ params, sql })),
    streams:
      streams &&
      each(streams, ({ events, commands }) => ({
        events: each(events, ({ fields, upcast, project }) => ({ fields, upcast, project })),
        ...(commands && { commands: each(commands, bareCommand) }),
      })),
    workflows: workflows && each(workflows, ({ version, fields }) => ({ version, fields })),
  });
}

const bareCommand = ({ fields, received, failed, retries, timeout }: Command): object => ({
  fields,
  received,
  failed,
  retries,
  timeout,
});

function each<T>(members: Readonly<Record<string, T>>, bare: (it: T) => object): object {
  return Object.fromEntries(Object.entries(members).map(([name, it]) => [name, bare(it)]));
}
