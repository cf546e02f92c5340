// How much room the browser gives a site: decided by the test.

/** What Firefox gives a site if it is told so at its start, which is the only time. */
const FIREFOX_ROOM = 16 * 1024 * 1024;

/** A tab on `site`, and `leave(bytes)`, which leaves the site so much room; by itself, plenty. */
export async function tabWithRoom(stage, site) {
  const place = site.url('app.html');
  if (stage.kind === 'Firefox') {
    const device = await stage.ownDevice({ room: FIREFOX_ROOM }).launch();
    const tab = await stage.tabOf(device, place);
    return { tab, leave: (bytes) => tab.evaluate(fill, bytes ?? null) };
  }
  const tab = await stage.tab(place);
  const session = await tab.createCDPSession();
  const { origin } = site;
  const leave = async (bytes) => {
    const { usage } = await session.send('Storage.getUsageAndQuota', { origin });
    const quotaSize = bytes === undefined ? undefined : Math.max(1, usage + bytes);
    await session.send('Storage.overrideQuotaForOrigin', { origin, quotaSize });
  };
  return { tab, leave };
}

/** Runs in the page: takes all room but `bytes` by files of its own; null: gives it all back. */
async function fill(bytes) {
  const root = await navigator.storage.getDirectory();
  await root.removeEntry('ballast', { recursive: true }).catch(() => {});
  if (bytes === null) return;
  const ballast = await root.getDirectoryHandle('ballast', { create: true });
  for (let size = 1 << 20; size >= 1024; ) {
    const { usage, quota } = await navigator.storage.estimate();
    // Until it is closed, there are two of it.
    if (quota - usage - bytes < 2 * size) {
      size /= 2;
      continue;
    }
    const file = await ballast.getFileHandle(crypto.randomUUID(), { create: true });
    const writable = await file.createWritable();
    await writable.truncate(size);
    await writable.close();
  }
}
