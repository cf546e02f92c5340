// What the server has undone, until somebody has read it.

import { useState } from 'react';
import type { Rejection } from 'tidelog';
import { useMutate } from './doctype.ts';

export function Rejections() {
  const [told, setTold] = useState<readonly Rejection[]>([]);
  const without = (id: string) => (all: typeof told) => all.filter((it) => it.id !== id);
  // Each is told at least once; its id tells repeats apart.
  useMutate({ onRejected: (it) => setTold((all) => [...without(it.id)(all), it]) });
  return (
    <div role="alert">
      {told.map(({ id, mutation, args, reason }) => (
        <p key={id} className="banner" data-testid="rejection">
          The server has undone “{mutation} {String(args.title ?? args.text ?? 'a card')}”: {reason}
          <button
            className="icon"
            type="button"
            aria-label="Dismiss"
            onClick={() => setTold(without(id))}
          >
            ×
          </button>
        </p>
      ))}
    </div>
  );
}
