import { spawnSync } from 'node:child_process';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import * as tidelog from '../src/index.js';

const inJs = (name: string): string => fileURLToPath(new URL(`../${name}`, import.meta.url));

/** What the comments of the package show, by where it stands. */
function examples(): [string, string][] {
  const found: [string, string][] = [];
  for (const file of readdirSync(inJs('src')).filter((name) => name.endsWith('.ts'))) {
    const source = readFileSync(inJs(`src/${file}`), 'utf8');
    for (const [, block] of source.matchAll(/@example\n *\* ```tsx?\n([\s\S]*?)\* ```/g)) {
      const name = `${path.basename(file, '.ts')}-${found.length}`;
      found.push([name, block!.replaceAll(/^ *\* ?/gm, '')]);
    }
  }
  return found;
}

const HOOKS = ['react', 'vue', 'svelte', 'solid'].map((it) => [
  it,
  `import { createHooks } from 'tidelog/${it}';`,
]);

/** What the examples of a part of the package import, by its name. */
const IMPORTS = Object.fromEntries([
  ...HOOKS,
  ['events', `import { stream } from 'tidelog/events';`],
  ['commands', `import { command, stream } from 'tidelog/events';`],
  ['workflows', `import { workflow } from 'tidelog/events';`],
  [
    'kysely',
    `import { Kysely } from 'kysely';
     import { queryOf, TidelogDialect } from 'tidelog/kysely';`,
  ],
  [
    'drizzle',
    `import { sqliteTable, text } from 'drizzle-orm/sqlite-core';
     import { drizzle } from 'drizzle-orm/sqlite-proxy';
     import { proxyOf, queryOf } from 'tidelog/drizzle';`,
  ],
]);

/** What is asked of a document with commands and workflows. */
const SHOP = `const { command, stream, workflow } = await import('tidelog/events');
const shop = {
  streams: {
    order: stream({
      events: { placed: { items: 'json' } },
      commands: { place: command({ items: 'json' }) },
    }),
  },
  workflows: { fulfil: workflow({ order: 'text' }) },
};`;

/** What an example may take as given: the package, the doctype of the first one, and a document. */
function whole([name, code]: [string, string], doctype: string): string {
  const imports = IMPORTS[name.replace(/-\d+$/, '')] ?? '';
  const exported = `import { ${Object.keys(tidelog)} } from 'tidelog';\n${imports}\n`;
  if (code === doctype) return exported + code;
  const usesStreams = /\bdb\.(send|start|cancel|outcome|handle)\b/.test(code);
  const streams = usesStreams ? ', typeof shop.streams, typeof shop.workflows' : '';
  const given = `${doctype}${usesStreams ? SHOP : ''}
    declare const db: import('tidelog').Database<typeof todos.mutations${streams}>;\n`;
  return `${exported}${given}// ${name}\n{\n${code}}\n`;
}

test('every example in a comment has right types', () => {
  const found = examples();
  const doctype = found.find(([name]) => name.startsWith('doctype'))![1];
  const folder = mkdtempSync(path.join(tmpdir(), 'tidelog-examples-'));
  try {
    for (const it of found) writeFileSync(path.join(folder, `${it[0]}.tsx`), whole(it, doctype));
    writeFileSync(path.join(folder, 'package.json'), '{ "type": "module" }');
    symlinkSync(inJs('../node_modules'), path.join(folder, 'node_modules'));
    const compilerOptions = {
      rootDir: path.parse(folder).root,
      noEmit: true,
      declaration: false,
      declarationMap: false,
      isolatedDeclarations: false,
      noUnusedLocals: false,
      skipLibCheck: true,
      jsx: 'react-jsx',
      paths: {
        tidelog: [inJs('src/index.ts')],
        'tidelog/*': [inJs('src/*.ts')],
      },
    };
    const config = { extends: inJs('tsconfig.json'), compilerOptions, include: ['*.tsx'] };
    writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify(config));
    const tsc = inJs('../node_modules/typescript/bin/tsc');
    const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', folder], {
      encoding: 'utf8',
    });
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
    expect(found.length).toBeGreaterThan(10);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
