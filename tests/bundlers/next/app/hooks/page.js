'use client';

import { Suspense } from 'react';
import { Provider, useLive, useMutate, useSuspenseLive } from '../../../hooks/react/hooks.js';

export default function Page() {
  return (
    <Provider document="of next">
      <State />
      <Suspense fallback={<p>waiting</p>}>
        <Count />
      </Suspense>
    </Provider>
  );
}

function State() {
  const { rows, state } = useLive('select text from note order by text');
  const mutate = useMutate();
  const add = () => mutate.add({ text: `note ${rows.length}` });
  return (
    <button type="button" id="state" onClick={add}>
      {state}
    </button>
  );
}

function Count() {
  const [{ count }] = useSuspenseLive('select count(*) as count from note');
  return <p id="count">{count}</p>;
}
