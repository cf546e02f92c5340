// Who is present: two tabs of one browser, another device, and each way to be gone.

import assert from 'node:assert/strict';
import { atLeast, both, closeIn, eventually, mutateIn, openIn, statusBecomes } from './harness.mjs';

/** Is present, and says this of itself. */
const setIn = (page, state) => page.evaluate((state) => kept.db.presence.set(state), state);

/** What a page sees: how many there are, and what the others say. */
const seenIn = (page) =>
  page.evaluate(() => [kept.db.presence.count, kept.db.presence.others.map((it) => it.state.name)]);

/** Waits until a page sees that. */
const sees = (page, count, names, within = {}) =>
  eventually(
    async () => {
      const seen = await seenIn(page);
      return JSON.stringify(seen) === JSON.stringify([count, names]) ? seen : null;
    },
    { what: `to see ${names.join(' and ') || 'nobody'}`, ...within },
  );

/** Pages that have the document open, online, each present under its name. */
async function present(options, pages) {
  for (const [name, page] of Object.entries(pages)) {
    await openIn(page, 'list', options);
    await statusBecomes(page, { connection: 'online' });
    await setIn(page, { name });
    // One after another: who came first is seen first.
    await eventually(async () => (await seenIn(page))[0] >= 1, { what: 'itself' });
  }
}

both('two tabs and another device see each other, and who closes is gone', async (stage) => {
  const { options } = await stage.synced();
  const [first, second, other] = [await stage.tab(), await stage.tab(), await stage.otherTab()];
  await openIn(first, 'list', options);
  assert.deepEqual(await seenIn(first), [1, []], 'alone');
  await closeIn(first);
  await present(options, { first });
  await present(options, { second });
  await sees(first, 2, ['second']);
  await sees(second, 2, ['first']);
  await present(options, { other });
  await sees(first, 3, ['second', 'other']);
  await sees(other, 3, ['first', 'second']);
  const clients = await other.evaluate(() =>
    kept.db.presence.others.map(({ client, user, key }) => ({ client, user, key: typeof key })),
  );
  assert.match(clients[0].client, /^[0-9a-f]{32}$/);
  assert.equal(clients[0].client, clients[1].client, 'tabs of one browser');
  assert.deepEqual([clients[0].user, clients[0].key], [null, 'string']);

  // It is told what changes, and documents go on beside it.
  await other.evaluate(() => {
    kept.told = [];
    kept.db.presence.subscribe((others) => kept.told.push(others[0].state.name));
  });
  for (let at = 1; at <= 50; at += 1) await setIn(first, { name: `first at ${at}` });
  await mutateIn(first, 'add', { id: 'a', title: 'meanwhile' }, 'confirmed');
  await sees(other, 3, ['first at 50', 'second']);
  const told = await other.evaluate(() => kept.told);
  assert.equal(told.at(-1), 'first at 50');

  await closeIn(first);
  await sees(other, 2, ['second']);
  await sees(second, 2, ['other']);
  await setIn(second, null);
  await sees(other, 1, []);
  assert.deepEqual(await seenIn(first), [1, []], 'who has closed it sees nobody');
});

both('a tab that is closed or leaves without a word is gone for the others', async (stage) => {
  const { options } = await stage.synced();
  const pages = [await stage.tab(), await stage.tab(), await stage.tab(), await stage.otherTab()];
  const [closed, leaves, stays, other] = pages;
  await present(options, { closed });
  await present(options, { leaves });
  await present(options, { stays });
  await present(options, { other });
  await sees(other, 4, ['closed', 'leaves', 'stays']);
  await closed.close();
  await sees(other, 3, ['leaves', 'stays']);
  await leaves.goto('about:blank');
  await sees(other, 2, ['stays']);
  await sees(stays, 2, ['other']);
});

both('a browser that is killed is gone in twelve seconds', async (stage) => {
  const { options } = await stage.synced();
  const device = await stage.ownDevice().launch();
  const [killed, stays] = [await stage.tabOf(device), await stage.tab()];
  await present(options, { killed });
  await present(options, { stays });
  await sees(stays, 2, ['killed']);
  await device.kill();
  await sees(stays, 1, [], { withinMs: 15_000 });
});

both(
  'offline nobody is seen, and what was set then is said once there is a server',
  async (stage) => {
    const { server, options } = await stage.synced();
    const [here, there] = await stage.twoDevices();
    await present(options, { here });
    await present(options, { there });
    await sees(here, 2, ['there']);
    await server.kill();
    await sees(here, 1, []);
    await setIn(here, { name: 'early' });
    await setIn(here, { name: 'late' });
    await server.start();
    await sees(there, 2, ['late']);
    await sees(here, 2, ['there']);
  },
);

both('without a server there is nobody else, and what cannot be said is refused', async (stage) => {
  const page = await stage.tab();
  await openIn(page, 'list', { document: stage.document });
  await setIn(page, { name: 'alone' });
  assert.deepEqual(await seenIn(page), [1, []]);
  const error = await page.evaluate(async () => {
    const { error } = await outcome(() => kept.db.presence.set({ name: 'x'.repeat(5_000) }));
    return error;
  });
  assert.equal(error.name, 'InvalidOptionError');
  assert.equal(error.outcome, 'none');
});

atLeast(5);
