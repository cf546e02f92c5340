/** Where an app has called from, which an error says that comes later: while it is developed. */

import type { TidelogError } from './errors.js';

/** What Vite and webpack say of what they make of a module. */
export interface BundledMeta {
  /** Whether it is for users: then what depends on it not being so is left out. */
  readonly env?: { readonly PROD?: boolean };
}

/** Node's own, where there is one. */
interface WithProcess {
  readonly process?: { readonly env?: { readonly NODE_ENV?: string } };
}

/** Where the app is calling from; undefined in a process of Node that is for users. */
export function calling(): Error | undefined {
  const { process } = globalThis as WithProcess;
  return process?.env?.NODE_ENV === 'production' ? undefined : new Error();
}

/** The same error as that of one call: its stack is that of `call`, which was made there. */
export function calledAt(call: Error, error: TidelogError): TidelogError {
  const Class = error.constructor as new (message: string, details: object) => TidelogError;
  // Others may have been told the same one.
  const told = new Class(error.message, error);
  // Only V8 says above its frames what was thrown.
  told.stack = call.stack?.replace(/^Error:? ?\n/, () => `${told}\n`) ?? told.stack ?? '';
  return told;
}
