// Who is measured, in what order, and as what.
//
// A peer that holds its files alone is as fast as it can be, and serves one tab: the next one cannot
// open it. Those that let go of them serve two, as an app in a browser has to expect. SQLite's own
// do so only on pages that are cross-origin isolated, which few sites are.

/** `group`: how many tabs it serves; `bare` are no databases, but what one cannot do without. */
export const SYSTEMS = [
  { name: 'bare-write', says: 'a page written and flushed', group: 'bare', color: '#bdc1c6' },
  { name: 'bare-way', says: 'the bare way', group: 'bare', color: '#80868b' },
  { name: 'tidelog', says: 'Tidelog, a local document', group: 'tidelog', color: '#0b7a75' },
  { name: 'tidelog-server', says: 'Tidelog, synced', group: 'tidelog', color: '#19b5a5' },
  { name: 'sqlite-wasm', says: 'sqlite-wasm, sahpool', group: 'one tab', color: '#8c6bb1' },
  { name: 'sqlite-wasm-wal', says: 'the same, WAL', group: 'one tab', color: '#b39ddb' },
  { name: 'wa-sqlite', says: 'wa-sqlite, handle pool', group: 'one tab', color: '#d98e32' },
  { name: 'wa-sqlite-wal', says: 'the same, WAL', group: 'one tab', color: '#e8b87d' },
  { name: 'wa-sqlite-coop', says: 'wa-sqlite, coop sync', group: 'two tabs', color: '#a0522d' },
  { name: 'wa-sqlite-ahead', says: 'wa-sqlite, write ahead', group: 'two tabs', color: '#c77b58' },
  { name: 'sqlite-wasm-opfs', says: 'sqlite-wasm, opfs', group: 'two tabs', color: '#5e4b8b' },
  { name: 'sqlite-wasm-locks', says: 'sqlite-wasm, opfs-wl', group: 'two tabs', color: '#7b68a6' },
];

/** Whether the system of this name is a database of others. */
export const isPeer = (system) =>
  SYSTEMS.some(({ name, group }) => name === system && /^(one|two) tabs?$/.test(group));

/** Those work where pages share memory. */
const ISOLATED_ONLY = /^sqlite-wasm-(opfs|locks)$/;

/** Beside Tidelog and what is bare, in Firefox. */
const FIREFOX_PEERS = ['sqlite-wasm-wal', 'wa-sqlite-wal'];

/** Whether one is measured in this browser on this kind of page. */
export function isMeasured({ name, group }, browser, page) {
  if (ISOLATED_ONLY.test(name) && page !== 'isolated') return false;
  return (
    browser !== 'Firefox' ||
    (!group.endsWith('tabs') && (group !== 'one tab' || FIREFOX_PEERS.includes(name)))
  );
}

/** Which HTML file a system is driven from. */
export const fileOf = ({ group }) => (group === 'tidelog' ? 'tidelog' : 'peers');
