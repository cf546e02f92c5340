/** Starts the server of the package `tidelog-server`, which has its binary. */

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import path from 'node:path';

/** A binary, and what it is called with. */
export interface Start {
  readonly binary: string;
  readonly args: readonly string[];
  /** What is done, for whoever asked. */
  readonly says: string;
}

/** What is used of the manifest of a package. */
interface Manifest {
  readonly version: string;
  readonly bin?: Readonly<Record<string, string>>;
}

const PACKAGE = 'tidelog-server';

/** What a development server is started with, and the variables that say otherwise. */
const FOR_DEVELOPMENT = [
  { variable: 'TIDELOG_DEV', words: ['--dev'] },
  { variable: 'TIDELOG_DATA', words: ['--data', '.tidelog'] },
  { variable: 'TIDELOG_LISTEN', words: ['--listen', '127.0.0.1:8787'] },
] as const;

/**
 * How the server that an app has installed is started: as one for development, except for what
 * these arguments say, or else the environment.
 *
 * @param root the folder of the app.
 * @throws {Error} where there is none, with what to install.
 */
export function planServer(
  root: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Start {
  const own = manifestAt(new URL('../../package.json', import.meta.url));
  let file: string;
  try {
    file = createRequire(path.join(root, 'package.json')).resolve(`${PACKAGE}/package.json`);
  } catch {
    const install = `npm install --save-dev ${PACKAGE}@${own.version}`;
    throw new Error(`${PACKAGE} is not installed in ${root}: ${install}`);
  }
  const { version, bin } = manifestAt(file);
  const name = bin?.[PACKAGE];
  if (!name) throw new Error(`${file} names no binary: install ${PACKAGE} anew`);
  const words = ['serve', ...forDevelopment(args, env), ...args];
  const notes = [`${PACKAGE} ${version}: tidelog ${words.join(' ')}`];
  if (words.includes('--dev')) {
    notes.push('for development: it listens on this machine only, and asks for no token');
  }
  if (version !== own.version) {
    notes.push(`its release is another one than that of tidelog, ${own.version}`);
  }
  return { binary: path.join(path.dirname(file), name), args: words, says: notes.join('\n') };
}

function manifestAt(file: string | URL): Manifest {
  return JSON.parse(readFileSync(file, 'utf8'));
}

/** A flag wins over the environment, and that over the file that it names. */
function forDevelopment(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): readonly string[] {
  const flags = new Map(
    args.map((arg, at) => [arg.split('=')[0], arg.split('=')[1] ?? args[at + 1]]),
  );
  const says = (flag: string): boolean => flags.has(flag);
  if (env.TIDELOG_CONFIG || ['--config', '--help', '-h', '--version', '-V'].some(says)) return [];
  const listen = flags.get('--listen') ?? env.TIDELOG_LISTEN;
  // One for development is never beyond this machine.
  const isHere = !listen || /^(127\.|\[::1\])/.test(listen);
  const chosen = FOR_DEVELOPMENT.filter(
    ({ variable, words: [flag] }) => !env[variable] && !says(flag) && (isHere || flag !== '--dev'),
  );
  return chosen.flatMap(({ words }) => words);
}

/** What is passed on to the server: it knows itself what to do where it was told already. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Runs it to its end, with the signals that come here. Gives its exit code. */
export function runServer({ binary, args }: Start): Promise<number> {
  return new Promise((resolve, reject) => {
    const passOn = (signal: NodeJS.Signals): void => {
      // A console tells the server by itself there, and `kill` would end it at once.
      if (process.platform !== 'win32') child.kill(signal);
    };
    for (const signal of SIGNALS) process.on(signal, passOn);
    const end = (): void => {
      for (const signal of SIGNALS) process.off(signal, passOn);
    };
    const child = spawn(binary, args, { stdio: 'inherit' });
    child.on('error', (error) => {
      end();
      reject(new Error(`${binary} does not start: ${error.message}`));
    });
    child.on('exit', (code, signal) => {
      end();
      // As a shell says it of what a signal has ended.
      resolve(code ?? 128 + constants.signals[signal!]);
    });
  });
}
