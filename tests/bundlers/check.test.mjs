// Doctypes that are checked before there is any browser: by the command, and by Vite's plugin.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { before, test } from 'node:test';
import { eventually } from '../browser/harness.mjs';
import { inProject, installPackage, inTarget } from './places.mjs';

before(() => {
  installPackage();
});

const DRAWN = /mutation add of doctype drawn cannot be used: not deterministic: random\(\)/;
const MISSPELT = /migration 1 of doctype misspelt does not run: near "tabel": syntax error/;

function check(...files) {
  const args = ['--offline', 'tidelog', 'check', ...files];
  const { status, stdout, stderr } = spawnSync('npx', args, {
    cwd: inProject(),
    encoding: 'utf8',
  });
  return { status, stdout: stdout.trim(), stderr: stderr.trim() };
}

test('the command says of each doctype that it is right, once, or what is wrong with it', () => {
  const [right, typed] = ['check/right.mjs', 'check/right.ts'];
  const of = 'doctype notes is right, of 1 migrations and 1 mutations';
  assert.deepEqual(check(right), { status: 0, stdout: `${right}: ${of}`, stderr: '' });
  assert.deepEqual(check(typed), { status: 0, stdout: `${typed}: ${of}`, stderr: '' });

  const wrong = check('check/wrong.mjs', right);
  assert.equal(wrong.status, 1);
  assert.equal(wrong.stdout, `${right}: ${of}`);
  const lines = wrong.stderr.split('\n');
  assert.equal(lines.length, 2);
  assert.match(lines[0], DRAWN);
  assert.match(lines[1], MISSPELT);
});

test('the command says what it could not check', () => {
  const hidden = check('check/hidden.mjs');
  assert.equal(hidden.status, 1);
  assert.equal(hidden.stderr, 'check/hidden.mjs: it exports no doctype');
  assert.match(check('check/absent.mjs').stderr, /^check\/absent\.mjs: Cannot find module/);
  assert.equal(check('check/absent.mjs').status, 1);
  assert.equal(check().status, 2);
});

/** What an older release of the app issued is rejected once a table has another column. */
const BY_PLACE = /mutation add of doctype by_place inserts into note without the names/;

test('the command says where columns are not named', () => {
  const { status, stdout, stderr } = check('check/by-place.mjs');
  assert.equal(status, 0);
  assert.match(stdout, /doctype by_place is right/);
  assert.match(stderr, BY_PLACE);
});

const VITES = ['vite', 'vite-5', 'vite-6', 'vite-7'];

/** The plugin, and what it has said, by the Vite of this name. */
async function withPlugin(name, entry) {
  const vite = await import(name);
  const { tidelog } = await import('tidelog/vite');
  const said = [];
  const say = (message) => said.push(message);
  const customLogger = { ...vite.createLogger('silent'), error: say, warn: say, warnOnce: say };
  const lib = { entry: inProject('check', entry), formats: ['es'], fileName: 'out' };
  const config = {
    root: inProject('check'),
    configFile: false,
    cacheDir: inTarget('check', name),
    customLogger,
    plugins: [tidelog()],
    build: { lib, outDir: inTarget('check', 'out'), emptyOutDir: true, write: false },
  };
  return { vite, said, config };
}

for (const name of VITES) {
  test(`a build by ${name} ends where a doctype is wrong`, async () => {
    const right = await withPlugin(name, 'right.ts');
    await right.vite.build(right.config);
    const wrong = await withPlugin(name, 'wrong.mjs');
    await assert.rejects(wrong.vite.build(wrong.config), (error) => {
      assert.match(error.message, DRAWN);
      assert.match(error.message, MISSPELT);
      return true;
    });
    const flaws = (said) => said.filter((it) => /doctype/.test(it));
    assert.deepEqual(flaws(right.said), []);
    for (const [entry, what] of [
      ['hidden.mjs', /hidden\.mjs exports no doctype, so none was checked/],
      ['page.mjs', /page\.mjs were not checked \(document is not defined\)/],
      ['by-place.mjs', BY_PLACE],
    ]) {
      const unchecked = await withPlugin(name, entry);
      await unchecked.vite.build(unchecked.config);
      assert.match(flaws(unchecked.said).join('\n'), what);
    }
  });

  test(`the development server of ${name} says what is wrong with a doctype`, async () => {
    const { vite, said, config } = await withPlugin(name, 'wrong.mjs');
    const server = await vite.createServer({
      ...config,
      server: { middlewareMode: true, ws: false },
    });
    try {
      assert.deepEqual(server.config.optimizeDeps.exclude, ['tidelog']);
      await server.transformRequest('/wrong.mjs');
      await eventually(() => said.some((it) => DRAWN.test(it) && MISSPELT.test(it)), {
        what: 'a word of the flaws',
      });
    } finally {
      await server.close();
    }
  });
}
