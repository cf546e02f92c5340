/** Starting runs of workflows, cancelling them, and what they come to: `db.start`, `db.cancel`. */

import { type NewRun, outcomeRequest } from './command-requests.js';
import {
  type Arguments,
  argumentBinder,
  type Bound,
  type IssuedArguments,
  isText,
  type ParamTypes,
  unbindArguments,
  type Workflow,
  type Workflows,
} from './doctype.js';
import {
  InvalidOptionError,
  type TidelogError,
  UnknownMutationError,
  WorkflowCancelledError,
  WorkflowFailedError,
} from './errors.js';
import { issue, type Receipt } from './receipt.js';
import { COMMAND_KEY_SIZE_MAX, type GivenData, jsonOf, named, orUnknown } from './sending.js';
import type { OpenStreams } from './streams.js';

/** How a run is started. */
export interface StartOptions {
  /**
   * Which run it is: of one workflow each id counts once, from whichever device, so that what is
   * started again is the same run. Where none is given a UUID is drawn.
   */
  readonly id?: string | undefined;
}

/** What becomes of a run: a {@link Receipt} of the mutation that starts it, and of its end. */
export interface WorkflowReceipt<Args = Readonly<Record<string, unknown>>> extends Receipt<Args> {
  /** Which run it is. */
  readonly id: string;
  /**
   * What its code has returned, as JSON, once it is over, however long that takes. Rejects with
   * `WorkflowFailedError` where it has failed, with `WorkflowCancelledError` where it was
   * cancelled, and as `confirmed` does where it was not started. Nobody has to listen to it.
   */
  readonly completed: Promise<unknown>;
}

/** The arguments of a workflow, as they are declared. */
export type FieldsOf<Of extends Workflow> = Of extends Workflow<infer Fields> ? Fields : never;

/** A function that starts runs of one workflow. */
type StartOne<Fields extends ParamTypes, Started> =
  Record<never, never> extends Arguments<Fields>
    ? (args?: GivenData<Fields>, options?: StartOptions) => Started
    : (args: GivenData<Fields>, options?: StartOptions) => Started;

/** The workflows of a doctype as functions that start a run; of any doctype whatever. */
export type Start<Flows extends Workflows> = string extends keyof Flows
  ? unknown
  : {
      readonly [Name in keyof Flows & string]: StartOne<
        FieldsOf<Flows[Name]>,
        WorkflowReceipt<IssuedArguments<FieldsOf<Flows[Name]>>>
      >;
    };

/** The same from a handler of commands, or from a run: what it is answered by. */
export type StartLater<Flows extends Workflows, Started = void> = {
  readonly [Name in keyof Flows & string]: StartOne<FieldsOf<Flows[Name]>, Started>;
};

/** The workflows of a doctype as functions that cancel a run by its id; of any doctype whatever. */
export type Cancel<Flows extends Workflows> = string extends keyof Flows
  ? unknown
  : {
      readonly [Name in keyof Flows & string]: (id: string) => Receipt<{ readonly id: string }>;
    };

/** A run to be started, with its arguments as they were bound. */
export interface Starting extends NewRun {
  readonly bound: Bound;
}

/** Functions for workflows, each of which gives what it is asked to `start`. */
export function startFunctions(
  doctype: string,
  workflows: Workflows,
  drawUuid: () => string,
  idOf: (workflow: string) => string,
  start: (starting: Starting, fields: ParamTypes) => unknown,
): object {
  return forEach(doctype, workflows, (workflow, { fields }) => {
    const bind = argumentBinder(workflow, fields, drawUuid);
    return (args: unknown, { id }: StartOptions = {}): unknown => {
      const bound = bind(args);
      const of = { workflow, id: checkedId(workflow, id ?? idOf(workflow)) };
      return start({ ...of, bound, args: jsonOf(fields, bound) }, fields);
    };
  });
}

function forEach(
  doctype: string,
  workflows: Workflows,
  make: (name: string, workflow: Workflow) => unknown,
): object {
  const functions = Object.entries(workflows).map(([name, it]) => [name, make(name, it)] as const);
  return orUnknown(`${doctype} has no workflow`, Object.fromEntries(functions));
}

function checkedId(workflow: string, id: unknown): string {
  const bytes = isText(id) ? new TextEncoder().encode(id).length : 0;
  if (bytes >= 1 && bytes <= COMMAND_KEY_SIZE_MAX) return id as string;
  throw new InvalidOptionError(
    `which run of ${workflow} has to be a string of 1 to ${COMMAND_KEY_SIZE_MAX} bytes`,
  );
}

/** The functions of `db.start`. */
export function startersOf(document: OpenStreams): object {
  const { doctype, connection } = document;
  const { uuid } = connection.host;
  const start = ({ workflow, id, args, bound }: Starting, fields: ParamTypes): Receipt => {
    const issued = issue(() => unbindArguments(fields, Object.fromEntries(bound)));
    let completed: Promise<unknown> | undefined;
    Object.defineProperties(issued.receipt, {
      id: { value: id },
      completed: {
        get() {
          completed ??= issued.receipt.confirmed.then(() => askResult(document, workflow, id));
          completed.catch(() => {});
          return completed;
        },
      },
    });
    const failed = (error: TidelogError, last: boolean): void => issued.failed(named(error), last);
    return document.mutate(`start:${workflow}`, Object.entries({ id, args }), {
      ...issued,
      failed,
    });
  };
  return startFunctions(doctype.name, doctype.workflows ?? {}, uuid, uuid, start);
}

/** The functions of `db.cancel`. */
export function cancellersOf(document: OpenStreams): object {
  const { name, workflows = {} } = document.doctype;
  return forEach(name, workflows, (workflow) => (given: unknown): Receipt => {
    const id = checkedId(workflow, given);
    return document.mutate(
      `cancel:${workflow}`,
      [['id', id]],
      issue(() => ({ id })),
    );
  });
}

/** `db.outcome`, of a run. */
export function resultOf(document: OpenStreams, given: readonly unknown[]): unknown {
  const [workflow, id, options] = given as readonly string[];
  const { name, workflows = {} } = document.doctype;
  if (!Object.hasOwn(workflows, workflow!)) {
    const there = Object.keys(workflows);
    throw new UnknownMutationError(`${name} has no workflow ${workflow}: it has ${there}`);
  }
  const { signal } = Object(options) as { signal?: AbortSignal };
  return askResult(document, workflow!, checkedId(workflow!, id), signal);
}

/** Waits until a run is over. */
async function askResult(
  document: OpenStreams,
  workflow: string,
  id: string,
  signal?: AbortSignal,
): Promise<unknown> {
  const request = outcomeRequest({ aggregate: workflow, stream: id, name: '', key: id });
  const [row] = await document.rows('outcome', { request }, signal);
  const said = `run ${id} of workflow ${workflow}`;
  if (!row) {
    const reason = 'nobody knows any more what became of it';
    const details = { outcome: 'unknown', workflow, id, reason } as const;
    throw new WorkflowFailedError(`${said}: ${reason}`, details);
  }
  if (row.state === 'completed') return row.result === null ? null : JSON.parse(`${row.result}`);
  if (row.state === 'cancelled') {
    const details = { workflow, id, reason: 'cancelled' };
    throw new WorkflowCancelledError(`${said} was cancelled`, details);
  }
  throw failedRun(workflow, id, String(row.reason));
}

/** What those are told who wait for a run that has failed. */
export function failedRun(workflow: string, id: string, reason: string): WorkflowFailedError {
  const message = `run ${id} of workflow ${workflow} has failed: ${reason}`;
  return new WorkflowFailedError(message, { workflow, id, reason });
}
