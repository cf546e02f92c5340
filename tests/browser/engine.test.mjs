// The engine is killed under the tabs that use it: a browser's processes, one by one, from outside.

import assert from 'node:assert/strict';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  atLeast,
  block,
  both,
  contentOf,
  eventually,
  exportFrom,
  inRoot,
  mutateIn,
  openIn,
  queryFile,
  ready,
  rowsIn,
  sleep,
  statusBecomes,
  statusIn,
  syncIn,
  tryOpen,
} from './harness.mjs';

/** The longest that a call may take, whatever happens. */
const SETTLE_MS = 10_000;

const inProc = { skip: existsSync('/proc') ? false : 'finds processes in /proc' };

const LOCKS = { core: 'tidelog-core', 'page server': 'tidelog-lend' };

/** Documents that every tab has open, one without a server and one with. */
const DOCUMENTS = ['local', 'synced'];

async function openDocuments(page, stage, server, urls = {}) {
  for (const name of DOCUMENTS) {
    const options = { ...urls, document: `${stage.document}-${name}` };
    if (name === 'synced') options.server = server.ws;
    await openIn(page, 'list', options, name);
  }
}

async function openTab(device, stage, server) {
  const page = await device.open(stage.site.url('app.html'));
  await ready(page);
  await openDocuments(page, stage, server);
  return page;
}

/**
 * Lets a tab write and read without a pause. Whatever settles is timed, and what is durable is told
 * to the other tabs at once, so that it is known though the tab may be killed.
 */
const startWriting = (page, prefix) =>
  page.evaluate(
    ([prefix, documents]) => {
      const IN_FLIGHT = 8;
      const run = { errors: [], untyped: [], slowestMs: 0, confirmed: [], stop: false, counts: {} };
      const news = new BroadcastChannel('durable');
      const timed = async (call) => {
        const began = performance.now();
        const { value, error } = await outcome(call);
        run.slowestMs = Math.max(run.slowestMs, performance.now() - began);
        if (error) run[error.ours ? 'errors' : 'untyped'].push(`${error.name}: ${error.message}`);
        return value;
      };
      // By this lock others see that the tab lives.
      navigator.locks.request(`writes:${prefix}`, () => new Promise(() => {}));
      let number = 0;
      async function write(name) {
        while (!run.stop) {
          number += 1;
          const id = `${prefix}-${number}`;
          const receipt = kept[name].mutate.count({ id, title: id });
          if (name === 'synced') receipt.confirmed.then(() => run.confirmed.push(id));
          if (await timed(receipt)) news.postMessage({ name, id });
        }
      }
      async function read(name) {
        while (!run.stop) await timed(kept[name].query('select count(*) as n from item'));
      }
      run.calls = documents.flatMap((name) => [
        ...Array.from({ length: IN_FLIGHT }, () => write(name)),
        read(name),
      ]);
      for (const name of documents) {
        kept[name].live('select count(*) as n from item').subscribe((rows) => {
          run.counts[name] = rows?.[0].n;
        });
      }
      kept.run = run;
    },
    [prefix, DOCUMENTS],
  );

/** Stops those that write; what became of all that they called. */
const stopWriting = (tabs) =>
  Promise.all(
    tabs.map((tab) =>
      tab.evaluate(async () => {
        kept.run.stop = true;
        await Promise.all(kept.run.calls);
        const { errors, untyped, slowestMs } = kept.run;
        return { errors, untyped, slowestMs, unhandled };
      }),
    ),
  );

/** Every call has settled, well, and soon enough. */
function assertAllWell(runs) {
  const bad = runs.flatMap((run) => [...run.untyped, ...run.unhandled]);
  assert.deepEqual(bad, []);
  const errors = runs.flatMap((run) => run.errors);
  assert.deepEqual(errors, [], 'every call settles well');
  const slowestMs = Math.max(...runs.map((run) => run.slowestMs));
  assert.ok(slowestMs < SETTLE_MS, `${slowestMs} ms`);
}

