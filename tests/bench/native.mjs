// Benches in Rust, each a program that prints for people, and says its figures as lines of JSON.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { inRoot } from '../browser/harness/places.mjs';

/** Runs `cargo bench` of one, and gives what it prints line by line to `heard`. */
async function cargoBench({ crate, bench }, args, env, heard) {
  const program = process.env.CARGO ?? 'cargo';
  const words = ['bench', '--locked', '--quiet', '--package', crate, '--bench', bench, ...args];
  const child = spawn(program, words, {
    cwd: inRoot(),
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
  for await (const line of createInterface(child.stdout)) heard(line);
  if ((await ended) !== 0) throw new Error(`cargo bench of ${bench} failed`);
}

/** Compiles one, so that nothing is compiled while something is measured. */
export const buildNative = (program) => cargoBench(program, ['--no-run'], {}, () => {});

/** Runs one and gives rows for `bench.json`. */
export async function benchNative(program, { args = [], env = {} }) {
  const rows = [];
  console.log('');
  await cargoBench(program, ['--', '--json', ...args], env, (line) => {
    if (line.startsWith('{')) rows.push({ system: 'tidelog', ...JSON.parse(line) });
    else console.log(line);
  });
  return rows;
}
