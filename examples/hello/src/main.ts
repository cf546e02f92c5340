// A list that all tabs share, that outlives the browser, works offline, and syncs.

import { doctype, mutation, open, type Status } from 'tidelog';

const hello = doctype({
  name: 'hello',
  migrations: [
    'create table line (id text primary key, text text not null, at integer not null) strict',
  ],
  mutations: {
    // The tab draws the id, so two devices that both add a line offline never collide.
    add: mutation({ id: 'uuid', text: 'text' }, [
      `select reject('a line needs a text') where trim(:text) = ''`,
      'insert into line (id, text, at) values (:id, trim(:text), :now)',
    ]),
  },
});

const field = document.querySelector('input')!;
const list = document.querySelector('ul')!;
const [status, problem] = document.querySelectorAll('p');
const complain = ({ message }: Error) => problem!.replaceChildren(message);

// The server is the one that serves the page; without it the list would be of this device alone.
const server = location.origin.replace('http', 'ws');
const opened = open(hello, { document: 'hello', server });

document.querySelector('form')!.addEventListener('submit', (event) => {
  event.preventDefault();
  problem!.replaceChildren();
  const text = field.value;
  field.value = '';
  opened.then((db) => db.mutate.add({ text })).catch(complain);
});

opened.then((db) => {
  // Now and after every change, whoever made it: this tab, another one, or another device.
  db.live<{ text: string }>('select text from line order by at, id').subscribe((rows, error) => {
    problem!.replaceChildren(error?.message ?? '');
    if (rows) list.replaceChildren(...rows.map(({ text }) => lineOf(text)));
  });
  db.on('status', tell);
  tell(db.status);
}, complain);

function lineOf(text: string): HTMLLIElement {
  const line = document.createElement('li');
  line.textContent = text;
  return line;
}

function tell({ connection, pending }: Status): void {
  status!.textContent = pending ? `${connection}, ${pending} not confirmed yet` : connection;
}