/** Notes what all tabs say is durable, in a page that asks nothing of the engine. */
const follow = (page) =>
  page.evaluate(() => {
    kept.durable = { local: [], synced: [] };
    kept.news = new BroadcastChannel('durable');
    kept.news.onmessage = ({ data }) => kept.durable[data.name].push(data.id);
  });

const durableSoFar = (page) =>
  page.evaluate(() => kept.durable.local.length + kept.durable.synced.length);

/** Names of the tabs that write and live. */
const living = (page) =>
  page.evaluate(async () => {
    const { held } = await navigator.locks.query();
    return held.map(({ name }) => name.split('writes:')[1]).filter(Boolean);
  });

/** Who holds the lock of the core, or of the page server: another one after a death. */
const holderIn = (page, who) =>
  page.evaluate(async (name) => {
    const { held } = await navigator.locks.query();
    return held.find((lock) => lock.name.startsWith(name))?.clientId;
  }, LOCKS[who]);

/** Kills processes that run workers until the one that is meant was among them. */
async function killProcessOf(who, device, witness, pids = device.processesOf(who)) {
  const holder = await holderIn(witness, who);
  assert.ok(holder, `there is a ${who}`);
  for (const pid of pids) {
    process.kill(pid, 'SIGKILL');
    const died = eventually(async () => (await holderIn(witness, who)) !== holder, {
      withinMs: 2000,
    });
    if (await died.catch(() => false)) return;
  }
  throw new Error(`no process was that of the ${who}`);
}

both(
  'processes of the core and of lending tabs killed: calls settle, nothing durable is lost',
  async (stage) => {
    // Goal: whoever ends is noticed by a lock that comes free, and another one carries on. Method:
    // tabs that write and read without a pause, a local document and a synced one; in each round a
    // process is killed, at first that of the core with nothing else in it, then whatever tab
    // happens to share it.
    const ROUNDS = ['core', 'page server', 'core', 'page server', 'core'];
    const server = await stage.server();
    const device = await stage.ownDevice().launch();
    const witness = await device.open(stage.site.url('app.html'));
    await ready(witness);
    await follow(witness);
    const first = await openTab(device, stage, server);
    const writers = new Map();
    const addWriter = async (name) => {
      const tab = await openTab(device, stage, server);
      await startWriting(tab, name);
      writers.set(name, tab);
    };
    for (const number of [1, 2, 3]) await addWriter(`t${number}`);
    // The core stays in the process of the tab that began it, alone from now on.
    await first.close();

    const downMs = [];
    let ended = 0;
    for (const [round, who] of ROUNDS.entries()) {
      const before = await durableSoFar(witness);
      await eventually(async () => (await durableSoFar(witness)) > before + 100);
      const began = performance.now();
      await killProcessOf(who, device, witness);
      const atKill = await durableSoFar(witness);
      await eventually(async () => (await durableSoFar(witness)) > atKill + 100, {
        what: `writing after the ${who} was killed`,
      });
      downMs.push(Math.round(performance.now() - began));
      const alive = await living(witness);
      for (const name of [...writers.keys()].filter((name) => !alive.includes(name))) {
        writers.delete(name);
        ended += 1;
      }
      if (writers.size < 3) await addWriter(`r${round}`);
    }

    const tabs = [...writers.values()];
    const runs = await stopWriting(tabs);
    const slowestMs = Math.max(...runs.map((run) => run.slowestMs));
    stage.note(
      `${await durableSoFar(witness)} writes, ${ROUNDS.length} processes killed, of ${ended} tabs too; ` +
        `back at work after ${downMs.join(', ')} ms; the slowest call ${Math.round(slowestMs)} ms`,
    );
    assertAllWell(runs);

    for (const tab of tabs) assert.equal(await syncIn(tab, 'synced'), null);
    const durable = await witness.evaluate(() => kept.durable);
    for (const name of DOCUMENTS) {
      const rows = await rowsIn(tabs[0], 'select id, runs from item', name);
      const found = new Set(rows.map(({ id }) => id));
      const lost = durable[name].filter((id) => !found.has(id));
      assert.deepEqual(lost, [], `what was durable is in the ${name} document`);
      const twice = rows.filter(({ runs }) => runs !== 1);
      assert.deepEqual(twice, [], `nothing was applied twice in the ${name} document`);
      for (const tab of tabs) {
        await eventually(
          () => tab.evaluate(([name, n]) => kept.run.counts[name] === n, [name, rows.length]),
          { what: 'the live query of every tab' },
        );
      }
    }
    const copy = await server.export(`${stage.document}-synced`);
    for (const tab of tabs) {
      assert.deepEqual(contentOf(await exportFrom(tab, 'synced')), contentOf(copy));
      const confirmed = await tab.evaluate(() => kept.run.confirmed.length);
      assert.ok(confirmed > 0, 'verdicts reach their receipts');
    }
    const ids = new Set(queryFile(copy, 'select id from item').map(({ id }) => id));
    for (const tab of tabs) {
      const confirmed = await tab.evaluate(() => kept.run.confirmed);
      assert.deepEqual(
        confirmed.filter((id) => !ids.has(id)),
        [],
      );
    }
  },
  inProc,
);

