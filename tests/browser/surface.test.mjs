// The package's surface on one device.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { build } from 'vite';
import {
  atLeast,
  both,
  contentOf,
  eventually,
  exportFrom,
  inRoot,
  mutateIn,
  openIn,
  rowsIn,
  statusBecomes,
  statusIn,
} from './harness.mjs';

both('a document says how it stands', async (stage) => {
  const tab = await stage.tab();
  await openIn(tab, 'list', { document: stage.document });
  const status = await statusBecomes(tab, { storage: 'opfs' });
  assert.equal(status.connection, 'local');
  assert.equal(status.error, null);
  assert.equal(status.pending, 0);
  assert.equal(status.engine, 'shared-worker');
  assert.equal(typeof status.settling, 'boolean');
  assert.equal(typeof status.persisted, 'boolean');
});

both('calls of one tab take effect in order, without awaiting them', async (stage) => {
  const tab = await stage.tab();
  await openIn(tab, 'list', { document: stage.document });
  const seen = await tab.evaluate(() => {
    const count = async () => (await kept.db.query('select count(*) as count from item'))[0].count;
    const counts = [count()];
    for (const id of ['a', 'b', 'c']) {
      kept.db.mutate.add({ id, title: id });
      counts.push(count());
    }
    kept.db.mutate.remove({ id: 'a' });
    counts.push(count());
    return Promise.all(counts);
  });
  assert.deepEqual(seen, [0, 1, 2, 3, 2]);
});

both('what Kysely and Drizzle build is run, live too, and nothing that writes', async (stage) => {
  const tab = await stage.tab();
  await openIn(tab, 'list', { document: stage.document });
  await mutateIn(tab, 'add', { id: 'a', title: 'milk' });
  const seen = await tab.evaluate(async () => {
    const { db } = kept;
    const { Kysely } = await import('kysely');
    const { TidelogDialect, queryOf } = await import('tidelog/kysely');
    const kysely = new Kysely({ dialect: new TidelogDialect(db) });
    const milk = kysely.selectFrom('item').select(['id', 'title']).where('title', '=', 'milk');
    const [first] = await milk.execute();
    const live = await new Promise((resolve) => db.live(queryOf(milk)).subscribe(resolve));
    const { drizzle } = await import('drizzle-orm/sqlite-proxy');
    const { sqliteTable, text } = await import('drizzle-orm/sqlite-core');
    const { proxyOf } = await import('tidelog/drizzle');
    const item = sqliteTable('item', { name: text('title') });
    const orm = drizzle(proxyOf(db));
    return {
      first,
      live,
      second: await orm.select().from(item).get(),
      template: await db.query(tidelog.sql`select title from item where id = ${'a'}`),
      both: await db.values('select id, id from item').then(([row]) => row),
      writes: [
        (await outcome(kysely.deleteFrom('item').execute())).error?.code,
        (
          await outcome(
            orm
              .delete(item)
              .run()
              .catch((it) => {
                throw it.cause ?? it;
              }),
          )
        ).error?.code,
      ],
    };
  });
  const milk = { id: 'a', title: 'milk' };
  assert.deepEqual(seen, {
    first: milk,
    live: [milk],
    second: { name: 'milk' },
    template: [{ title: 'milk' }],
    both: ['a', 'a'],
    writes: ['read-only', 'read-only'],
  });
});

