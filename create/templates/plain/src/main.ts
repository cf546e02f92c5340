import { open, RejectedError } from 'tidelog';
import { ALL, place, type Todo, todos } from './todos';

const list = document.querySelector('ul')!;
const form = document.querySelector('form')!;
const status = document.querySelector('.status')!;
const wrong = document.querySelector('[role=alert]')!;

// The reason of a rejection is for users; its message names the mutation, too.
const tell = (error: unknown): void =>
  alert(error instanceof RejectedError ? error.reason : (error as Error).message);

const opened = open(todos, place);
opened.then(show, (error: Error) => {
  wrong.textContent = error.message;
});

form.onsubmit = async (event) => {
  event.preventDefault();
  try {
    const db = await opened;
    await db.mutate.add({ title: String(new FormData(form).get('title')) });
    form.reset();
  } catch (error) {
    tell(error);
  }
};

function show(db: Awaited<typeof opened>): void {
  const item = ({ id, title, done }: Todo): HTMLElement => {
    const box = document.createElement('input');
    box.type = 'checkbox';
    box.checked = done === 1;
    box.onchange = () => db.mutate.check({ id, done: box.checked }).catch(tell);
    const label = document.createElement('label');
    label.append(box, ` ${title} `);
    const remove = document.createElement('button');
    remove.type = 'button';
    remove.textContent = 'Remove';
    remove.onclick = () => db.mutate.remove({ id }).catch(tell);
    const row = document.createElement('li');
    row.append(label, remove);
    return row;
  };
  // Now, and whenever the rows change, in whichever tab or device.
  db.live<Todo>(ALL).subscribe((rows = [], error) => {
    if (error) console.error(error.message);
    list.replaceChildren(...rows.map(item));
  });

  const showStatus = (): void => {
    const { connection, pending, error } = db.status;
    status.textContent = `${connection}, ${pending} to be confirmed`;
    wrong.textContent = error?.message ?? '';
  };
  db.on('status', showStatus);
  showStatus();

  // What the server has taken back, whichever tab issued it, and whenever.
  db.on('rejected', ({ reason }) => alert(reason));
}