both(
  'a tab that lends and is blocked holds nobody up as the core is killed',
  async (stage) => {
    const BLOCKED_MS = 20_000;
    const options = { document: stage.document };
    const device = await stage.ownDevice().launch();
    const witness = await stage.tabOf(device);
    const first = await stage.tabOf(device);
    await openIn(first, 'list', options);
    const pids = device.processesOf('core');
    const [lending, writer] = [await stage.tabOf(device), await stage.tabOf(device)];
    for (const tab of [lending, writer]) await openIn(tab, 'list', options);
    // The core stays in the process of the tab that began it, alone from now on.
    const before = await holderIn(witness, 'page server');
    await first.close();
    await eventually(
      async () => ![before, undefined].includes(await holderIn(witness, 'page server')),
    );
    assert.equal((await mutateIn(writer, 'add', { id: 'a', title: 'before' })).error, undefined);
    const blockedAt = await block(lending, BLOCKED_MS);
    await killProcessOf('core', device, witness, pids);
    const { error } = await mutateIn(writer, 'add', { id: 'b', title: 'meanwhile' });
    const tookMs = performance.now() - blockedAt;
    assert.equal(error, undefined);
    assert.ok(tookMs < BLOCKED_MS - 5_000, `durable after ${tookMs} ms`);
    stage.note(`durable after ${Math.round(tookMs)} ms`);
  },
  inProc,
);

/** A site with two apps, each with the files of its workers in a place of its own. */
async function siteOfTwoApps(stage) {
  const site = await stage.ownSite({ folders: { '/other/': inRoot('js') } });
  const urls = ['/tidelog', '/other'].map((folder) => ({
    workerUrl: site.url(`${folder}/dist/worker/worker.js`),
  }));
  return { site, urls };
}

/** Locks of cores: addresses of those at work, and how many want to be. */
const coresIn = (page) =>
  page.evaluate(async () => {
    const { held, pending } = await navigator.locks.query();
    const ofCores = (locks) => locks.filter(({ name }) => name.startsWith('tidelog-core'));
    const addresses = ofCores(held).map(({ name }) => name.split(' ')[2]);
    const waiting = ofCores(pending).filter(({ mode }) => mode === 'exclusive');
    return { atWork: addresses.filter(Boolean), waiting: waiting.length };
  });