both('every type of argument and of value comes back as it went in', async (stage) => {
  const tab = await stage.tab();
  await openIn(tab, 'kinds', { document: stage.document });
  const result = await tab.evaluate(async () => {
    const text = 'naïve 🌊 \u0000 end';
    const before = Date.now();
    await kept.db.mutate.add({
      t: text,
      i: 2n ** 62n,
      r: 0.1,
      b: new Uint8Array([0, 255, 7]),
      f: true,
      j: { a: [1, null, 'ü'] },
    });
    await kept.db.mutate.add({ t: '', i: -7, r: 1e300, b: new Uint8Array(0), f: false, j: null });
    const [one, two] = await kept.db.query('select * from kind order by id');
    const [{ same }] = await kept.db.query(
      'select count(distinct c) = 1 and min(c is not null) as same from kind',
    );
    const [{ sum }] = await kept.db
      .query('select :a + ?2 as sum', { a: 1, '?2': 2 })
      .catch(() => [{}]);
    return {
      t: one.t === text,
      i: one.i === 2n ** 62n && two.i === -7,
      r: one.r === 0.1 && two.r === 1e300,
      b: one.b instanceof Uint8Array && [...one.b].join() === '0,255,7' && two.b.length === 0,
      f: one.f === 1 && two.f === 0,
      j: JSON.stringify(JSON.parse(one.j)) === '{"a":[1,null,"ü"]}',
      now: one.n >= before && one.n <= Date.now(),
      client: same === 1,
      sum,
    };
  });
  delete result.sum;
  for (const [name, held] of Object.entries(result)) assert.ok(held, name);
  const params = await tab.evaluate(async () => [
    await kept.db.query('select ? as a, ? as b', [1, 'x']),
    await kept.db.query('select :a as a, :b as b', { a: null, b: 2.5 }),
  ]);
  assert.deepEqual(params, [[{ a: 1, b: 'x' }], [{ a: null, b: 2.5 }]]);
});

both(
  'several statements are one transaction, and a local rejection records nothing',
  async (stage) => {
    const tab = await stage.tab();
    await openIn(tab, 'list', { document: stage.document });
    await mutateIn(tab, 'add', { id: 'a', title: 'a' });
    const refused = await mutateIn(tab, 'remove', { id: 'nobody' });
    assert.equal(refused.error.name, 'RejectedError');
    assert.equal(refused.error.outcome, 'none');
    assert.equal(refused.error.reason, 'no such item');
    const twice = await mutateIn(tab, 'addMany', {
      items: [
        { id: 'b', title: 'b' },
        { id: 'a', title: 'twice' },
      ],
    });
    assert.equal(twice.error.name, 'RejectedError');
    const verdict = await tab.evaluate(() =>
      outcome(kept.db.mutate.remove({ id: 'nobody' }).confirmed),
    );
    assert.equal(verdict.error.name, 'RejectedError', 'confirmed rejects as durable does');
    assert.deepEqual(await rowsIn(tab, 'select id from item'), [{ id: 'a' }]);
  },
);

both(
  'a live query runs again only for what it read, and keeps the rows that stayed',
  async (stage) => {
    const tab = await stage.tab();
    await openIn(tab, 'list', { document: stage.document });
    const seen = await tab.evaluate(async () => {
      const { db } = kept;
      for (const id of ['a', 'b', 'c']) await db.mutate.add({ id, title: id });
      const live = db.live('select id, title from item order by id');
      const before = live.rows;
      const runs = [];
      let heard;
      const unsubscribe = live.subscribe((rows) => {
        runs.push(rows);
        heard?.();
      });
      const next = () =>
        new Promise((resolve) => {
          heard = resolve;
        });
      if (!live.rows) await next();
      const first = runs.length;
      for (let n = 0; n < 5; n += 1) await db.mutate.note({ id: `n${n}`, body: null });
      await db.query('select 1');
      await new Promise((resolve) => setTimeout(resolve, 100));
      const afterNotes = runs.length;
      const renamed = next();
      db.mutate.rename({ id: 'b', title: 'renamed' });
      await renamed;
      const [old, now] = runs.slice(-2);
      unsubscribe();
      const ended = runs.length;
      await db.mutate.rename({ id: 'b', title: 'once more' });
      await new Promise((resolve) => setTimeout(resolve, 50));
      live.close();

      const iterated = [];
      for await (const rows of db.live('select title from item where id = ?', ['b'])) {
        iterated.push(rows[0].title);
        if (iterated.length === 2) break;
        db.mutate.rename({ id: 'b', title: 'iterated' });
      }
      const broken = db.live('select nothing from nowhere');
      const error = await new Promise((resolve) =>
        broken.subscribe((_, error) => error && resolve(error)),
      );
      return {
        undefinedBefore: before === undefined,
        first,
        afterNotes,
        kept: [now[0] === old[0], now[1] === old[1], now[2] === old[2]],
        title: now[1].title,
        quiet: runs.length === ended,
        iterated,
        error: described(error).name,
        sameError: broken.error === error,
      };
    });
    assert.deepEqual(seen, {
      undefinedBefore: true,
      first: 1,
      afterNotes: 1,
      kept: [true, false, true],
      title: 'renamed',
      quiet: true,
      iterated: ['once more', 'iterated'],
      error: 'QueryError',
      sameError: true,
    });
  },
);

