// What is asked of whoever did not say it.

import { TEMPLATES } from './arguments.mjs';

const FOLDER = {
  name: 'folder',
  what: 'the folder',
  text: 'Folder of the app (my-app): ',
  fallback: 'my-app',
};

const TEMPLATE = {
  name: 'template',
  what: 'the template',
  text: `Template, one of ${TEMPLATES.join(', ')} (plain): `,
  fallback: 'plain',
};

/** The questions that are left, in the order in which to ask them. */
export const questions = (asked) =>
  [FOLDER, TEMPLATE].filter(({ name }) => asked[name] === undefined);
