// Between the simulator and the tabs that it runs.

import * as errors from './errors.js';
import { Tab } from './tab.js';

const tabs = new Map();

const classes = new Map(
  Object.values(errors)
    .filter((it) => it.prototype instanceof errors.TidelogError)
    .map((Class) => [Class.prototype.code, Class]),
);

// A replacer would be called for every value.
errors.TidelogError.prototype.toJSON = function () {
  return { code: this.code, outcome: this.outcome, message: this.message };
};

/** Takes an input, in which an error is its code, outcome and message. */
globalThis.step = (tab, now, input) => {
  const machine = tabs.get(tab) ?? new Tab();
  tabs.set(tab, machine);
  const { error } = input.answer ?? {};
  if (error) input.answer.error = new (classes.get(error.code))(error.message, error);
  return machine.step(now, input);
};

/** The same in JSON. */
globalThis.stepJson = (tab, now, json) => JSON.stringify(step(tab, now, JSON.parse(json)));

/** What the app is given to name a call, or a document. */
globalThis.number = (tab, kind) => {
  const machine = tabs.get(tab) ?? new Tab();
  tabs.set(tab, machine);
  return kind === 'call' ? machine.newCall() : machine.newHandle();
};

globalThis.forget = (tab) => tabs.delete(tab);
