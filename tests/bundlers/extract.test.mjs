// Doctypes on their way to a server: what the command prints of a module.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { inProject, installPackage, inTarget } from './places.mjs';

before(() => {
  installPackage();
});

function extract(...args) {
  const command = inProject('node_modules/tidelog/bin/tidelog.mjs');
  const words = [command, 'extract', ...args];
  const options = { cwd: inProject(), encoding: 'utf8' };
  const { status, stdout, stderr } = spawnSync(process.execPath, words, options);
  return { status, stdout, stderr: stderr.trim() };
}

const [RIGHT, HINTED] = ['check/right.mjs', 'check/hinted.mjs'];

const NOTES = {
  name: 'notes',
  migrations: ['create table note (id text primary key, body text not null) strict'],
  mutations: {
    add: {
      params: { id: 'uuid', body: 'text' },
      sql: ['insert into note (id, body) values (:id, :body)'],
    },
  },
};

const PROJECT = "insert into orders (id, state) values (:stream, 'placed')";
const UPCAST = "json_set(:data, '$.by', null)";

test('the doctype of a module is printed as JSON, and nothing else', () => {
  const { status, stdout, stderr } = extract(RIGHT);
  assert.deepEqual([status, stderr], [0, '']);
  assert.equal(stdout, `${JSON.stringify(NOTES)}\n`);
});

test('what happens to what an app has is printed with it', () => {
  const { status, stdout, stderr } = extract('check/streams.mjs');
  assert.deepEqual([status, stderr], [0, '']);
  const { streams, mutations, workflows } = JSON.parse(stdout);
  assert.match(mutations.place.sql[0], /into tidelog_events/);
  const placed = { fields: {}, upcast: [], project: [PROJECT] };
  const shipped = { fields: { by: 'text?' }, upcast: [UPCAST], project: [] };
  const ship = {
    fields: { by: 'text?' },
    received: ["update orders set state = 'to ship' where id = :stream"],
    failed: ['update orders set state = :reason where id = :stream'],
    retries: 5,
    timeout: 120_000,
  };
  assert.deepEqual(streams, { order: { events: { placed, shipped }, commands: { ship } } });
  assert.deepEqual(workflows, { fulfil: { version: 2, fields: { order: 'text' } } });
});

test('of several doctypes one is named, or each is a file', () => {
  const several = extract(RIGHT, HINTED);
  assert.deepEqual([several.status, several.stdout], [1, '']);
  assert.match(several.stderr, /several doctypes: choose one by --name.*: hinted, notes$/);
  assert.deepEqual(JSON.parse(extract('--name', 'notes', RIGHT, HINTED).stdout), NOTES);
  const absent = extract('--name', 'absent', RIGHT);
  assert.deepEqual([absent.status, absent.stdout], [1, '']);
  assert.match(absent.stderr, /no doctype absent: there is notes/);

  const out = mkdtempSync(inTarget('extract-'));
  try {
    assert.equal(extract('--out', out, RIGHT, HINTED).status, 0);
    assert.deepEqual(readdirSync(out), ['hinted.json', 'notes.json']);
    assert.deepEqual(JSON.parse(readFileSync(path.join(out, 'notes.json'), 'utf8')), NOTES);
  } finally {
    rmSync(out, { recursive: true });
  }
});

test('what a browser would refuse is not extracted', () => {
  const wrong = extract('--name', 'notes', 'check/wrong.mjs', RIGHT);
  assert.deepEqual([wrong.status, wrong.stdout], [1, '']);
  assert.match(wrong.stderr, /mutation add of doctype drawn cannot be used: not deterministic/);
  const hidden = extract('check/hidden.mjs');
  assert.deepEqual([hidden.status, hidden.stderr], [1, 'check/hidden.mjs: it exports no doctype']);
  assert.equal(extract('check/absent.mjs').status, 1);
  for (const args of [[], ['--name'], ['--nope', RIGHT]]) assert.equal(extract(...args).status, 2);
});
