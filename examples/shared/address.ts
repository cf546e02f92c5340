// What the page's address says: which document, and where the server is.

/** The value of `name` in the query, or of the whole hash where it is a plain word. */
export function nameFromAddress(name: string, otherwise: string): string {
  const { search, hash } = location;
  const given =
    new URLSearchParams(search).get(name) ?? (/^#[^/=]+$/.test(hash) ? unescaped(hash) : null);
  return given?.trim().slice(0, 100) || otherwise;
}

/** The address of this page with another value for `name` in its query, and no hash. */
export function addressWith(name: string, value: string): string {
  const url = new URL(location.href);
  url.searchParams.set(name, value);
  url.hash = '';
  return url.pathname + url.search;
}

/**
 * The server: `?server=ws://…`, or nothing for `?server=none` (a document of this device only), or
 * the one that serves this page.
 */
export function serverFromAddress(): string | undefined {
  const given = new URLSearchParams(location.search).get('server');
  if (given === 'none') return undefined;
  return given ?? `${location.protocol === 'https:' ? 'wss:' : 'ws:'}//${location.host}`;
}

function unescaped(hash: string): string {
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return hash.slice(1);
  }
}
