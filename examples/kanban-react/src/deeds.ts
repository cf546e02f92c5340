// What somebody does on the board: a mutation, what is said of it, and what takes it back.

import { useEffect, useEffectEvent, useRef, useState } from 'react';
import { type Receipt, RejectedError } from 'tidelog';

export interface Deed {
  /** What is said once it is done: whoever does not see the board hears it. */
  readonly said: string;
  readonly issue: () => Receipt;
  /** Issues the inverse mutation. */
  readonly inverse?: () => Receipt;
}

export type Deeds = ReturnType<typeof useDeeds>;

/** Carries deeds out, and takes back those of this tab, the newest first. */
export function useDeeds() {
  const [said, say] = useState('');
  const [undoable, setUndoable] = useState<Deed>();
  // Not a state: whoever presses Undo twice before the board is drawn anew takes two deeds back.
  const stack = useRef<readonly Deed[]>([]);
  const restack = (deeds: readonly Deed[]) => {
    stack.current = deeds;
    setUndoable(deeds.at(-1));
  };

  /** Says whether it is on this device's disk. */
  const carryOut = async (deed: Deed): Promise<boolean> => {
    const forget = () => restack(stack.current.filter((it) => it !== deed));
    try {
      const receipt = deed.issue();
      // At once: whoever presses Undo next, however slow the disk, means this deed.
      if (deed.inverse) restack([...stack.current, deed]);
      // What the server refuses is undone already.
      receipt.confirmed.catch(forget);
      await receipt;
    } catch (error) {
      forget();
      const refusal = error instanceof RejectedError && error.reason;
      say(refusal ? `Not taken: ${refusal}` : (error as Error).message);
      return false;
    }
    say(deed.said);
    return true;
  };

  const undo = () => {
    const deed = stack.current.at(-1);
    if (!deed?.inverse) return;
    restack(stack.current.slice(0, -1));
    carryOut({ said: `Undone: ${deed.said}`, issue: deed.inverse });
  };

  const onKey = useEffectEvent((event: KeyboardEvent) => {
    const isUndo = event.key === 'z' && (event.ctrlKey || event.metaKey) && !event.shiftKey;
    // In a field it takes back what was typed.
    if (!isUndo || event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    undo();
  });
  useEffect(() => {
    const listener = (event: KeyboardEvent) => onKey(event);
    addEventListener('keydown', listener);
    return () => removeEventListener('keydown', listener);
  }, []);

  return { carryOut, undo, undoable, said };
}
