// What an empty shop shows: what this is, and where rows can come from.

import { h } from '../../shared/dom.ts';

export interface WelcomeActions {
  pickFile(): void;
  loadSmallShop(): void;
}

export function welcome(name: string, { pickFile, loadSmallShop }: WelcomeActions): HTMLElement {
  const button = (label: string, testId: string, isPrimary: boolean, run: () => void) =>
    h(
      'button',
      {
        class: isPrimary ? 'button primary' : 'button',
        type: 'button',
        'data-testid': testId,
        onclick: run,
      },
      label,
    );
  return h(
    'div',
    { class: 'welcome', 'data-testid': 'welcome' },
    h('h2', null, `“${name}” is an empty shop`),
    h(
      'p',
      null,
      'It is a SQLite database in this browser. Fill it, and every row arrives by a mutation: at ' +
        'once here and in your other tabs, and on the server as soon as that can be reached.',
    ),
    h(
      'div',
      { class: 'choices' },
      h(
        'div',
        { class: 'choice' },
        h('h3', null, 'The Chinook database'),
        h(
          'p',
          null,
          'Pick ',
          h('code', null, 'Chinook_Sqlite.sql'),
          ', or drop it anywhere on this page: 275 artists, 3,503 tracks, 412 invoices.',
        ),
        button('Pick a SQL file…', 'import-file', true, pickFile),
      ),
      h(
        'div',
        { class: 'choice' },
        h('h3', null, 'A small shop'),
        h('p', null, 'No file at hand? Six invented artists, sixty tracks and their first sales.'),
        button('Load the small shop', 'import-small', false, loadSmallShop),
      ),
    ),
  );
}