both('two apps with workers of their own that start at one moment share a core', async (stage) => {
  const ROUNDS = 10;
  const { site, urls } = await siteOfTwoApps(stage);
  const witness = await stage.tab(site.url('app.html'));
  const wins = new Map();
  let slowestMs = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const apps = [await stage.tab(site.url('app.html')), await stage.tab(site.url('app.html'))];
    await eventually(async () => (await coresIn(witness)).atWork.length === 0, {
      what: 'the end of the last core',
    });
    const at = Date.now() + 300;
    const opened = apps.map((app, index) =>
      app.evaluate(
        async ([at, options]) => {
          await new Promise((resolve) => setTimeout(resolve, at - Date.now()));
          kept.db = await tidelog.open(doctypes.list, options);
          return Date.now() - at;
        },
        [at, { ...urls[index], document: stage.document }],
      ),
    );
    slowestMs = Math.max(slowestMs, ...(await Promise.all(opened)));
    for (const [index, app] of apps.entries()) {
      const id = `${round}-${index}`;
      assert.equal((await mutateIn(app, 'add', { id, title: id })).error, undefined);
    }
    for (const app of apps) {
      assert.equal((await rowsIn(app, 'select id from item')).length, 2 * (round + 1));
    }
    const cores = await coresIn(witness);
    assert.equal(cores.atWork.length, 1, 'one core');
    assert.equal(cores.waiting, 0, 'and nobody who waits to be one');
    wins.set(cores.atWork[0], 1 + (wins.get(cores.atWork[0]) ?? 0));
    for (const app of apps) await app.close();
  }
  stage.note(`opened after ${slowestMs} ms at most; ${[...wins.values()].join(' and ')} wins`);
});

/** What a tab sees that starts at the same moment as the others. */
const seesNobodyAtFirst = (tab) =>
  tab.evaluate(() => {
    navigator.locks.query = async () => {
      delete navigator.locks.query;
      return {};
    };
  });

/** A core that starts while another one is at work, and is alone once that one is killed. */
async function testLateCore(stage, { lateUrls, waiting }) {
  const { site, urls } = await siteOfTwoApps(stage);
  const server = await stage.server();
  const device = await stage.ownDevice().launch();
  const page = () => stage.tabOf(device, site.url('app.html'));
  const witness = await page();
  await follow(witness);
  const first = await page();
  await openDocuments(first, stage, server, urls[0]);
  const pids = device.processesOf('core');
  const [one, late] = [await page(), await page()];
  await openDocuments(one, stage, server, urls[0]);
  await seesNobodyAtFirst(late);
  await openDocuments(late, stage, server, lateUrls ?? urls[1]);
  assert.deepEqual(await coresIn(witness), { atWork: [urls[0].workerUrl], waiting });
  await startWriting(one, 'one');
  await startWriting(late, 'late');
  await first.close();
  await eventually(async () => (await durableSoFar(witness)) > 100);

  await killProcessOf('core', device, witness, pids);
  const atKill = await durableSoFar(witness);
  await eventually(async () => (await durableSoFar(witness)) > atKill + 100, {
    what: 'writing after the core was killed',
  });
  assertAllWell(await stopWriting([one, late]));
  return coresIn(witness);
}

both(
  'a core that came too late ends; when the other one is killed, the calls of both apps settle',
  async (stage) => {
    const cores = await testLateCore(stage, { waiting: 0 });
    assert.equal(cores.atWork.length, 1);
  },
  inProc,
);

both(
  'a core that takes over from one that is killed is found by the tabs of both apps',
  async (stage) => {
    // It waits in line, so that it has the lock before any tab can know.
    const workerUrl = '/pages/blind-worker.mjs';
    const cores = await testLateCore(stage, { lateUrls: { workerUrl }, waiting: 1 });
    assert.deepEqual(
      cores.atWork.map((url) => new URL(url).pathname),
      [workerUrl],
    );
  },
  inProc,
);

/** The release and build that stand in the package's files. */
const RELEASE = /0\.1\.0\+([0-9a-f]{8})/g;

/** The build that the bindings of a module export. */
const BINDINGS_BUILD = /(export const BUILD = '\+)[0-9a-f]{8}(?=';\n$)/;

