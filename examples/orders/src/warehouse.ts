// The warehouse: ships what was paid, for as long as somebody is at work here.
import type { Handling } from 'tidelog/events';
import { at, complain, opened, row } from './pages.ts';

interface Open {
  number: number;
  item: string;
  command: string;
  state: string;
  attempt: number;
}

const OPEN = `
  select number, item, command, command.state, attempt
  from tidelog_commands as command join orders on orders.id = stream
  where command.state in ('received', 'started') order by number limit 100`;

async function show(): Promise<void> {
  const db = await opened();
  db.live<Open>(OPEN).subscribe((commands, error) => {
    if (error) complain(error);
    if (!commands) return;
    at('empty').hidden = commands.length > 0;
    at('commands').replaceChildren(
      ...commands.map((it) => row(it.number, it.item, it.command, it.state, it.attempt)),
    );
  });
  const box = at<HTMLInputElement>('at-work');
  let handling: Handling | undefined;
  box.onchange = async () => {
    await handling?.close();
    handling = !box.checked
      ? undefined
      : db.handle('order', {
          initial: 'sent',
          evolve: { paid: () => 'paid', shipped: () => 'shipped' },
          commands: {
            ship: ({ state, fail }) => (state === 'paid' ? [{ type: 'shipped' }] : fail(state)),
          },
        });
  };
}

show().catch(complain);
