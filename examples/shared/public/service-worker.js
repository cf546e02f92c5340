// Keeps the app's own files on this device, so that the page opens without a network too. The data
// is none of its business: that is Tidelog's. The network goes first; the copy is for when it is not
// there, so nobody is left with an old release.

const CACHE = 'app-files';

self.addEventListener('install', (event) => {
  event.waitUntil(keepFiles().then(() => self.skipWaiting()));
});

self.addEventListener('activate', (event) => {
  event.waitUntil(self.clients.claim());
});

self.addEventListener('fetch', (event) => {
  const { method, mode, url } = event.request;
  if (method !== 'GET' || !url.startsWith(self.registration.scope)) return;
  if (mode === 'navigate') event.respondWith(page(event));
  else event.respondWith(file(event.request));
});

/** The query of a page names a document; the file is the same one. */
async function page(event) {
  try {
    const response = await fetch(event.request);
    if (response.ok) event.waitUntil(keepFiles());
    return response;
  } catch (error) {
    return (await caches.match('./')) ?? Promise.reject(error);
  }
}

async function file(request) {
  try {
    return await fetch(request);
  } catch (error) {
    return (await caches.match(request)) ?? Promise.reject(error);
  }
}

/** Their names change with what is in them: what is kept already need not be fetched again. */
async function keepFiles() {
  const response = await fetch('./files.json', { cache: 'no-store' });
  const files = (await response.json()).map((name) => new URL(name, self.registration.scope).href);
  const cache = await caches.open(CACHE);
  await cache.add('./');
  for (const { url } of await cache.keys()) {
    const isOurs = url.startsWith(self.registration.scope) && url !== self.registration.scope;
    if (isOurs && !files.includes(url)) await cache.delete(url);
    if (isOurs && files.includes(url)) files.splice(files.indexOf(url), 1);
  }
  await cache.addAll(files);
}
