// Lets the page itself open without a network. In development there is nothing built to keep.

export function keepPageForOffline(): void {
  if (!import.meta.env.PROD || !('serviceWorker' in navigator)) return;
  // Without it the app works all the same while the server is there.
  navigator.serviceWorker.register('./service-worker.js').catch(() => undefined);
}
