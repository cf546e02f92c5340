#!/usr/bin/env node
// `npm create tidelog my-app -- --template react`: makes the folder of an app.

import { createInterface } from 'node:readline/promises';
import { plan, write } from '../src/app.mjs';
import { USAGE, UsageError, wanted } from '../src/arguments.mjs';
import { questions } from '../src/questions.mjs';

const FAILED = 1;
const WRONG_USAGE = 2;

/** What is missing, as a person at a terminal answers it. */
async function complete(asked) {
  const missing = questions(asked);
  if (missing.length === 0) return asked;
  if (!process.stdin.isTTY || !process.stdout.isTTY) {
    throw new UsageError(`${missing[0].what} is missing`);
  }
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answered = { ...asked };
  try {
    for (const { name, text, fallback } of missing) {
      answered[name] = (await terminal.question(text)).trim() || fallback;
    }
  } finally {
    terminal.close();
  }
  return answered;
}

try {
  const asked = wanted(process.argv.slice(2));
  if (asked.help) {
    console.log(USAGE);
  } else {
    const app = plan(await complete(asked), process.cwd());
    write(app);
    console.log(app.advice);
  }
} catch (error) {
  const isUsage = error instanceof UsageError;
  console.error(`create-tidelog: ${error.message}${isUsage ? `\n\n${USAGE}` : ''}`);
  process.exitCode = isUsage ? WRONG_USAGE : FAILED;
}
