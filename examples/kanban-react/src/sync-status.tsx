// How the board stands with its server, and the switch to work without it.

import { indication } from '../../shared/status.ts';
import { useDocument, useStatus } from './doctype.ts';

export function SyncStatus() {
  const db = useDocument();
  const status = useStatus();
  const { tone, label, title } = indication(status ?? null);
  return (
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
  );
}
