import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { plan } from '../src/app.mjs';
import { TEMPLATES, USAGE, UsageError, wanted } from '../src/arguments.mjs';
import { questions } from '../src/questions.mjs';

const inRoot = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const json = (name: string) => JSON.parse(readFileSync(inRoot(name), 'utf8'));

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'create-tidelog-'));
});

afterEach(() => rmSync(folder, { recursive: true }));

/** The command as npm starts it: without a terminal. */
const run = (...words: string[]) =>
  spawnSync(process.execPath, [inRoot('create/bin/create-tidelog.mjs'), ...words], {
    encoding: 'utf8',
    cwd: folder,
  });

test('a folder and a template are taken from the command line, in any order', () => {
  const both = { folder: 'my-app', template: 'react' };
  expect(wanted(['my-app', '--template', 'react'])).toEqual(both);
  expect(wanted(['--template=react', 'my-app'])).toEqual(both);
  expect(wanted(['-t', 'react', 'my-app', '--tidelog', '0.2.0'])).toEqual({
    ...both,
    tidelog: '0.2.0',
  });
  expect(wanted(['-h'])).toEqual({ help: true });
});

test('words that mean nothing are refused', () => {
  for (const words of [['a', 'b'], ['--templat', 'react'], ['a', '--template'], ['--help=x']]) {
    expect(() => wanted(words)).toThrow(UsageError);
  }
  expect(() => wanted(['--templat', 'x'])).toThrow(/^unknown option '--templat'$/);
});

test('only what was not said is asked, the folder first', () => {
  const asked = (words: string[]) => questions(wanted(words)).map(({ name }) => name);
  expect(asked([])).toEqual(['folder', 'template']);
  expect(asked(['my-app'])).toEqual(['template']);
  expect(asked(['--template', 'vue'])).toEqual(['folder']);
  expect(asked(['my-app', '--template', 'vue'])).toEqual([]);
});

test('without a terminal nothing is asked: what is missing is named', () => {
  const { status, stderr } = run('my-app');
  expect(status).toBe(2);
  expect(stderr).toBe(`create-tidelog: the template is missing\n\n${USAGE}\n`);
  expect(run().stderr).toMatch(/^create-tidelog: the folder is missing\n/);
  expect(readdirSync(folder)).toEqual([]);
});

test('an unknown template, a bad name and a folder that is there are refused, each by name', () => {
  const refusal = (name: string, template = 'plain') => {
    try {
      plan({ folder: name, template, tidelog: undefined }, folder);
    } catch (error) {
      expect(error).toBeInstanceOf(UsageError);
      return (error as Error).message;
    }
    throw new Error(`${name} was not refused`);
  };
  expect(refusal('my-app', 'solid')).toBe(
    'there is no template solid: one of plain, react, vue, svelte',
  );
  for (const name of ['My App', '.hidden', '_x', 'ä', 'node_modules', 'x'.repeat(215)]) {
    expect(refusal(name)).toContain(`"${name}" is no name for an app: lower-case letters`);
  }
  for (const name of ['tidelog', 'apps/vite']) {
    expect(refusal(name)).toContain(`an app cannot be called ${path.basename(name)}`);
  }
  expect(readdirSync(folder)).toEqual([]);

  mkdirSync(path.join(folder, 'there'));
  expect(refusal('there')).toBe('there is there already');
  writeFileSync(path.join(folder, 'file'), 'text');
  expect(refusal('file')).toBe('file is there already');
  expect(run('file', '-t', 'plain')).toMatchObject({ status: 2, stdout: '' });
  expect(readFileSync(path.join(folder, 'file'), 'utf8')).toBe('text');
});

test('--help says how to call it, and makes nothing', () => {
  expect(run('my-app', '--help')).toMatchObject({ status: 0, stdout: `${USAGE}\n`, stderr: '' });
  expect(readdirSync(folder)).toEqual([]);
});

const SHARED = [
  '.gitignore',
  'README.md',
  'index.html',
  'package.json',
  'src/style.css',
  'src/todos.ts',
  'tsconfig.json',
];
const OWN: Record<string, string[]> = {
  plain: ['src/main.ts', 'vite.config.ts'],
  react: ['src/hooks.ts', 'src/list.tsx', 'src/main.tsx', 'vite.config.ts'],
  vue: [
    'src/app.vue',
    'src/env.d.ts',
    'src/hooks.ts',
    'src/list.vue',
    'src/main.ts',
    'vite.config.ts',
  ],
  svelte: [
    'src/app.svelte',
    'src/env.d.ts',
    'src/hooks.ts',
    'src/list.svelte',
    'src/main.ts',
    'vite.config.ts',
  ],
};

for (const template of TEMPLATES) {
  test(`the template ${template} is written whole, under the app's name`, () => {
    const { status, stdout } = run('apps/my-app', '--template', template);
    expect(status).toBe(0);
    expect(stdout).toContain('cd apps/my-app\n  npm install\n  npm run dev\n');

    const app = path.join(folder, 'apps/my-app');
    const written = readdirSync(app, { recursive: true }).map(String);
    const isFile = (name: string) => path.extname(name) || name === '.gitignore';
    expect(written.filter(isFile).sort()).toEqual([...SHARED, ...OWN[template]!].sort());
    for (const name of written.filter(isFile)) {
      expect(readFileSync(path.join(app, name), 'utf8')).not.toMatch(/\bNAME\b|undefined/);
    }
    const { name, scripts, dependencies } = JSON.parse(
      readFileSync(path.join(app, 'package.json'), 'utf8'),
    );
    expect({ name, dev: scripts.dev, build: scripts.build, tidelog: dependencies.tidelog }).toEqual(
      {
        name: 'my-app',
        dev: 'vite',
        build: 'vite build',
        tidelog: json('js/package.json').version,
      },
    );
    expect(readFileSync(path.join(app, 'index.html'), 'utf8')).toContain('<title>my-app</title>');
    // Where `npx tidelog serve` keeps what it has.
    expect(readFileSync(path.join(app, '.gitignore'), 'utf8').split('\n')).toContain('.tidelog');
  });

  test(`the template ${template} asks for the versions that are tried here`, () => {
    const { dependencies, devDependencies } = json(`create/templates/${template}/package.json`);
    const tried = {
      ...json('tests/bundlers/package.json').devDependencies,
      ...json('package.json').devDependencies,
      tidelog: json('js/package.json').version,
    };
    for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies })) {
      expect([name, version]).toEqual([name, tried[name]]);
    }
  });
}

test('another tidelog may be named: a version as it is, an archive by its way from the app', () => {
  writeFileSync(path.join(folder, 'tidelog.tgz'), '');
  const dependency = (spec: string) => {
    const { files } = plan({ folder: 'apps/a', template: 'plain', tidelog: spec }, folder);
    return JSON.parse(files['package.json']!).dependencies.tidelog;
  };
  expect(dependency('next')).toBe('next');
  expect(dependency('tidelog.tgz')).toBe('file:../../tidelog.tgz');
  expect(dependency(path.join(folder, 'tidelog.tgz'))).toBe('file:../../tidelog.tgz');
  expect(existsSync(path.join(folder, 'apps'))).toBe(false);
});

test('it depends on nothing, and is of the release that its apps depend on', () => {
  const { version, ...manifest } = json('create/package.json');
  expect(version).toBe(json('js/package.json').version);
  expect(Object.keys(manifest).filter((key) => /dependencies/i.test(key))).toEqual([]);
});
