/** What travels between a tab in Node and the thread of its engine. */

import type { Bytes } from '../codec.js';
import type { DocumentName } from '../ports.js';

/** What the engine's thread is started with. */
export interface EngineData {
  /** The folder that the store's files lie in; absent for a store in memory. */
  readonly folder: string | undefined;
  /** Whether it only removes these files. */
  readonly removes: boolean;
}

/**
 * What the thread is told, some at a time: lists of messages for the core, and what its sockets
 * hear.
 */
export type ToEngine =
  | Bytes
  | { readonly type: 'socketOpened' | 'socketClosed'; readonly socket: number }
  | { readonly type: 'socketMessage'; readonly socket: number; readonly message: Bytes }
  /** Nothing is open any more: let go of the folder and end. */
  | { readonly type: 'end' };

/** Why the thread does not start. */
export interface Refused {
  readonly type: 'refused';
  readonly kind: 'in-use' | 'full' | 'unavailable' | 'engine';
  readonly reason: string;
}

/** What the thread says, some at a time. */
export type FromEngine =
  | Bytes
  | Refused
  /** It has the folder, and its core works; the files were removed. */
  | { readonly type: 'ready' | 'removed' }
  /** The core cannot go on, and was at work on this document, if on any. */
  | {
      readonly type: 'died';
      readonly reason: string;
      readonly culprit: DocumentName | undefined;
    }
  | { readonly type: 'openSocket'; readonly socket: number; readonly url: string }
  | { readonly type: 'toServer'; readonly socket: number; readonly message: Bytes }
  | { readonly type: 'closeSocket'; readonly socket: number };
