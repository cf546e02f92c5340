// Doctypes that are checked before there is any browser: by the command, and by Vite's plugin.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { stripVTControlCharacters } from 'node:util';
import { eventually } from '../browser/harness.mjs';
import { inProject, installPackage, inTarget } from './places.mjs';

before(() => {
  installPackage();
});

const DRAWN = /mutation add of doctype drawn cannot be used: not deterministic: random\(\)/;
const MISSPELT = /migration 2 of doctype misspelt does not run: near "tabel": syntax error/;

const RIGHT = 'doctype notes is right, of 1 migrations and 1 mutations';

function check(files = '', { cwd = inProject() } = {}) {
  const command = inProject('node_modules/tidelog/bin/tidelog.mjs');
  const args = [command, 'check', ...files.split(' ').filter(Boolean)];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd, encoding: 'utf8' });
  return { status, stdout: stdout.trim(), stderr: stderr.trim() };
}

test('the command says of each doctype that it is right, once, or what is wrong with it', () => {
  const right = 'check/right.mjs';
  assert.deepEqual(check(right), { status: 0, stdout: `${right}: ${RIGHT}`, stderr: '' });

  const wrong = check(`check/wrong.mjs ${right}`);
  assert.equal(wrong.status, 1);
  assert.equal(wrong.stdout, `${right}: ${RIGHT}`);
  const lines = wrong.stderr.split('\n');
  assert.equal(lines.length, 2);
  assert.match(lines[0], DRAWN);
  assert.match(lines[1], MISSPELT);
});

test('whoever asks how a command is used is told, and nothing else happens', () => {
  const command = inProject('node_modules/tidelog/bin/tidelog.mjs');
  for (const name of ['check', 'copy-assets', 'extract', 'types']) {
    const run = (...args) =>
      spawnSync(process.execPath, [command, name, ...args], { cwd: inProject() });
    const { status, stdout } = run('--help');
    assert.deepEqual([status, `${stdout}`.startsWith('usage: ')], [0, true], name);
  }
  const { status } = spawnSync(process.execPath, [command, 'copy-assets', '--here'], {
    cwd: inProject(),
  });
  assert.equal(status, 2);
  for (const name of ['--help', '--here']) assert.ok(!existsSync(inProject(name)));
});

test('of a folder the command checks the modules that export a doctype', () => {
  const all = check('check');
  assert.equal(all.status, 1);
  assert.match(all.stdout, new RegExp(`^check/right.mjs: ${RIGHT}$`, 'm'));
  assert.match(all.stderr, DRAWN);
  const right = placeOf('vite');
  const alone = path.join(right, 'alone');
  mkdirSync(alone, { recursive: true });
  for (const file of ['right.mjs', 'hidden.mjs'])
    cpSync(path.join(right, file), `${alone}/${file}`);
  const { status, stdout, stderr } = check('alone', { cwd: right });
  assert.deepEqual([status, stdout], [0, `alone/right.mjs: ${RIGHT}`]);
  assert.equal(stderr, 'alone/hidden.mjs: it exports no doctype');
  const broken = "import { doctype } from 'tidelog';\nimport './nowhere.mjs';\ndoctype({});\n";
  writeFileSync(`${alone}/broken.mjs`, broken);
  const unseen = check('alone', { cwd: right });
  assert.equal(unseen.status, 1);
  assert.match(unseen.stderr, /^alone\/broken\.mjs: .*nowhere/m);
  for (const file of ['broken.mjs', 'right.mjs']) rmSync(`${alone}/${file}`);
  const none = check('alone', { cwd: right });
  assert.equal(none.status, 1);
  assert.match(none.stderr, /no module of alone exports a doctype/);
});

test('the command says what it could not check', () => {
  const hidden = check('check/hidden.mjs');
  assert.equal(hidden.status, 1);
  assert.equal(hidden.stderr, 'check/hidden.mjs: it exports no doctype');
  const absent = check('check/absent.mjs');
  assert.equal(absent.status, 1);
  assert.match(absent.stderr, /^check\/absent\.mjs: .*absent\.mjs/);
  const unknown = check('check/unknown.mjs');
  assert.equal(unknown.status, 1);
  assert.match(unknown.stderr, /parameter id: there is no type number/);
  assert.equal(check().status, 2);
});

const UNUSED = /mutation clear of doctype hinted does not use its parameter all$/m;

const UUID_OF_NO_ROW =
  /mutation clear of doctype hinted inserts nothing, and its parameter id is a 'uuid'/m;

const LATE_COLUMN =
  /migration 2 of doctype hinted adds note\.at, and fails in each document where note has a row/m;

