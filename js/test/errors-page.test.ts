import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import {
  CommandFailedError,
  ERROR_CLASSES,
  KeyReusedError,
  StepFailedError,
  UnknownEventError,
  WorkflowCancelledError,
  WorkflowFailedError,
  WorkflowMismatchError,
} from '../src/errors.js';

const source = readFileSync(new URL('../src/errors.ts', import.meta.url), 'utf8');

const ABOVE = `# Errors

Every error is a \`TidelogError\`. Its message says what is wrong and what can be done about it,
its \`code\` is the same in every release, and its \`outcome\` says whether the call left something
behind: with \`none\` nothing was recorded or deleted; with \`unknown\` it may have been, or may yet
be, so look before it is issued again. What is said of outcomes below is the rule: where the engine
died amid a call, any error may come with \`unknown\`.

Errors that belong to no call are in \`db.status.error\` while they last, and told to
\`db.on('error', fn)\`. \`tidelog/node\` has two more classes,
[\`FolderInUseError\`](./node.md#the-folder) and
[\`DueRefusedError\`](./node.md#working-for-many-documents).

<!-- Made of js/src/errors.ts: \`npx vitest run js/test/errors-page --update\` makes it anew. -->
`;

/** What the comment of a class says, in paragraphs. */
function comment(name: string): string[] {
  const [, text] = source.match(
    new RegExp(`/\\*\\*((?:(?!\\*/)[^])*)\\*/\nexport class ${name} `),
  )!;
  return text!
    .replaceAll(/^ *\* ?/gm, '')
    .split('\n\n')
    .map((paragraph) => paragraph.trim().replaceAll('\n', ' '));
}

test('the page of errors says of each its cause, what to do and its outcome', async () => {
  const classes = [
    ...ERROR_CLASSES,
    KeyReusedError,
    CommandFailedError,
    WorkflowFailedError,
    WorkflowCancelledError,
    WorkflowMismatchError,
    StepFailedError,
    UnknownEventError,
  ];
  const sections = classes.map((Class) => {
    const { code, name } = new Class('');
    const [cause, todo, outcome, ...more] = comment(name);
    expect(todo).toMatch(/^What to do: /);
    expect(outcome).toMatch(/^Outcome: (none|unknown)/);
    expect(more).toEqual([]);
    return `\n## ${name}: \`${code}\`\n\n${cause}\n\n${todo}\n\n${outcome}\n`;
  });
  await expect(ABOVE + sections.join('')).toMatchFileSnapshot('../../docs/errors.md');
});
