// A list that all tabs share, that outlives the browser, works offline, and syncs.
import { doctype, mutation, open, type Status } from 'tidelog';

const hello = doctype({
  name: 'hello',
  migrations: ['create table line (id text primary key, text text not null, at integer) strict'],
  mutations: {
    // The tab draws the id, so two devices that both add a line offline never collide.
    add: mutation({ id: 'uuid', text: 'text' }, [
      `select reject('a line needs a text') where trim(:text) = ''`,
      'insert into line (id, text, at) values (:id, trim(:text), :now)',
    ]),
  },
});
const [field, list] = [document.querySelector('input')!, document.querySelector('ul')!];
const [status, problem] = document.querySelectorAll('p');
const show = (text: string) => Object.assign(document.createElement('li'), { textContent: text });
const complain = (error?: Error | null) => problem!.replaceChildren(error?.message ?? '');
const tell = ({ connection, pending }: Status) =>
  status!.replaceChildren(connection, pending ? `, ${pending} not confirmed yet` : '');

// The server is the one that serves the page; without it the list would be of this device alone.
const server = location.origin.replace('http', 'ws');
const opened = open(hello, { document: 'hello', server });
opened.then((db) => {
  // Now and after every change, whoever made it: this tab, another one, or another device.
  db.live<{ text: string }>('select text from line order by at, id').subscribe((rows, error) => {
    complain(error);
    if (rows) list.replaceChildren(...rows.map(({ text }) => show(text)));
  });
  db.on('status', tell);
  tell(db.status);
}, complain);
document.querySelector('form')!.addEventListener('submit', (event) => {
  event.preventDefault();
  complain();
  const text = field.value;
  opened.then((db) => db.mutate.add({ text })).catch(complain);
  field.value = '';
});
