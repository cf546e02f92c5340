// Reloads, and SIGKILL for browsers and for the server.

import assert from 'node:assert/strict';
import {
  atLeast,
  both,
  contentOf,
  eventually,
  exportFrom,
  mutateIn,
  openIn,
  queryFile,
  Reports,
  reload,
  rowsIn,
  sleep,
  syncIn,
} from './harness.mjs';

// Some with each change: the same again for as long as one likes.
const KILLS = Number(process.env.TIDELOG_KILLS ?? 5);
const SERVER_KILLS = Number(process.env.TIDELOG_KILLS ?? 8);

both('a reload right after the receipt keeps every mutation, each time', async (stage) => {
  const tab = await stage.tab();
  for (let round = 1; round <= KILLS; round += 1) {
    await openIn(tab, 'list', { document: stage.document });
    const [{ count }] = await rowsIn(tab, 'select count(*) as count from item');
    assert.equal(count, round - 1, `before round ${round}`);
    const { error } = await mutateIn(tab, 'add', { id: `i${round}`, title: 'one more' });
    assert.equal(error, undefined);
    await reload(tab);
  }
});

both(
  'SIGKILL of the whole browser right after the receipt keeps every mutation, each time',
  async (stage) => {
    // Goal: durable means durable, for a local document and for the timeline of a synced one that
    // has not met its server. Method: the page reports when both receipts are there; the report's
    // arrival is the kill. What each start finds is compared with all that was reported before.
    const began = performance.now();
    const reports = new Reports();
    const site = await stage.ownSite(reports);
    const server = await stage.stoppedServer();
    const device = stage.ownDevice();
    const query = { document: stage.document, server: server.ws };
    const expected = [];
    for (let round = 1; round <= KILLS; round += 1) {
      const url = site.url(`kill.html?${new URLSearchParams({ ...query, round })}`);
      const report = await reports.of(device, url);
      await device.kill();
      assert.equal(report.error, undefined, `round ${round}: ${report.error}`);
      assert.deepEqual(report.found, [expected, expected], `round ${round} finds all before it`);
      expected.push(`round ${round}`);
      assert.equal(report.pending, round, 'every one of them waits for its verdict');
    }
    // At last the server: each was kept once.
    await server.start();
    const tab = await stage.tabOf(await device.launch(), site.url('app.html'));
    const document = `${stage.document}-synced`;
    await openIn(tab, 'list', { document, server: server.ws });
    assert.equal(await syncIn(tab), null);
    const rows = queryFile(
      await server.export(document),
      'select title, runs from item order by id',
    );
    assert.deepEqual(
      rows,
      expected.map((title) => ({ title, runs: 1 })),
    );
    const seconds = (performance.now() - began) / 1000;
    stage.note(`${KILLS} kills in ${seconds.toFixed(0)} s`);
  },
  { timeout: 400_000 },
);

both('a server killed while two clients write loses and doubles nothing', async (stage) => {
  const { server, options } = await stage.synced();
  const tabs = await stage.twoDevices();
  for (const [index, tab] of tabs.entries()) {
    await openIn(tab, 'list', options);
    await tab.evaluate((prefix) => {
      const run = { issued: [], confirmed: [], failed: [], stop: false };
      kept.run = run;
      run.writer = (async () => {
        for (let number = 1; !run.stop; number += 1) {
          const id = `${prefix}-${number}`;
          const receipt = kept.db.mutate.count({ id, title: id });
          run.issued.push(id);
          receipt.confirmed.then(
            () => run.confirmed.push(id),
            (error) => run.failed.push(`${id}: ${error}`),
          );
          await receipt;
          await new Promise((resolve) => setTimeout(resolve, 2));
        }
      })();
    }, `c${index}`);
  }
  const confirmedSoFar = async () =>
    (await Promise.all(tabs.map((tab) => tab.evaluate(() => kept.run.confirmed.length)))).reduce(
      (sum, count) => sum + count,
    );
  for (let kill = 1; kill <= SERVER_KILLS; kill += 1) {
    // Not always after a confirmation: some kills shall meet a server that was just started.
    const before = await confirmedSoFar();
    if (kill % 4 === 0) await sleep(kill * 5);
    else await eventually(async () => (await confirmedSoFar()) > before, { what: 'a verdict' });
    await server.kill();
    await server.start();
  }
  const runs = [];
  for (const tab of tabs) {
    runs.push(
      await tab.evaluate(async () => {
        kept.run.stop = true;
        await kept.run.writer;
        const { error } = await outcome(kept.db.sync());
        const { issued, confirmed, failed } = kept.run;
        return { issued, confirmed, failed, error };
      }),
    );
  }
  assert.deepEqual(
    runs.map((run) => run.error),
    [undefined, undefined],
  );
  for (const tab of tabs) assert.equal(await syncIn(tab), null);
  const issued = runs.flatMap((run) => run.issued).sort();
  assert.deepEqual(
    runs.flatMap((run) => run.failed),
    [],
  );
  assert.deepEqual(runs.flatMap((run) => run.confirmed).sort(), issued, 'every verdict came once');
  const copy = await server.export(stage.document);
  const rows = queryFile(copy, 'select id, runs from item order by id');
  assert.deepEqual(rows.map((row) => row.id).sort(), issued, 'nothing was lost');
  assert.ok(
    rows.every((row) => row.runs === 1),
    'nothing was applied twice',
  );
  for (const tab of tabs) assert.deepEqual(contentOf(await exportFrom(tab)), contentOf(copy));
  stage.note(`${issued.length} mutations over ${SERVER_KILLS} kills`);
});

atLeast(3);
