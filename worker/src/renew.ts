/** Scripts that the browser's cache has kept over a deployment. */

/** A static import of a file of the same app, minified or not. */
const IMPORT = /\b(?:from|import)\s*["'](\.[^"']*)["']/g;

/** Far more files than a worker is made of. */
const FILES_MAX = 64;

/** A tab gives up a page server's worker that loads for ten seconds. */
const ARRIVAL_MS = 5_000;

/**
 * Asks the server for this worker's script, and for all that it imports, whatever the cache says of
 * them: the next worker at this address is made of what is deployed now. Never fails.
 */
export async function renewScripts(): Promise<void> {
  const asked = new Set<string>();
  const signal = AbortSignal.timeout(ARRIVAL_MS);
  const renew = async (url: string): Promise<void> => {
    if (asked.has(url) || asked.size >= FILES_MAX) return;
    asked.add(url);
    const response = await fetch(url, { cache: 'no-cache', signal });
    if (!response.ok) return;
    const imports = (await response.text()).matchAll(IMPORT);
    await Promise.allSettled([...imports].map(([, path]) => renew(new URL(path, url).href)));
  };
  // Whoever begins anew asks again.
  await renew(location.href).catch(() => {});
}
