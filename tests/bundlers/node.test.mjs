// The client in Node, on the package as its archive brings it.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { inProject, installPackage } from './places.mjs';

test('a process keeps its documents in a folder', (t) => {
  installPackage();
  const folder = mkdtempSync(path.join(os.tmpdir(), 'tidelog-archive-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const text = `
    import { doctype, mutation, open } from 'tidelog/node';
    const list = doctype({
      name: 'list',
      migrations: ['create table item (id text primary key) strict'],
      mutations: { add: mutation({ id: 'uuid' }, 'insert into item values (:id)') },
    });
    const db = await open(list, { document: 'a', folder: ${JSON.stringify(folder)} });
    await db.mutate.add();
    console.log(await db.values('select count(*) from item'));
    await db.close();`;
  const args = ['--input-type=module', '-e', text];
  const options = { cwd: inProject(), encoding: 'utf8', timeout: 20_000 };
  for (const count of [1, 2]) {
    assert.equal(execFileSync(process.execPath, args, options), `[ [ ${count} ] ]\n`);
  }
});
