/** What happens to a tab, and what it then wants done; `tab.ts` decides. */

import type { TidelogError } from './errors.js';
import type { LendingEffect, LendingNews } from './lending.js';
import type { Answer, News, ToCore } from './messages.js';
import type { DocumentName } from './ports.js';

/** The kinds of messages that carry a `call`. */
export type CallKind = {
  [Kind in keyof ToCore]: ToCore[Kind] extends { readonly call: number } ? Kind : never;
}[keyof ToCore];

/** Something that happened. `core` is the number of the effect that began it. */
export type Input =
  | LendingNews
  /** The app asks something. Only calls that are `limited` have to settle in ten seconds. */
  | {
      readonly type: 'call';
      readonly kind: CallKind;
      readonly message: ToCore[CallKind];
      readonly limited: boolean;
    }
  /** A live query was closed, or an answer is waited for no longer. */
  | { readonly type: 'giveUp'; readonly call: number }
  /** Something that is not answered. */
  | { readonly type: 'tell'; readonly kind: keyof ToCore; readonly message: object }
  /** The core at this place was told hello. */
  | { readonly type: 'connected'; readonly core: number; readonly place: number }
  /** No core can be reached, or not the one at the address that was found. */
  | {
      readonly type: 'refused';
      readonly core: number;
      readonly reason: string;
      readonly joining: string | undefined;
    }
  /** The core works, and holds this lock for as long as it lives. */
  | { readonly type: 'welcome'; readonly core: number; readonly lock: string }
  /** Another core is at work; a core of another release takes over. */
  | { readonly type: 'elsewhere' | 'replaced'; readonly core: number }
  /** The core cannot go on; of what it died, if that is known. */
  | {
      readonly type: 'died';
      readonly core: number;
      readonly reason: string;
      readonly culprit?: DocumentName | undefined;
    }
  /** The core's lock came free. */
  | { readonly type: 'gone'; readonly core: number }
  /** The core wants its page server to have a way to us. */
  | { readonly type: 'reach'; readonly core: number; readonly server: number }
  /** The core has lost the page server that came in place of ours. */
  | { readonly type: 'lendAgain'; readonly core: number }
  /** The core misses a page server, which nobody lends. */
  | { readonly type: 'lendNow'; readonly core: number }
  /** An answer to a call, from the core, or from the page server past it. */
  | { readonly type: 'answer'; readonly call: number; readonly answer: Answer }
  /** News of a document. */
  | { readonly type: 'news'; readonly core: number; readonly handle: number; readonly news: News }
  /** All of a list of messages from the core was heard, of this size as the core counts. */
  | { readonly type: 'heard'; readonly core: number; readonly size: number }
  /** There is a network again, which every tab hears, looked at or not. */
  | { readonly type: 'online' }
  /** The tab is looked at again. */
  | { readonly type: 'visible' }
  /** The page is frozen, or put into the back/forward cache, and holds nothing there; goes on. */
  | { readonly type: 'hide' | 'show' }
  /** The time has come that `wake` asked for; harmless at any other. */
  | { readonly type: 'wake' };

/** Something to be done. */
export type Effect =
  | LendingEffect
  /**
   * Find a core, unless it is the one that cannot be joined, or start one at this place; then say
   * hello, with the tab's lock held: `connected` or `refused`.
   */
  | {
      readonly type: 'connect';
      readonly core: number;
      readonly unjoinable: string | undefined;
      readonly place: number;
    }
  /** Nothing more is expected of this core. */
  | { readonly type: 'leave'; readonly core: number }
  /** `gone` once this lock comes free. */
  | { readonly type: 'watchLock'; readonly core: number; readonly lock: string }
  /** Tell the core. What is said in one turn of the event loop may travel together. */
  | { readonly type: 'post'; readonly kind: keyof ToCore; readonly message: object }
  /** Give this page server a way to us. */
  | { readonly type: 'reach'; readonly server: number }
  /** Let go of the tab's lock. */
  | { readonly type: 'letGo' }
  /** Tell the caller; it is forgotten if this is the `last` word. */
  | {
      readonly type: 'settle';
      readonly call: number;
      readonly answer: Answer;
      readonly last: boolean;
    }
  /** Tell the document. */
  | { readonly type: 'news'; readonly handle: number; readonly news: News }
  /** Tell the document what is wrong. */
  | { readonly type: 'lost'; readonly handle: number; readonly error: TidelogError }
  /** Say how the device stands, by telling `device`. */
  | { readonly type: 'look' }
  /** `wake` at this time on the clock of `step`, instead of any earlier wish. */
  | { readonly type: 'wake'; readonly at: number };
