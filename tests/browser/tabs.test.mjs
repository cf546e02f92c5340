// One document in several tabs and browsers.

import assert from 'node:assert/strict';
import {
  atLeast,
  block,
  both,
  contentOf,
  eventually,
  exportFrom,
  mutateIn,
  openIn,
  rowsIn,
  sleep,
  syncIn,
} from './harness.mjs';

/** Follows all titles in a tab, as an app would to show them. */
const followTitles = (page) =>
  page.evaluate(() => {
    const titles = kept.db.live('select title from item order by title');
    titles.subscribe((rows) => {
      kept.titles = rows?.map((row) => row.title);
    });
  });

const titlesShown = (page) => page.evaluate(() => kept.titles?.join(' '));

both('a change in one of two tabs or another profile shows in all three', async (stage) => {
  const server = await stage.server();
  const tabs = [await stage.tab(), await stage.tab(), await stage.otherTab()];
  for (const tab of tabs) {
    await openIn(tab, 'list', { document: stage.document, server: server.ws });
    await followTitles(tab);
  }
  const shown = [];
  for (const [index, tab] of tabs.entries()) {
    shown.push(`t${index}`);
    await mutateIn(tab, 'add', { id: `i${index}`, title: `t${index}` });
    for (const other of tabs) {
      await eventually(async () => (await titlesShown(other)) === shown.join(' '), {
        what: `${shown.join(' ')} in every tab`,
      });
    }
  }
  const { value } = await mutateIn(tabs[2], 'remove', { id: 'i0' }, 'confirmed');
  assert.ok(value.lsn >= 1, 'the verdict names an LSN');
  for (const tab of tabs) {
    await eventually(async () => (await titlesShown(tab)) === 't1 t2');
  }
});

/**
 * Writes in a tab as fast as it can, until told to stop. A receipt in flight settles or is an
 * error.
 */
const startWriting = (page, prefix) =>
  page.evaluate((prefix) => {
    const IN_FLIGHT = 32;
    const run = { settled: [], failed: [], stop: false, stallMs: 0 };
    let last = performance.now();
    let number = 0;
    async function writer() {
      while (!run.stop) {
        number += 1;
        const id = `${prefix}-${number}`;
        try {
          await kept.db.mutate.count({ id, title: id });
          run.settled.push(id);
        } catch (error) {
          run.failed.push(`${id}: ${error}`);
        }
        const now = performance.now();
        run.stallMs = Math.max(run.stallMs, now - last);
        last = now;
      }
    }
    run.writers = Array.from({ length: IN_FLIGHT }, writer);
    kept.run = run;
  }, prefix);

const settledSoFar = (page) => page.evaluate(() => kept.run.settled.length);

both('closing the lending tab loses nothing, and writes go on', async (stage) => {
  // Goal: whichever tab lends, its end is survived. Method: a chain of tabs; each time a new one
  // writes as fast as it can while the one before it, the oldest, is closed.
  const ROUNDS = 4;
  const options = { document: stage.document };
  let previous = await stage.tab();
  await openIn(previous, 'list', options);
  const settled = [];
  let stallMs = 0;
  for (let round = 1; round <= ROUNDS; round += 1) {
    const tab = await stage.tab();
    await openIn(tab, 'list', options);
    await startWriting(tab, `r${round}`);
    await eventually(async () => (await settledSoFar(tab)) > 50);
    const atClose = await settledSoFar(tab);
    await previous.close();
    await eventually(async () => (await settledSoFar(tab)) > atClose + 200, {
      what: 'writing after the lending tab was closed',
    });
    const run = await tab.evaluate(async () => {
      kept.run.stop = true;
      await Promise.all(kept.run.writers);
      return { settled: kept.run.settled, failed: kept.run.failed, stallMs: kept.run.stallMs };
    });
    assert.deepEqual(run.failed, [], 'every receipt settles well');
    settled.push(...run.settled);
    stallMs = Math.max(stallMs, run.stallMs);
    previous = tab;
  }
  const rows = await rowsIn(previous, 'select id, runs from item');
  assert.deepEqual(rows.map((row) => row.id).sort(), settled.sort());
  assert.ok(
    rows.every((row) => row.runs === 1),
    'nothing was applied twice',
  );

  // The disk says the same as the memory that survived.
  await previous.close();
  await sleep(300);
  const fresh = await stage.tab();
  await openIn(fresh, 'list', options);
  const file = contentOf(await exportFrom(fresh));
  assert.equal(file.tables.item.length, settled.length);
  stage.note(
    `${settled.length} writes, ${ROUNDS} hand-overs, the longest stall ${Math.round(stallMs)} ms`,
  );
});

both('a tab that reloads while others write finds everything', async (stage) => {
  const { server, options } = await stage.synced();
  const [one, two] = [await stage.tab(), await stage.tab()];
  await openIn(one, 'list', options);
  await openIn(two, 'list', options);
  await startWriting(two, 'w');
  for (let round = 0; round < 3; round += 1) {
    await one.reload();
    await eventually(() => one.evaluate(() => globalThis.ready === true).catch(() => false));
    await openIn(one, 'list', options);
    const known = await two.evaluate(() => kept.run.settled.slice());
    const seen = new Set((await rowsIn(one, 'select id from item')).map((row) => row.id));
    assert.deepEqual(
      known.filter((id) => !seen.has(id)),
      [],
      'what is durable is seen',
    );
  }
  const failed = await two.evaluate(async () => {
    kept.run.stop = true;
    await Promise.all(kept.run.writers);
    return kept.run.failed;
  });
  assert.deepEqual(failed, []);
  assert.equal(await syncIn(two), null);
  const copies = [exportFrom(one), exportFrom(two), server.export(stage.document)];
  const [first, ...others] = (await Promise.all(copies)).map(contentOf);
  for (const other of others) assert.deepEqual(other, first);
});

