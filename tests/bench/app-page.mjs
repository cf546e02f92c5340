// A page of its own that has the package and the tests' doctypes.

/** Runs `work` in one, closes it, and gives what came of it. */
export async function inAppPage(device, site, work, argument) {
  const page = await device.open(new URL('/app.html', site.origin).href);
  await page.waitForFunction(() => globalThis.ready === true);
  const answer = await page.evaluate(work, argument);
  await page.close();
  return answer;
}
