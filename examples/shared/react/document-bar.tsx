// The top of a page: how its document stands with the server, the switch to work without it, what
// is wrong, and what the server has undone, until somebody has read it.

import { useEffect, useState } from 'react';
import type { Rejection, Status, TidelogError } from 'tidelog';
import { onRejected } from '../rejections.ts';
import { type AnyDatabase, alarming, indication } from '../status.ts';

interface DocumentBarProps {
  name: string;
  /** Undefined until it is open, as is its status. */
  db: AnyDatabase | undefined;
  status: Status | undefined;
  /** Why what the page shows cannot be shown. */
  error: TidelogError | null;
}

export function DocumentBar({ name, db, status, error }: DocumentBarProps) {
  const { tone, label, title } = indication(status ?? null);
  const problem = error ?? (status && alarming(status));
  return (
    <>
      <header>
        <h1>{name}</h1>
        <div className="bar">
          <span
            className="pill"
            role="status"
            title={title}
            data-testid="status"
            data-tone={tone}
            data-connection={status?.connection}
            data-pending={status?.pending}
          >
            <span className="dot" aria-hidden="true" />
            {label}
          </span>
          {db && status && status.connection !== 'local' && (
            <label className="plain">
              <input
                type="checkbox"
                role="switch"
                aria-checked={status.away}
                data-testid="offline-toggle"
                checked={status.away}
                onChange={() => (status.away ? db.connect() : db.disconnect())}
              />{' '}
              Work offline
            </label>
          )}
        </div>
      </header>
      {problem && (
        <p className="banner" role="alert" data-testid="error">
          {problem.message}
        </p>
      )}
      <Rejections db={db} />
    </>
  );
}

function Rejections({ db }: Pick<DocumentBarProps, 'db'>) {
  const [told, setTold] = useState<readonly Rejection[]>([]);
  const without = (id: string) => (all: typeof told) => all.filter((it) => it.id !== id);
  useEffect(
    () => db && onRejected(db, (it) => setTold((all) => [...without(it.id)(all), it])),
    [db],
  );
  return (
    <div role="alert">
      {told.map(({ id, mutation, args, reason }) => (
        <p key={id} className="banner" data-testid="rejection">
          The server has undone “{[mutation, args.title ?? args.text].join(' ').trim()}”: {reason}
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