both('a page server whose script fails for a while holds nobody up for good', async (stage) => {
  // Goal: W2. Method: the lending tab is closed while the script of the next one does not load.
  let isBroken = false;
  const drops = (path) => isBroken && path.endsWith('/worker/page-server.js');
  const site = await stage.ownSite({ drops });
  const lending = await stage.tab(site.url('app.html'));
  const options = { document: stage.document };
  await openIn(lending, 'list', options);
  await mutateIn(lending, 'add', { id: 'a', title: 'before' });
  isBroken = true;
  const others = [await stage.tab(site.url('app.html')), await stage.tab(site.url('app.html'))];
  for (const tab of others) await openIn(tab, 'list', options);
  await lending.close();
  const waiting = mutateIn(others[1], 'add', { id: 'b', title: 'meanwhile' });
  await sleep(1000);
  isBroken = false;
  const { error } = await waiting;
  assert.ok(!error || error.name === 'NotDurableYetError', error?.message);
  let number = 0;
  await eventually(
    async () =>
      !(await mutateIn(others[0], 'add', { id: `c${number++}`, title: `${number}` })).error,
    { what: 'a page server', withinMs: 40_000 },
  );
  const ids = (await rowsIn(others[0], 'select id from item')).map(({ id }) => id);
  assert.ok(ids.includes('a') && ids.includes('b'), `${ids}`);
});

both('a tab that is blocked holds nobody up as the store comes to it', async (stage) => {
  // Goal: no main thread is needed to take over. Method: the tab that is next in line is blocked
  // while the one that lends is closed, and a third one writes.
  const BLOCKED_MS = 12_000;
  const options = { document: stage.document };
  const [lending, next] = [await stage.tab(), await stage.tab()];
  for (const tab of [lending, next]) await openIn(tab, 'list', options);
  await eventually(() => next.evaluate(isNextInLine), { what: 'a worker that waits in line' });
  const writer = await stage.tab();
  await openIn(writer, 'list', options);
  assert.equal((await mutateIn(writer, 'add', { id: 'a', title: 'before' })).error, undefined);
  const blockedAt = await block(next, BLOCKED_MS);
  await lending.close();
  const { error } = await mutateIn(writer, 'add', { id: 'b', title: 'meanwhile' });
  const tookMs = performance.now() - blockedAt;
  assert.equal(error, undefined);
  assert.ok(tookMs < BLOCKED_MS / 2, `durable after ${tookMs} ms`);
  // It goes on as one that lends.
  await eventually(async () => (await rowsIn(next, 'select id from item')).length === 2, {
    what: 'the blocked tab',
    withinMs: 2 * BLOCKED_MS,
  });
});

both('a tab that is blocked holds nobody up as its turn to lend comes', async (stage) => {
  // Goal: whose turn it is may be blocked. Method: of four tabs, the one that waits for its turn
  // is, while the two before it are closed.
  const BLOCKED_MS = 30_000;
  const options = { document: stage.document };
  const [lending, next] = [await stage.tab(), await stage.tab()];
  for (const tab of [lending, next]) await openIn(tab, 'list', options);
  await eventually(() => next.evaluate(isNextInLine), { what: 'a worker that waits in line' });
  const [blocked, writer] = [await stage.tab(), await stage.tab()];
  for (const tab of [blocked, writer]) await openIn(tab, 'list', options);
  const blockedAt = await block(blocked, BLOCKED_MS);
  await next.close();
  await lending.close();
  const { error } = await mutateIn(writer, 'add', { id: 'a', title: 'meanwhile' });
  const tookMs = performance.now() - blockedAt;
  assert.equal(error, undefined);
  assert.ok(tookMs < BLOCKED_MS / 2, `durable after ${tookMs} ms`);
});

/** Whether some worker waits for the store. */
async function isNextInLine() {
  const { pending } = await navigator.locks.query();
  return pending.some(({ name }) => name === 'tidelog-lend');
}

both('a page that is kept for the way back goes on where it was', async (stage) => {
  const tab = await stage.tab();
  await openIn(tab, 'list', { document: stage.document });
  await followTitles(tab);
  await mutateIn(tab, 'add', { id: 'a', title: 'before' });
  await tab.evaluate(() => addEventListener('pageshow', (event) => (kept.back = event.persisted)));
  await tab.goto(stage.site.url('nothing-there.html')).catch(() => {});
  await tab.goBack();
  await eventually(() => tab.evaluate(() => globalThis.ready === true));
  if (!(await tab.evaluate(() => kept.back === true))) {
    // Firefox keeps no page with a SharedWorker.
    assert.equal(stage.kind, 'Firefox');
    return;
  }
  assert.equal((await mutateIn(tab, 'add', { id: 'b', title: 'then' })).error, undefined);
  await eventually(async () => (await titlesShown(tab)) === 'before then');
});

atLeast(7);
