// A site of its own origin: the fixture pages, the package as it is published, and whatever
// folders a test adds. Pages get the strict policy that the package promises to work under.

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import path from 'node:path';
import { inRoot, packageEntry } from './places.mjs';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
  '.sql': 'text/plain; charset=utf-8',
};

/** What the package's README asks for, and `dev`, and nothing more; the servers of tests are on
 * loopback. */
const POLICY =
  `default-src 'none'; connect-src 'self' ws://127.0.0.1:* http://127.0.0.1:*; worker-src 'self'; ` +
  `script-src 'self' 'wasm-unsafe-eval'`;

/** What may build queries for the package, and its parts for that. */
const QUERY_BUILDERS = {
  'tidelog/kysely': '/tidelog/dist/kysely.js',
  'tidelog/events': '/tidelog/dist/events.js',
  'tidelog/drizzle': '/tidelog/dist/drizzle.js',
  kysely: '/kysely/dist/esm/index.js',
  'drizzle-orm/sqlite-core': '/drizzle-orm/sqlite-core/index.js',
  'drizzle-orm/sqlite-proxy': '/drizzle-orm/sqlite-proxy/index.js',
};

/** What a page loads when its address is `/NAME.html`: the module `/pages/NAME.mjs`. */
function fixturePage(name) {
  const tidelog = `/tidelog${packageEntry()}`;
  const imports = JSON.stringify({ imports: { tidelog, ...QUERY_BUILDERS } });
  const hash = createHash('sha256').update(imports).digest('base64');
  return {
    policy: `${POLICY} 'sha256-${hash}'; img-src data:`,
    text:
      `<!doctype html><meta charset="utf-8"><title>${name}</title><link rel="icon" href="data:,">` +
      `<script type="importmap">${imports}</script>` +
      `<script type="module" src="/pages/${name}.mjs"></script>`,
  };
}

/** Starts a site on a free port of loopback, which browsers take for a secure context.
 *
 * Who loads `/clear-site-data` loses all that the browser keeps for the site.
 * `folders` maps a prefix to a folder. `onReport` gets the body of every POST to `/report`. Where
 * `drops` says so of a path, the connection is cut instead of an answer. Every answer has
 * `headers`. */
export async function startSite({
  folders = {},
  onReport = () => {},
  drops = () => false,
  cache = false,
  headers = {},
} = {}) {
  const mounts = {
    '/pages/': inRoot('tests/pages'),
    '/tidelog/': inRoot('js'),
    '/kysely/': inRoot('node_modules/kysely'),
    '/drizzle-orm/': inRoot('node_modules/drizzle-orm'),
    ...folders,
  };
  const server = createServer((request, response) => {
    answer(request, response).catch((error) => {
      response.statusCode = error.code === 'ENOENT' ? 404 : 500;
      response.end(String(error));
    });
  });

  async function answer(request, response) {
    const { pathname } = new URL(request.url, 'http://site');
    if (drops(pathname)) {
      request.socket.destroy();
      return;
    }
    response.setHeaders(new Map(Object.entries(headers)));
    response.setHeader('access-control-allow-origin', '*');
    response.setHeader('cache-control', cache ? 'max-age=3600' : 'no-cache');
    if (pathname === '/clear-site-data') {
      response.setHeader('clear-site-data', '"storage"');
      response.end();
      return;
    }
    if (request.method === 'POST') {
      let body = '';
      for await (const piece of request) body += piece;
      response.end();
      onReport(JSON.parse(body));
      return;
    }
    const fixture = /^\/([a-z-]+)\.html$/.exec(pathname);
    if (fixture && !mounts['/']) {
      const page = fixturePage(fixture[1]);
      response.setHeader('content-security-policy', page.policy);
      response.setHeader('content-type', TYPES['.html']);
      response.end(page.text);
      return;
    }
    const prefix = Object.keys(mounts)
      .filter((mount) => pathname.startsWith(mount))
      .sort((a, b) => b.length - a.length)[0];
    if (!prefix) {
      response.statusCode = 404;
      response.end();
      return;
    }
    const below = decodeURIComponent(pathname.slice(prefix.length)) || 'index.html';
    const file = path.join(mounts[prefix], path.posix.join('/', below));
    const content = await readFile(file);
    response.setHeader('content-type', TYPES[path.extname(file)] ?? 'application/octet-stream');
    // Workers are under the policy of their own scripts, and not of the page.
    if (prefix === '/tidelog/') response.setHeader('content-security-policy', POLICY);
    response.end(content);
  }

  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${server.address().port}`;
  return {
    origin,
    url: (place) => new URL(place, origin).href,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
