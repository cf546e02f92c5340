// How the examples are built and served in development.

import type { Plugin, UserConfig } from 'vite';

/** A Tidelog server started by hand (or by `npm start`) that development pages sync with. */
const SERVER = 'http://127.0.0.1:8787';

export function example(port: number): UserConfig {
  return {
    // The server serves each example under its own name.
    base: './',
    publicDir: '../shared/public',
    build: { target: 'es2022', emptyOutDir: true },
    worker: { format: 'es' },
    // Its workers are found by their address beside the module, which bundling ahead would move.
    optimizeDeps: { exclude: ['tidelog'] },
    server: { port, proxy: { '/v1': { target: SERVER, ws: true } } },
    plugins: [listOfFiles()],
  };
}

/** Writes down what was built, for the service worker to keep. */
function listOfFiles(): Plugin {
  return {
    name: 'list-of-files',
    enforce: 'post',
    apply: 'build',
    generateBundle(_, bundle) {
      const files = Object.keys(bundle)
        .filter((name) => !name.endsWith('.html'))
        .sort();
      this.emitFile({ type: 'asset', fileName: 'files.json', source: JSON.stringify(files) });
    },
  };
}