/** The package as it would be with another release and build in their place. */
function packageOf(stage, release) {
  const folder = mkdtempSync(path.join(tmpdir(), 'tidelog-next-'));
  stage.onEnd(() => rmSync(folder, { recursive: true }));
  cpSync(inRoot('js/dist'), path.join(folder, 'dist'), { recursive: true });
  for (const file of ['release.js', 'worker/shared.js']) {
    const name = path.join(folder, 'dist', file);
    const text = readFileSync(name, 'utf8');
    const builds = [...text.matchAll(RELEASE)].map(([, build]) => build);
    assert.ok(builds.length > 0, `${file} names its release`);
    assert.ok(!builds.includes('00000000'), `${file} names its build`);
    writeFileSync(name, text.replace(RELEASE, release));
  }
  const [, build] = release.split('+');
  for (const file of ['core_bg.wasm', 'page_server_bg.wasm']) {
    const name = path.join(folder, 'dist/wasm', file);
    // The last that a module says is its build.
    const module = readFileSync(name);
    writeFileSync(name, Buffer.concat([module.subarray(0, -build.length), Buffer.from(build)]));
  }
  for (const file of ['core.js', 'page_server.js']) {
    const name = path.join(folder, 'dist/wasm', file);
    const text = readFileSync(name, 'utf8');
    assert.match(text, BINDINGS_BUILD, `${file} names its build`);
    writeFileSync(name, text.replace(BINDINGS_BUILD, `$1${build}`));
  }
  return folder;
}

/** A tab with the package as it is, and one that loads this release of it, which takes over. */
async function testTakeOver(stage, release) {
  const site = await stage.ownSite({ folders: { '/next/': packageOf(stage, release) } });
  const [older, newer] = [
    await stage.tab(site.url('app.html')),
    await stage.tab(site.url('app.html')),
  ];
  const options = { document: stage.document };
  await openIn(older, 'list', options);
  await mutateIn(older, 'add', { id: 'a', title: 'of the older one' });

  const began = Date.now();
  const rows = await newer.evaluate(async (options) => {
    const next = await import('/next/dist/index.js');
    kept.db = await next.open(doctypes.list, options);
    await kept.db.mutate.add({ id: 'b', title: 'of the newer one' });
    return kept.db.query('select id from item order by id');
  }, options);
  stage.note(`taken over after ${Date.now() - began} ms`);
  assert.deepEqual(rows, [{ id: 'a' }, { id: 'b' }], 'nothing durable is lost');
  const status = await statusBecomes(older, { error: 'EngineError' });
  assert.match(status.error.message, /load this page anew/);
  const { error } = await mutateIn(older, 'add', { id: 'c', title: 'too late' });
  assert.equal(error?.name, 'EngineError');
  assert.equal(error.outcome, 'none');
  assert.equal((await coresIn(newer)).atWork.length, 1, 'the older one does not come back');
}

both('a newer release takes the store over, and older tabs say what to do', (stage) =>
  testTakeOver(stage, '0.2.0+00000001'),
);

both('two builds of one release share no core: the later one takes the store over', (stage) =>
  testTakeOver(stage, '0.1.0+00000001'),
);

for (const file of ['core_bg.wasm', 'page_server_bg.wasm', 'core.js', 'page_server.js']) {
  both(`${file} of another deployment is noticed, and nothing is done with it`, async (stage) => {
    const folder = packageOf(stage, '0.2.0+00000001');
    const module = path.join(folder, 'dist/wasm', file);
    const theirs = readFileSync(module);
    cpSync(inRoot(`js/dist/wasm/${file}`), module);
    const site = await stage.ownSite({ folders: { '/tidelog/': folder } });
    const tab = await stage.tab(site.url('app.html'));
    const options = { document: stage.document };
    const refused = await tryOpen(tab, 'list', options);
    assert.match(refused?.message ?? '', /two releases of the app: load this page anew/);

    // The rest of the deployment arrives. Until it is tried again, the reason stays what it was.
    writeFileSync(module, theirs);
    const isOpen = async () => !(await tryOpen(tab, 'list', options));
    await eventually(isOpen, { what: 'a document open by the files of one release' });
    const { error } = await mutateIn(tab, 'add', { id: 'a', title: 'of one release' });
    assert.equal(error, undefined);
  });
}