both('an export is a plain SQLite file of what queries see', async (stage) => {
  const tab = await stage.tab();
  await openIn(tab, 'list', { document: stage.document });
  const items = Array.from({ length: 2000 }, (_, n) => ({ id: `i${n}`, title: `title ${n}` }));
  await mutateIn(tab, 'addMany', { items });
  const { tables } = contentOf(await exportFrom(tab));
  const rows = await rowsIn(
    tab,
    'select quote(id) as id, quote(title) as title from item order by id',
  );
  assert.deepEqual(
    tables.item.map((row) => row.split(', ').slice(0, 2)),
    rows.map((row) => [row.id, row.title]),
  );
});

both('a local document of 50,000 mutations opens as fast as one of 500', async (stage) => {
  const tab = await stage.tab();
  const openMs = {};
  for (const count of [500, 50_000]) {
    const document = `${stage.document}-${count}`;
    await openIn(tab, 'list', { document });
    const began = performance.now();
    await tab.evaluate(async (count) => {
      const BATCH = 2500;
      for (let from = 0; from < count; from += BATCH) {
        const receipts = [];
        for (let n = from; n < Math.min(from + BATCH, count); n += 1) {
          // The same 500 rows again and again: the history grows, the content does not.
          const args = { id: `i${n % 500}`, title: `number ${n}` };
          receipts.push(n < 500 ? kept.db.mutate.add(args) : kept.db.mutate.rename(args));
        }
        await Promise.all(receipts);
      }
      await kept.db.close();
    }, count);
    stage.note(`${count} mutations in ${Math.round(performance.now() - began)} ms`);
  }
  // Each time with a new engine, as after a restart; the median of three.
  for (const count of [500, 50_000]) {
    const times = [];
    for (let round = 0; round < 3; round += 1) {
      await tab.reload();
      await eventually(() => tab.evaluate(() => globalThis.ready === true).catch(() => false));
      times.push(
        await tab.evaluate(async (document) => {
          const start = performance.now();
          const db = await tidelog.open(doctypes.list, { document });
          const [{ count }] = await db.query('select count(*) as count from item');
          if (count !== 500) throw new Error(`${count} rows`);
          return performance.now() - start;
        }, `${stage.document}-${count}`),
      );
    }
    openMs[count] = times.sort((a, b) => a - b)[1];
  }
  stage.note(`opened in ${openMs[500].toFixed(0)} and ${openMs[50_000].toFixed(0)} ms`);
  assert.ok(openMs[50_000] < openMs[500] * 3 + 200, JSON.stringify(openMs));
});

both('the example of the README works as it stands there', async (stage) => {
  const [, code] = readFileSync(inRoot('README.md'), 'utf8').match(/```ts\n(import [\s\S]*?)```/);
  assert.ok(code.split('\n').filter(Boolean).length <= 10, 'ten lines');
  const server = await stage.server();
  const folder = mkdtempSync(path.join(os.tmpdir(), 'tidelog-readme-'));
  stage.onEnd(() => rmSync(folder, { recursive: true }));
  // A server of the test's own in the place of the one that may be running there.
  writeFileSync(path.join(folder, 'readme.mjs'), code.replace('ws://127.0.0.1:8787', server.ws));
  const site = await stage.ownSite({ folders: { '/pages/': folder } });
  const titlesOn = async (page) => {
    const titles = [];
    page.on('console', async (message) => {
      titles.push(await message.args()[0].evaluate((rows) => rows.map((it) => it.title).join(' ')));
    });
    await page.goto(site.url('readme.html'));
    return () => titles.at(-1);
  };
  const one = await titlesOn(await stage.tab('about:blank'));
  await eventually(() => one() === 'milk', { what: 'milk' });
  const two = await titlesOn(await stage.otherTab('about:blank'));
  for (const titles of [one, two]) {
    await eventually(() => titles() === 'milk milk', { what: 'the milk of both' });
  }
});

