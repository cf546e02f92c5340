// The app as each bundler makes it, served under the policy that the package promises to work
// under: on every answer, the workers' scripts included.
//
// Each is `async (onEnd, options) => origin`; `onEnd` takes what is to be closed at the end.

import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import * as esbuild from 'esbuild';
import * as vite from 'vite';
import webpack from 'webpack';
import { eventually, freePort, startSite } from '../browser/harness.mjs';
import { inProject, inTarget } from './places.mjs';

const POLICY = `script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'`;

/** On every answer of a site that shares its process with no other, and has Trusted Types. */
const ISOLATED = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
};
const TRUSTED = `require-trusted-types-for 'script'; trusted-types default`;

/** A folder with a page that loads one script, which is all that most bundlers leave to us. */
function pageIn(folder, script) {
  mkdirSync(folder, { recursive: true });
  const head =
    '<!doctype html><meta charset="utf-8"><title>Notes</title><link rel="icon" href="data:,">';
  writeFileSync(path.join(folder, 'index.html'), head + script);
}

/** `script`: what else may run. */
export async function serve(onEnd, folders, { script = '', isStrict = false } = {}) {
  const policy = POLICY.replace(';', `${script};`) + (isStrict ? `; ${TRUSTED}` : '');
  const headers = { 'content-security-policy': policy, ...(isStrict && ISOLATED) };
  const site = await startSite({ folders, headers });
  onEnd(() => site.close());
  return site.origin;
}

/** No bundler: an import map names the package. */
export async function plainHtml(onEnd, { isStrict = false } = {}) {
  const imports = JSON.stringify({ imports: { tidelog: '/tidelog/dist/index.js' } });
  const hash = createHash('sha256').update(imports).digest('base64');
  const map = `<script type="importmap">${imports}</script>`;
  pageIn(inTarget('plain'), `${map}<script type="module" src="/app/main.mjs"></script>`);
  const folders = {
    '/': inTarget('plain'),
    '/app/': inProject('app'),
    '/tidelog/': inProject('node_modules/tidelog'),
  };
  return serve(onEnd, folders, { script: ` 'sha256-${hash}'`, isStrict });
}

/** With Tidelog's plugin, which older ones need, where it is one of those and not `isBare`. */
async function viteOf(version, isBare) {
  if (version === undefined) return { vite, config: {} };
  const plugins = isBare ? [] : [(await import('tidelog/vite')).tidelog()];
  const cacheDir = inTarget(`cache-${version}${isBare ? '-bare' : ''}`);
  return { vite: await import(`vite-${version}`), config: { plugins, cacheDir } };
}

export async function viteDev(onEnd, { version, isBare } = {}) {
  const { vite, config } = await viteOf(version, isBare);
  const server = await vite.createServer({
    ...config,
    root: inProject('app'),
    configFile: false,
    logLevel: 'error',
    server: {
      host: '127.0.0.1',
      port: await freePort(),
      headers: { 'content-security-policy': POLICY },
    },
  });
  onEnd(() => server.close());
  await server.listen();
  return server.resolvedUrls.local[0];
}

export async function viteBuild(onEnd, { version } = {}) {
  const { vite, config } = await viteOf(version);
  const outDir = inTarget(`vite-${version ?? 'newest'}`);
  const build = { outDir, emptyOutDir: true };
  const root = inProject('app');
  await vite.build({ ...config, root, configFile: false, logLevel: 'error', build });
  return serve(onEnd, { '/': outDir });
}

/** What a bundler makes, which takes it a while, for all sites that serve it. */
function once(build) {
  let built;
  return () => {
    built ??= build();
    return built;
  };
}

const bundleOfWebpack = once(async () => {
  const folder = inTarget('webpack');
  pageIn(folder, '<script defer src="./main.js"></script>');
  const settings = { mode: 'production', context: inProject(), entry: './app/main.mjs' };
  const output = { path: folder };
  const stats = await promisify(webpack)({ ...settings, output });
  const { warnings } = stats.toJson({ all: false, warnings: true });
  // Of the size of WebAssembly it warns whoever writes it.
  const others = warnings.filter(({ message }) => !/^asset size limit/.test(message));
  if (stats.hasErrors() || others.length > 0) throw new Error(stats.toString());
  return folder;
});