both('a worker that answers nobody holds nobody up', async (stage) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'tidelog-deaf-'));
  stage.onEnd(() => rmSync(folder, { recursive: true }));
  cpSync(inRoot('js/dist'), path.join(folder, 'dist'), { recursive: true });
  const script = path.join(folder, 'dist/worker/worker.js');
  const whole = readFileSync(script, 'utf8');
  assert.match(whole, /runCore\(\);/);
  writeFileSync(script, whole.replace('runCore();', 'self.onconnect = () => {};'));
  const site = await stage.ownSite({ folders: { '/tidelog/': folder } });
  const options = { document: stage.document };
  const first = await stage.tab(site.url('app.html'));
  const opening = tryOpen(first, 'list', options);
  await sleep(1000);
  writeFileSync(script, whole);
  assert.equal(await opening, null);
  // Whoever comes now finds where that core is, and the one behind it meets nobody deaf either.
  const second = await stage.tab(site.url('app.html'));
  await openIn(second, 'list', options);
  assert.equal((await coresIn(second)).atWork.length, 1);
  const { error } = await mutateIn(second, 'add', { id: 'a', title: 'heard' });
  assert.equal(error, undefined);
});

both('an older tab over the files of a newer release leaves the store to it', async (stage) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'tidelog-deployed-'));
  stage.onEnd(() => rmSync(folder, { recursive: true }));
  const deployed = path.join(folder, 'now');
  symlinkSync(inRoot('js'), deployed);
  const site = await stage.ownSite({ folders: { '/tidelog/': deployed } });
  const options = { document: stage.document };
  const older = await stage.tab(site.url('app.html'));
  await openIn(older, 'list', options);
  await mutateIn(older, 'add', { id: 'a', title: 'of the older one' });

  unlinkSync(deployed);
  symlinkSync(packageOf(stage, '0.2.0+00000001'), deployed);
  const newer = await stage.tab(site.url('app.html'));
  await openIn(newer, 'list', options);
  await mutateIn(newer, 'add', { id: 'b', title: 'of the newer one' });
  await statusBecomes(older, { error: 'EngineError' });
  await newer.close();
  // Its own core would be what is deployed now.
  const isTold = async () => /was deployed.*anew/.test((await statusIn(older)).error?.message);
  await eventually(isTold, { what: 'what the older tab makes of that' });

  for (const id of ['c', 'd']) {
    const again = await stage.tab(site.url('app.html'));
    await openIn(again, 'list', options);
    const { error } = await mutateIn(again, 'add', { id, title: 'of the newer one' });
    assert.equal(error, undefined);
    assert.equal((await coresIn(again)).atWork.length, 1);
    await again.close();
  }
  const again = await stage.tab(site.url('app.html'));
  await openIn(again, 'list', options);
  assert.equal((await rowsIn(again, 'select id from item')).length, 4);
});

for (const [release, isNewerLate] of [
  ['0.2.0+00000001', true],
  ['0.2.0+00000001', false],
  // Greater than any other build of hexadecimal digits.
  ['0.1.0+zzzzzzzz', false],
]) {
  const late = isNewerLate ? 'newer' : 'older';
  both(
    `of two releases that start at once, ${release} stays, the ${late} one late`,
    async (stage) => {
      const site = await stage.ownSite({ folders: { '/next/': packageOf(stage, release) } });
      const older = await stage.tab(site.url('app.html'));
      const newer = await stage.tab(site.url('app.html'));
      const openNewer = () =>
        newer.evaluate(async (document) => {
          const next = await import('/next/dist/index.js');
          kept.db = await next.open(doctypes.list, { document });
        }, stage.document);
      const openOlder = () => tryOpen(older, 'list', { document: stage.document });
      if (isNewerLate) {
        await openOlder();
        await seesNobodyAtFirst(newer);
        await openNewer();
      } else {
        await openNewer();
        await seesNobodyAtFirst(older);
        await openOlder();
      }
      const { error } = await mutateIn(newer, 'add', { id: 'a', title: 'of the newer one' });
      assert.equal(error, undefined);
      const cores = () => coresIn(newer);
      await eventually(async () => (await cores()).atWork.length === 1, { what: 'one core' });
      const again = await tryOpen(older, 'list', { document: stage.document });
      assert.match(again?.message ?? '', /load this page anew/);
    },
  );
}

atLeast(existsSync('/proc') ? 10 : 7);