both('the package works from a Vite build', async (stage) => {
  const outDir = mkdtempSync(path.join(os.tmpdir(), 'tidelog-vite-'));
  stage.onEnd(() => rmSync(outDir, { recursive: true }));
  await build({
    root: inRoot('tests/pages/vite-app'),
    configFile: false,
    logLevel: 'error',
    base: './',
    worker: { format: 'es' },
    build: { outDir, emptyOutDir: true, target: 'es2022' },
  });
  const site = await stage.ownSite({ folders: { '/': outDir } });
  const tab = await stage.tab(site.url('/'));
  for (const visits of [1, 2]) {
    const title = await eventually(async () => {
      const now = await tab.title();
      return now !== 'An app built by Vite' && now;
    });
    assert.equal(title, `visits: ${visits}`);
    await tab.reload();
  }
});

both(
  'after close a document answers no more, and the last tab’s end stops the engine',
  async (stage) => {
    const tab = await stage.tab();
    await openIn(tab, 'list', { document: stage.document });
    await mutateIn(tab, 'add', { id: 'a', title: 'a' });
    const errors = await tab.evaluate(async () => {
      await kept.db.close();
      return [
        (await outcome(() => kept.db.query('select 1'))).error?.name,
        (await outcome(() => kept.db.mutate.add({ id: 'b', title: 'b' }))).error?.name,
      ];
    });
    assert.deepEqual(errors, ['DocumentClosedError', 'DocumentClosedError']);
    await tab.close();
    const fresh = await stage.tab();
    await openIn(fresh, 'list', { document: stage.document });
    assert.deepEqual(await rowsIn(fresh, 'select id from item'), [{ id: 'a' }]);
    assert.equal((await statusIn(fresh)).error, null);
  },
);

both('what is at an address where no server is reached is said on the console', async (stage) => {
  const tab = await stage.tab();
  const { options: nobody } = await stage.synced({ isUp: false });
  const site = new URL(tab.url()).origin.replace(/^http/, 'ws');
  const somebody = { document: `${stage.document}-2`, server: site };
  await tab.evaluate(() => {
    kept.warned = [];
    console.warn = (text) => kept.warned.push(text);
  });
  for (const [options, said] of [
    [nobody, 'nothing answers at'],
    [somebody, 'answers, but not as a Tidelog server does'],
  ]) {
    await openIn(tab, 'list', options);
    const warned = () => tab.evaluate(() => kept.warned);
    await eventually(async () => (await warned()).length > 0, { what: 'a warning' });
    const all = await tab.evaluate(() => kept.warned.splice(0));
    assert.equal(all.length, 1, all.join());
    assert.ok(all[0].includes(said), all[0]);
    assert.ok(all[0].includes(options.server.replace(/^ws/, 'http')), all[0]);
  }
});

both('a document that another tab has closed is not online', async (stage) => {
  const { options } = await stage.synced();
  const [tab, other] = [await stage.tab(), await stage.tab()];
  await openIn(tab, 'list', options);
  await statusBecomes(tab, { connection: 'online' });
  await other.evaluate(
    ({ document }) => tidelog.destroy(document, { everywhere: true, force: true }),
    options,
  );
  const { error } = await statusBecomes(tab, { connection: 'offline' });
  assert.match(JSON.stringify(error), /document-closed/);
});

both('the stack of what was refused names who has asked', async (stage) => {
  const tab = await stage.tab();
  await openIn(tab, 'list', { document: stage.document });
  const stacks = await tab.evaluate(async () => {
    const askOfTheBoard = () => kept.db.query('select a from b');
    const putOnTheBoard = () => kept.db.mutate.add({ id: 'a', title: '' });
    await kept.db.mutate.add({ id: 'a', title: 'a' });
    const stackOf = (asking) => asking.catch((error) => error.stack);
    return [await stackOf(askOfTheBoard()), await stackOf(putOnTheBoard())];
  });
  assert.match(stacks[0], /askOfTheBoard/);
  assert.match(stacks[1], /putOnTheBoard/);
});

atLeast(14);
