/** What an app says of its workflows: see {@link workflow}. */

import {
  areTypes,
  EVENTS,
  type ParamTypes,
  type Workflow,
  type WorkflowsCode,
  writeTypes,
} from './doctype.js';
import { DoctypeError } from './errors.js';
import { handleRuns } from './running.js';
import { cancellersOf, resultOf, startersOf } from './starting.js';

/** What {@link workflow} wants to know beside the arguments. */
export interface WorkflowOptions {
  /**
   * A whole number from 1, as by default: which version of its code runs have that are started from
   * now on. One that has begun keeps its own.
   */
  readonly version?: number;
}

/** As much as travels. */
const VERSION_MAX = 2 ** 32 - 1;

/**
 * Defines what takes several steps, and may take long: a run of it goes on wherever `db.handle` has
 * code for it, and what it has done it does not do again.
 *
 * @param fields the types of its arguments, for example `{ order: 'text', note: 'text?' }`.
 *
 * @example
 * ```ts
 * const shop = doctype({
 *   name: 'shop',
 *   migrations: [],
 *   mutations: {},
 *   workflows: { fulfil: workflow({ order: 'text' }, { version: 1 }) },
 * });
 * ```
 */
export function workflow<const Fields extends ParamTypes>(
  fields: Fields,
  { version = 1 }: WorkflowOptions = {},
): Workflow<Fields> {
  const made = { version, fields };
  const flaw = flawOf(made);
  if (flaw) throw new DoctypeError(`a workflow ${flaw}`);
  for (const [name, type] of Object.entries(fields)) {
    if (type.startsWith('blob')) {
      throw new DoctypeError(`argument ${name} of a workflow cannot be a blob, which JSON lacks`);
    }
  }
  return { ...made, [EVENTS]: CODE };
}

function flawOf(workflow: unknown): string | undefined {
  const { version, fields } = Object(workflow) as Partial<Workflow>;
  if (!areTypes(fields))
    return "has arguments, which are types by name: workflow({ order: 'text' })";
  const isVersion = Number.isInteger(version) && version! >= 1 && version! <= VERSION_MAX;
  return isVersion ? undefined : 'has a version, which is a whole number from 1';
}

const CODE: WorkflowsCode = {
  flawOf,
  write(w, { version, fields }) {
    w.u32(version);
    writeTypes(w, fields);
  },
  start: startersOf,
  cancel: cancellersOf,
  outcome: resultOf,
  handle: handleRuns,
};