test('the command says which parameters are of no use, and which are better given', () => {
  const { status, stdout, stderr } = check('check/hinted.mjs');
  assert.equal(status, 0);
  assert.match(stdout, /doctype hinted is right/);
  assert.match(stderr, UNUSED);
  assert.match(stderr, UUID_OF_NO_ROW);
  assert.match(stderr, LATE_COLUMN);
  assert.equal(stderr.split('\n').length, 3);
});

const VITES = ['vite', 'vite-5', 'vite-6', 'vite-7'];

/** A place with the app's modules, in which `vite` is the Vite of this name. */
function placeOf(name) {
  const place = inTarget('check', name);
  mkdirSync(path.join(place, 'node_modules'), { recursive: true });
  cpSync(inProject('check'), place, { recursive: true });
  for (const [link, to] of [
    ['vite', name],
    ['tidelog', 'tidelog'],
  ]) {
    const at = path.join(place, 'node_modules', link);
    if (!existsSync(at)) symlinkSync(inProject('node_modules', to), at, 'dir');
  }
  return place;
}

/** The plugin on an app that begins with this module, and what it has said, without colours. */
async function withPlugin(name, entry) {
  const vite = await import(name);
  const { tidelog } = await import('tidelog/vite');
  const said = [];
  const say = (message) => said.push(stripVTControlCharacters(message));
  const customLogger = { ...vite.createLogger('silent'), error: say, warn: say, warnOnce: say };
  const root = placeOf(name);
  const lib = { entry: path.join(root, entry), formats: ['es'], fileName: 'out' };
  const build = { lib, outDir: path.join(root, 'out'), emptyOutDir: true, write: false };
  const config = { root, configFile: false, customLogger, plugins: [tidelog()], build };
  return { vite, said, config };
}

const ofDoctypes = (said) => said.filter((it) => /doctype/.test(it));

for (const name of VITES) {
  test(`a build by ${name} ends where a doctype is wrong`, async () => {
    const right = await withPlugin(name, 'right.ts');
    await right.vite.build(right.config);
    assert.deepEqual(ofDoctypes(right.said), []);
    const wrong = await withPlugin(name, 'wrong.mjs');
    await assert.rejects(wrong.vite.build(wrong.config), (error) => {
      assert.match(error.message, DRAWN);
      assert.match(error.message, MISSPELT);
      return true;
    });
  });

  test(`the command checks TypeScript by ${name}`, () => {
    const { status, stdout } = check('right.ts', { cwd: placeOf(name) });
    assert.deepEqual([status, stdout], [0, `right.ts: ${RIGHT}`]);
  });

  test(`the development server of ${name} checks again whatever is saved`, async () => {
    const { vite, said, config } = await withPlugin(name, 'apart.ts');
    const migrations = path.join(config.root, 'migrations.ts');
    const sent = [];
    const server = await vite.createServer({ ...config, server: { middlewareMode: true } });
    server.ws.send = (message) => sent.push(message);
    try {
      assert.deepEqual(server.config.optimizeDeps.exclude, ['tidelog']);
      await server.transformRequest('/apart.ts');
      await server.transformRequest('/migrations.ts');
      await sleep(3_000);
      assert.deepEqual(ofDoctypes(said), []);
      writeFileSync(migrations, "export const migrations = ['create tabel note (id text)'];");
      server.watcher.emit('change', migrations);
      const isShown = () => sent.some(({ err }) => /near "tabel": syntax error/.test(err?.message));
      await eventually(isShown, { what: 'a word of the flaw over the page' });
      const told = () => said.filter((it) => /^apart\.ts: .*near "tabel"/.test(it)).length;
      const before = told();
      assert.ok(before > 0, ofDoctypes(said).join('\n'));
      // As a server does whose store is below the app.
      const log = path.join(config.root, 'log-a');
      writeFileSync(log, 'anything');
      server.watcher.emit('change', log);
      await sleep(3_000);
      assert.equal(told(), before, 'no module was saved since');
    } finally {
      await server.close();
    }
  });
}

test('what cannot be checked is warned of, whatever its module does', async () => {
  for (const [entry, what] of [
    ['hidden.mjs', /no doctype of .*hidden\.mjs was checked \(it exports no doctype\)/],
    ['page.mjs', /no doctype of .*page\.mjs was checked \(document is not defined\)/],
    ['hinted.mjs', UNUSED],
  ]) {
    const unchecked = await withPlugin('vite', entry);
    await unchecked.vite.build(unchecked.config);
    assert.match(ofDoctypes(unchecked.said).join('\n'), what);
  }
  // It opens a document, which fails here with nobody to hear of it, and never comes to rest.
  const busy = await withPlugin('vite', 'busy.mjs');
  await busy.vite.build(busy.config);
  assert.deepEqual(ofDoctypes(busy.said), []);
});
