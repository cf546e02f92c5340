import { Suspense } from 'react';
import { ALL } from '../notes.js';
import { useDocument, useLive, useMutate, useStatus, useSuspenseLive } from './hooks.js';

export function List() {
  const { rows, state } = useLive(ALL);
  const { add } = useMutate();
  const isOpen = useDocument() !== undefined;
  return (
    <>
      <h1>Notes</h1>
      <p id="state">{state}</p>
      <p id="connection">{useStatus()?.connection}</p>
      <ul>
        {rows.map(({ id, text }) => (
          <li key={id}>{text}</li>
        ))}
      </ul>
      <button type="button" disabled={!isOpen} onClick={() => add({ text: `note ${rows.length}` })}>
        Add
      </button>
      <Suspense fallback={<p>waiting</p>}>
        <Count />
      </Suspense>
    </>
  );
}

function Count() {
  const [{ count }] = useSuspenseLive('select count(*) as count from note');
  return <p id="count">{count}</p>;
}
