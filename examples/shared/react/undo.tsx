// What somebody does in this tab: a mutation, what is said of it, and what takes it back; and the
// bar that says it.

import { useEffect, useEffectEvent, useRef, useState } from 'react';
import { type Receipt, RejectedError } from 'tidelog';

interface Deed {
  readonly said: string;
  /** Issues the inverse mutation. */
  readonly inverse: () => Receipt;
}

export type Undo = ReturnType<typeof useUndo>;

/** Carries deeds out, and takes back those of this tab, the newest first, also by Ctrl Z. */
export function useUndo() {
  const [said, say] = useState('');
  const [undoable, setUndoable] = useState<string>();
  // Not a state: whoever presses Undo twice before the page is drawn anew takes two deeds back.
  const stack = useRef<readonly Deed[]>([]);
  const restack = (deeds: readonly Deed[]) => {
    stack.current = deeds;
    setUndoable(deeds.at(-1)?.said);
  };

  /**
   * Says whether it is on this device's disk.
   *
   * @param done what is said then: whoever does not see the page hears it.
   */
  const carryOut = async (
    done: string,
    issue: () => Receipt,
    inverse?: () => Receipt,
  ): Promise<boolean> => {
    const deed = inverse && { said: done, inverse };
    const forget = () => restack(stack.current.filter((it) => it !== deed));
    try {
      const receipt = issue();
      // At once: whoever presses Undo next, however slow the disk, means this deed.
      if (deed) restack([...stack.current, deed]);
      // What the server refuses is undone already.
      receipt.confirmed.catch(forget);
      await receipt;
    } catch (error) {
      forget();
      const refusal = error instanceof RejectedError && error.reason;
      say(refusal ? `Not taken: ${refusal}` : (error as Error).message);
      return false;
    }
    say(done);
    return true;
  };

  const undo = () => {
    const deed = stack.current.at(-1);
    if (!deed) return;
    restack(stack.current.slice(0, -1));
    carryOut(`Undone: ${deed.said}`, deed.inverse);
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

export function UndoBar({ said, undo, undoable }: Undo) {
  return (
    <>
      <p role="status" data-testid="said">
        {said}
      </p>
      <button
        className="button"
        type="button"
        data-testid="undo"
        title={undoable ? `Undo: ${undoable} (Ctrl Z)` : 'Nothing to undo in this tab'}
        aria-disabled={!undoable}
        onClick={undo}
      >
        Undo
      </button>
    </>
  );
}
