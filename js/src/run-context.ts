/** What the code of a workflow does by its context: see `WorkflowContext`. */

import { argumentBinder, isText, type Streams, type Workflow, type Workflows } from './doctype.js';
import { type Duration, millisecondsOf } from './durations.js';
import { CommandFailedError, InvalidOptionError } from './errors.js';
import { readEvents, recordedOf } from './event-rows.js';
import type { RecordedEvent } from './events.js';
import type { Run } from './run.js';
import { Ended } from './run-end.js';
import type {
  Named,
  RequestOptions,
  StepOptions,
  WaitOptions,
  WorkflowContext,
} from './running.js';
import { COMMAND_KEY_SIZE_MAX, commandFunctions, jsonOf, type Sent } from './sending.js';
import { failedRun, type Starting, startFunctions } from './starting.js';
import { sizeOf, type Tried, tryOften, UnkeepableError } from './trying.js';

/** Limit of crate `types`. */
const RECORD_NAME_SIZE_MAX = 256;

/** How often a step is tried again, and how long a try may take, where nothing is said of that. */
const RETRIES = 5;
const TIMEOUT = '30s';

const TIMER_MS_MAX = 2 ** 31 - 1;

/** The context of a run, for its code. */
export function contextOf(run: Run): WorkflowContext {
  const { document, given } = run;
  const { doctype, connection } = document;
  const { streams = {}, workflows = {} } = doctype;
  const { uuid } = connection.host;
  const ctx = {
    ...{ workflow: given.workflow, id: given.id, version: given.version },
    ...{ attempt: given.attempt, run: given, signal: run.signal },
    get now() {
      return run.now;
    },
    random: run.random,
    step: (name: unknown, code: StepCode, options: StepOptions = {}) =>
      work(run, 'step', name, options, () => ({ once: (signal) => code({ signal }) })),
    request: (name: unknown, code: RequestCode, options: RequestOptions = {}) =>
      work(run, 'request', name, options, (count) => {
        const key = run.keyOf(name as string, count);
        return { once: async (signal) => kept(await code({ key, signal }), options) };
      }),
    sleep: (duration: unknown, options?: Named) => sleep(run, duration, options),
    waitFor: (...wanted: Waiting) => waitFor(run, streams, wanted),
    send: commandFunctions(
      doctype.name,
      streams,
      uuid,
      (called) => idOf(run, `send:${called}`),
      (sent) => send(run, sent),
    ),
    start: startFunctions(
      doctype.name,
      workflows,
      uuid,
      (workflow) => idOf(run, `start:${workflow}`),
      (starting) => start(run, starting),
    ),
    continueAsNew: (args: unknown) => continueAsNew(run, workflows, args),
    fail(reason: unknown): never {
      throw new Ended({ reason: String(reason), isFinal: true });
    },
  };
  return ctx as unknown as WorkflowContext;
}

type StepCode = (step: { readonly signal: AbortSignal }) => unknown;
type RequestCode = (request: { readonly key: string; readonly signal: AbortSignal }) => unknown;
type Waiting = readonly [aggregate: string, stream: string, type: string, options?: WaitOptions];

function checkedName(name: unknown): string {
  if (isText(name) && name !== '' && sizeOf(name) <= RECORD_NAME_SIZE_MAX) return name;
  throw new InvalidOptionError(
    `what a run records has a name, a string of 1 to ${RECORD_NAME_SIZE_MAX} bytes`,
  );
}

function checkedTime(what: string, given: unknown, most: number): number {
  const ms = millisecondsOf(given, 'smhd', most);
  if (ms !== undefined) return ms;
  throw new InvalidOptionError(
    `${what} has to be milliseconds, or a text as '30s', '5m', '2h' or '3d'`,
  );
}

/** What is done here. */
function work(
  run: Run,
  kind: 'step' | 'request',
  given: unknown,
  { retries = RETRIES, timeout = TIMEOUT as Duration }: StepOptions,
  make: (count: number) => { once(signal: AbortSignal): unknown },
): Promise<unknown> {
  const name = checkedName(given);
  const { signal, tell, whenOver } = run;
  const { host } = run.document.connection;
  const ms = checkedTime(`timeout of ${name}`, timeout, TIMER_MS_MAX);
  if (!Number.isInteger(retries) || retries < 0) {
    throw new InvalidOptionError(`retries of ${name} have to be a whole number, from 0`);
  }
  return run.ask({
    name,
    kind,
    answer: (result) => JSON.parse(String(result)) as unknown,
    ...(kind === 'request' && { begin: () => ({ what: 'begun' }) as const }),
    async work(count) {
      const { once } = make(count);
      const of = { once, retries, timeout: ms, signal, host, tell, whenOver };
      const tried: Tried = await tryOften(of);
      return tried && ({ what: 'result' in tried ? 'done' : 'failed', kind, ...tried } as never);
    },
  });
}