/** It leaves workers out: they are copied, and the app says where they are. */
const bundleOfEsbuild = once(async () => {
  const folder = inTarget('esbuild');
  pageIn(folder, '<script type="module" src="./main.js"></script>');
  const entryPoints = [inProject('esbuild/main.mjs')];
  await esbuild.build({ entryPoints, outdir: folder, bundle: true, format: 'esm' });
  const copy = ['tidelog', 'copy-assets', inTarget('assets')];
  execFileSync('npx', ['--offline', ...copy], { cwd: inProject(), stdio: 'ignore' });
  return folder;
});

export async function webpack5(onEnd, options) {
  return serve(onEnd, { '/': await bundleOfWebpack() }, options);
}

export async function esbuildAndCopiedAssets(onEnd) {
  return serve(onEnd, { '/': await bundleOfEsbuild(), '/assets/': inTarget('assets') });
}

/** Two apps of one site, whose workers lie at two addresses and are of two kinds. */
export async function twoBundles(onEnd) {
  return serve(onEnd, {
    '/webpack/': await bundleOfWebpack(),
    '/esbuild/': await bundleOfEsbuild(),
    '/assets/': inTarget('assets'),
  });
}

/** Next.js has scripts in its pages, which its own guide lets in so. */
const NEXT_POLICY = POLICY.replace(';', ` 'unsafe-inline';`);

/** Built and started, or while it is developed. */
export async function nextJs(onEnd, { isDev = false } = {}) {
  const env = { ...process.env, NEXT_TELEMETRY_DISABLED: '1', POLICY: NEXT_POLICY };
  // Vite has set it for a development of its own.
  delete env.NODE_ENV;
  if (isDev) env.POLICY = NEXT_POLICY.replace(';', ` 'unsafe-eval';`);
  const next = inProject('node_modules/next/dist/bin/next');
  const stdio = ['ignore', 'ignore', 'inherit'];
  const at = { cwd: inProject('next'), env, stdio };
  if (!isDev) execFileSync(process.execPath, [next, 'build'], at);
  const port = await freePort();
  const start = [next, isDev ? 'dev' : 'start', '--hostname', '127.0.0.1', '--port', String(port)];
  const server = spawn(process.execPath, start, { ...at, detached: true });
  // It has processes of its own.
  onEnd(() => process.kill(-server.pid));
  const origin = `http://127.0.0.1:${port}`;
  await eventually(() => fetch(origin).catch(() => null), { what: 'the server of Next.js' });
  return origin;
}

/** An app with the hooks of a framework, on Vite's development server with its plugin. */
function framework(name, file, plugin) {
  return async (onEnd) => {
    let title = 'Notes';
    const edited = inProject('hooks', name, file);
    const edit = (code) => code.replace('>Notes<', `>${title}<`);
    const edits = {
      name: 'edits',
      enforce: 'pre',
      transform: (code, id) => (id === edited ? edit(code) : undefined),
      // Vue's plugin looks at the file itself to see what has changed.
      handleHotUpdate(context) {
        const { read } = context;
        context.read = async () => edit(await read());
      },
    };
    const server = await vite.createServer({
      root: inProject('hooks', name),
      configFile: false,
      cacheDir: inTarget('vite', name),
      logLevel: 'error',
      plugins: [edits, await plugin()],
      server: { host: '127.0.0.1', port: await freePort() },
    });
    onEnd(() => server.close());
    await server.listen();
    const setTitle = (text) => {
      title = text;
      server.watcher.emit('change', edited);
    };
    return { origin: server.resolvedUrls.local[0], setTitle };
  };
}

/** One app for each framework that has hooks. */
export const frameworks = {
  React: framework('react', 'list.jsx', async () =>
    (await import('@vitejs/plugin-react')).default(),
  ),
  Vue: framework('vue', 'list.vue', async () => (await import('@vitejs/plugin-vue')).default()),
  Svelte: framework('svelte', 'list.svelte', async () => {
    const { svelte } = await import('@sveltejs/vite-plugin-svelte');
    return svelte({ configFile: false });
  }),
  Solid: framework('solid', 'list.jsx', async () => (await import('vite-plugin-solid')).default()),
};
