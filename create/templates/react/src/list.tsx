import { RejectedError } from 'tidelog';
import { useLive, useMutate, useStatus } from './hooks';
import { ALL, type Todo } from './todos';

// The reason of a rejection is for users; its message names the mutation, too.
const tell = (error: unknown): void =>
  alert(error instanceof RejectedError ? error.reason : (error as Error).message);

export function List() {
  const { rows, error, state } = useLive<Todo>(ALL);
  // In one component only: each that listens is told what the server takes back, in every tab.
  const { add, check, remove } = useMutate({ onRejected: ({ reason }) => alert(reason) });
  const status = useStatus();
  if (error) return <p>{error.message}</p>;
  if (state === 'loading') return <p>Loading</p>;

  const submit = async (form: HTMLFormElement) => {
    try {
      await add({ title: String(new FormData(form).get('title')) });
      form.reset();
    } catch (error) {
      tell(error);
    }
  };
  return (
    <main>
      <h1>Groceries</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          submit(event.currentTarget);
        }}
      >
        <input name="title" autoComplete="off" placeholder="What is needed?" />
        <button type="submit">Add</button>
      </form>
      <ul>
        {rows.map(({ id, title, done }) => (
          <li key={id}>
            <label>
              <input
                type="checkbox"
                checked={done === 1}
                onChange={(event) => check({ id, done: event.target.checked }).catch(tell)}
              />{' '}
              {title}{' '}
            </label>
            <button type="button" onClick={() => remove({ id }).catch(tell)}>
              Remove
            </button>
          </li>
        ))}
      </ul>
      <p role="alert">{status?.error?.message}</p>
      <p className="status">
        {status?.connection}, {status?.pending} to be confirmed
      </p>
    </main>
  );
}