/** What is recorded of a request's result. */
function kept(result: unknown, { keep }: RequestOptions): unknown {
  if (keep) return keep(result);
  if (typeof Response === 'function' && result instanceof Response) {
    throw new UnkeepableError(
      'a Response is no JSON: say what is kept of it, { keep: (response) => response.json() }',
    );
  }
  return result;
}

function sleep(run: Run, duration: unknown, { name = 'sleep' }: Named = {}): Promise<unknown> {
  const ms = checkedTime('how long a run sleeps', duration, Number.MAX_SAFE_INTEGER);
  return run.ask({
    name: checkedName(name),
    kind: 'sleep',
    answer: () => undefined,
    begin: () => ({ what: 'sleep', ms }),
  });
}

function waitFor(
  run: Run,
  streams: Streams,
  [aggregate, stream, event, options = {}]: Waiting,
): Promise<unknown> {
  const { name = `waitFor:${aggregate}.${event}`, timeout } = options;
  const there = Object.hasOwn(streams, aggregate) ? Object.keys(streams[aggregate]!.events) : [];
  if (!there.includes(event)) {
    throw new InvalidOptionError(`there is no event ${event} of ${aggregate}: it has ${there}`);
  }
  if (!isText(stream)) throw new InvalidOptionError(`which ${aggregate} has to be a string`);
  const ms =
    timeout === undefined
      ? 0
      : // None at all would be for as long as it takes.
        Math.max(1, checkedTime('how long a run waits', timeout, Number.MAX_SAFE_INTEGER));
  return run.ask({
    name: checkedName(name),
    kind: 'event',
    answer: (sequence) => (sequence === null ? null : readEvent(run, aggregate, stream, sequence)),
    begin: () => ({ what: 'waitFor', aggregate, stream, event, timeout: ms }),
  });
}

async function readEvent(
  { document, signal }: Run,
  aggregate: string,
  stream: string,
  sequence: string,
): Promise<RecordedEvent> {
  const after = Number(sequence) - 1;
  const wanted = { aggregate, stream, types: [], after, waits: true, consumer: undefined };
  const [row] = await readEvents(document, wanted, signal);
  return recordedOf(row!);
}

/** The key of a command, or the id of a run, that is the same each time. */
function idOf(run: Run, name: string): string {
  const count = run.countOf(name);
  const key = run.keyOf(name, count);
  // Runs that start runs have longer and longer ones.
  return sizeOf(key) <= COMMAND_KEY_SIZE_MAX ? key : `~${run.given.number}/${name}/${count}`;
}

function send(run: Run, { bound: _, ...command }: Sent): Promise<unknown> {
  const { aggregate, stream, name, key } = command;
  return run.ask({
    name: checkedName(`send:${aggregate}.${name}`),
    kind: 'command',
    answer(result) {
      const { first, last } = Object(JSON.parse(String(result))) as Record<string, unknown>;
      return first == null ? null : { first, last };
    },
    failure(reason) {
      const message = `command ${name} of ${aggregate} ${stream} has failed: ${reason}`;
      const details = { command: { aggregate, stream, name, key }, reason };
      return new CommandFailedError(message, details);
    },
    begin: () => ({ what: 'send', ...command }),
  });
}

function start(run: Run, { workflow, id, args }: Starting): Promise<unknown> {
  return run.ask({
    name: checkedName(`start:${workflow}`),
    kind: 'workflow',
    answer: (result) => JSON.parse(String(result)) as unknown,
    failure: (reason) => failedRun(workflow, id, reason),
    begin: () => ({ what: 'start', workflow, id, args }),
  });
}

function continueAsNew({ given, document }: Run, workflows: Workflows, args: unknown): never {
  const { fields }: Workflow = workflows[given.workflow]!;
  const bind = argumentBinder(given.workflow, fields, document.connection.host.uuid);
  throw new Ended({ args: jsonOf(fields, bind(args)) });
}
