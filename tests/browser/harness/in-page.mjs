// What most tests ask of the fixture page `app.html`. An open document is kept there under a name.

import { sleep } from './time.mjs';

/** Opens a document, or says how that failed: null, or the error as plain data. */
export const tryOpen = (page, doctype, options, name = 'db') =>
  page.evaluate(
    async ([doctype, options, name]) => {
      const { value, error } = await outcome(async () => {
        kept[name] = await tidelog.open(doctypes[doctype], options);
      });
      return value ?? error ?? null;
    },
    [doctype, options, name],
  );

/** Opens a document, which must work. */
export async function openIn(page, doctype, options, name) {
  const error = await tryOpen(page, doctype, options, name);
  if (error) throw new Error(`open: ${error.name}: ${error.message}`);
}

/** Rows of a query. */
export const rowsIn = (page, sql, name = 'db') =>
  page.evaluate(([sql, name]) => kept[name].query(sql), [sql, name]);

/** Issues a mutation and says how far it came: `durable`, `confirmed`, or `visible` for no wait. */
export const mutateIn = (page, mutation, args, stage = 'durable', name = 'db') =>
  page.evaluate(
    ([mutation, args, stage, name]) => {
      const receipt = kept[name].mutate[mutation](args);
      if (stage === 'visible') return { value: null };
      return outcome(receipt[stage]);
    },
    [mutation, args, stage, name],
  );

/** The document as a SQLite file. */
export async function exportFrom(page, name = 'db') {
  const text = await page.evaluate(async (name) => base64(await kept[name].export()), name);
  return new Uint8Array(Buffer.from(text, 'base64'));
}

/**
 * Syncs: null, or the error as plain data. A server that is there answers well within the limit.
 */
export const syncIn = (page, name = 'db') =>
  page.evaluate(async (name) => {
    const late = new Promise((_, reject) => {
      setTimeout(() => {
        reject(new Error(`sync() has not settled; ${JSON.stringify(statusOf(kept[name]))}`));
      }, 30_000);
    });
    const { error } = await Promise.race([outcome(kept[name].sync()), late]);
    return error ?? null;
  }, name);

export const statusIn = (page, name = 'db') => page.evaluate((name) => statusOf(kept[name]), name);

/** Waits until the status has these values. */
export const statusBecomes = (page, wanted, name = 'db') =>
  page.evaluate(
    ([wanted, name]) =>
      whenStatus(kept[name], (status) =>
        Object.entries(wanted).every(([key, value]) =>
          key === 'error' ? status.error?.name === value : status[key] === value,
        ),
      ),
    [wanted, name],
  );

export const closeIn = (page, name = 'db') => page.evaluate((name) => kept[name].close(), name);

/** Has the tab hear nothing for so long. Says since when. */
export async function block(tab, ms) {
  await tab.evaluate((ms) => {
    setTimeout(() => {
      const until = performance.now() + ms;
      while (performance.now() < until);
    });
  }, ms);
  const blockedAt = performance.now();
  await sleep(100);
  return blockedAt;
}
