/**
 * What is asked of the core about commands, as it travels: see `protocol.rs` in crate `client`, and
 * `commands.rs` in crate `document`.
 */

import { type Bytes, Writer } from './codec.js';
import type { CommandName } from './errors.js';

/** A command to be sent, its arguments a JSON object. */
export interface NewCommand extends CommandName {
  readonly args: string;
}

/** What an attempt came to: events, each with its type and a JSON object, and commands; or none. */
export type Decision =
  | {
      readonly events: readonly (readonly [type: string, data: string])[];
      readonly sends: readonly NewCommand[];
    }
  | { readonly reason: string; readonly isFinal: boolean };

/** Which attempt that was, and by how many events of its stream it was decided. */
export interface Completion {
  readonly command: number;
  readonly attempt: number;
  readonly position: number;
  readonly decision: Decision;
}

/** What becomes of this command? */
export function outcomeRequest({ aggregate, stream, name, key }: CommandName): Bytes {
  const w = new Writer();
  for (const text of [aggregate, stream, name, key]) w.text(text);
  return w.take();
}

/** Commands of these names are handled, so many at a time. */
export function handleRequest(
  aggregate: string,
  names: readonly string[],
  concurrency: number,
): Bytes {
  const w = new Writer();
  w.list(names, (name) => {
    w.text(aggregate);
    w.text(name);
  });
  w.u32(concurrency);
  return w.take();
}

/** An attempt has ended, at what that call handles. */
export function completeRequest(
  handling: number,
  { command, attempt, position, decision }: Completion,
): Bytes {
  const w = new Writer();
  w.u32(handling);
  for (const number of [command, attempt, position]) w.u64(number);
  if ('reason' in decision) {
    w.u32(1);
    w.text(decision.reason);
    w.u8(decision.isFinal);
    return w.take();
  }
  w.u32(0);
  w.list(decision.events, ([type, data]) => {
    w.text(type);
    w.text(data);
  });
  w.list(decision.sends, ({ aggregate, stream, name, args, key }) => {
    for (const text of [aggregate, stream, name, args, key]) w.text(text);
  });
  return w.take();
}
