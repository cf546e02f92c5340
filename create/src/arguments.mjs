// What a caller wants, from the words of the command line.

import { parseArgs } from 'node:util';

export const TEMPLATES = ['plain', 'react', 'vue', 'svelte'];

export const USAGE = `usage: npm create tidelog FOLDER -- --template ${TEMPLATES.join('|')}

  --template NAME   which app
  --tidelog SPEC    what it depends on: a version, an address, or an archive of npm pack
  --help            this text`;

/** The command was called in a way that cannot work. Nothing was written. */
export class UsageError extends Error {}

/**
 * What was asked for, as far as it was: `{ folder, template, tidelog, help }`.
 *
 * @param {readonly string[]} words
 */
export function wanted(words) {
  const { values, positionals } = parsed(words);
  const [folder, ...more] = positionals;
  if (more.length > 0) throw new UsageError(`one folder is made at a time, not ${more[0]} too`);
  return { folder, ...values };
}

function parsed(words) {
  const options = {
    template: { type: 'string', short: 't' },
    tidelog: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  };
  try {
    return parseArgs({ args: [...words], options, allowPositionals: true });
  } catch (error) {
    // Its first sentence says what is wrong, the others what it guesses.
    throw new UsageError(error.message.split('. ')[0].replace(/^./, (it) => it.toLowerCase()));
  }
}
