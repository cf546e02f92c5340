// What is read and pressed on the pages of the examples.

import { inRoot } from './places.mjs';
import { eventually } from './time.mjs';

export const at = (id) => `[data-testid="${id}"]`;

/** The examples, built and served as `npm start` does. */
export const examplesServer = (stage) => stage.server({ args: ['--serve', inRoot('examples')] });

export const click = (page, id) =>
  page.evaluate((selector) => document.querySelector(selector).click(), at(id));

/** Waits until the sync indicator says so. */
export async function statusIs(page, wanted) {
  await eventually(
    () =>
      page.evaluate(
        ([selector, wanted]) => {
          // A page may be loaded before it is drawn.
          const { dataset = {} } = document.querySelector(selector) ?? {};
          return Object.entries(wanted).every(([key, value]) => dataset[key] === String(value));
        },
        [at('status'), wanted],
      ),
    { what: JSON.stringify(wanted) },
  );
}

/** Presses keys one after the other: names of keys, or texts to type in a list. */
export async function press(page, ...keys) {
  for (const key of keys) {
    if (Array.isArray(key)) await page.keyboard.type(key[0]);
    else await page.keyboard.press(key);
  }
}
