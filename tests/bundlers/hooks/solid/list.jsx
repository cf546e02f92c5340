import { For } from 'solid-js';
import { ALL } from '../notes.js';
import { useDocument, useLive, useMutate, useStatus } from './hooks.js';

export function List() {
  const all = useLive(ALL);
  const counts = useLive(() => 'select count(*) as count from note');
  const { add } = useMutate();
  const status = useStatus();
  const open = useDocument();
  return (
    <>
      <h1>Notes</h1>
      <p id="state">{all().state}</p>
      <p id="connection">{status()?.connection}</p>
      <ul>
        <For each={all().rows}>{({ text }) => <li>{text}</li>}</For>
      </ul>
      <button
        type="button"
        disabled={!open()}
        onClick={() => add({ text: `note ${all().rows.length}` })}
      >
        Add
      </button>
      <p id="count">{counts().rows[0]?.count}</p>
    </>
  );
}
