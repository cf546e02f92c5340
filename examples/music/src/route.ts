// Where in the shop one is: `#/artists/22/132` is an album of an artist, `#/invoices/7` an invoice.

export type Route =
  | { view: 'artists'; artist: number | null; album: number | null }
  | { view: 'invoices'; invoice: number | null };

export function currentRoute(): Route {
  const [, view, first, second] = location.hash.split('/');
  if (view === 'invoices') return { view, invoice: key(first) };
  return { view: 'artists', artist: key(first), album: key(second) };
}

export function linkTo(route: Route): string {
  const keys = route.view === 'invoices' ? [route.invoice] : [route.artist, route.album];
  return ['#', route.view, ...keys.filter((it) => it !== null)].join('/');
}

function key(text: string | undefined): number | null {
  return text && /^\d+$/.test(text) ? Number(text) : null;
}
