// A list for people with a role each: who is here, who added what, and who may change it.
import { type Database, open, type Status } from 'tidelog';
import { type Item, sharedList } from './doctype.ts';
import { Session } from './session.ts';
import './style.css';

type Db = Database<(typeof sharedList)['mutations']>;

const at = <Element extends HTMLElement>(id: string): Element =>
  document.querySelector<Element>(`#${id}`)!;

const login = at<HTMLFormElement>('login');
const app = at('app');
const adding = at<HTMLFormElement>('adding');
const list = at<HTMLUListElement>('list');
const complain = (error?: Error | null): void => at('error').replaceChildren(error?.message ?? '');

/** Shows the form until somebody has logged in, as this user if one is given. */
function logIn(user?: string): Promise<Session> {
  const field = login.elements.namedItem('user') as HTMLSelectElement;
  if (user) field.value = user;
  field.disabled = user !== undefined;
  login.hidden = false;
  return new Promise((resolve) => {
    login.onsubmit = async (event) => {
      event.preventDefault();
      const password = login.elements.namedItem('password') as HTMLInputElement;
      try {
        resolve(await Session.begin(field.value, password.value, () => logIn(field.value)));
        login.hidden = true;
        complain();
      } catch (error) {
        complain(error as Error);
      }
      password.value = '';
    };
  });
}

/** One line of the list. */
function line(db: Db, { id, text, done, added_by }: Item): HTMLElement {
  const mayWrite = db.status.access !== 'read';
  const label = document.createElement('label');
  const box = Object.assign(document.createElement('input'), {
    type: 'checkbox',
    disabled: !mayWrite,
  });
  box.checked = done !== 0;
  box.onchange = () => void db.mutate.check({ id, done: box.checked }).catch(complain);
  label.append(box, text);
  const by = Object.assign(document.createElement('small'), { textContent: added_by });
  const remove = Object.assign(document.createElement('button'), {
    type: 'button',
    textContent: 'Remove',
    hidden: !mayWrite,
  });
  remove.setAttribute('aria-label', `Remove ${text}`);
  remove.onclick = () => void db.mutate.remove({ id }).catch(complain);
  const item = document.createElement('li');
  item.append(label, by, remove);
  return item;
}

function show(db: Db, user: string): void {
  let items: readonly Item[] = [];
  const draw = (): void => list.replaceChildren(...items.map((item) => line(db, item)));
  const stand = ({ connection, pending, access, error }: Status): void => {
    const role = access === 'read' ? 'you may read' : 'you may write';
    const waiting = pending ? `, ${pending} not confirmed yet` : '';
    at('status').textContent = `${user}, ${connection}, ${role}${waiting}`;
    adding.hidden = access === 'read';
    complain(error);
    draw();
  };
  const live = db.live<Item>('select id, text, done, added_by from item order by at, id');
  live.subscribe((rows, error) => {
    if (error) complain(error);
    if (!rows) return;
    items = rows;
    at('empty').hidden = rows.length > 0;
    draw();
  });
  db.on('status', stand);
  db.on('rejected', ({ mutation, reason }) => complain(new Error(`${mutation}: ${reason}`)));
  stand(db.status);

  // What everybody is at, as long as they are here: never on any disk.
  const field = at<HTMLInputElement>('text');
  const tell = (): void => db.presence.set({ isTyping: field.value !== '' });
  field.oninput = tell;
  tell();
  db.presence.subscribe((others) => {
    const names = others.map(({ user, state }) => {
      const { isTyping } = (state ?? {}) as { isTyping?: boolean };
      return isTyping ? `${user} is typing` : (user ?? 'somebody');
    });
    at('here').textContent = names.length
      ? `Here too: ${names.join(', ')}`
      : 'Nobody else is here.';
  });

  adding.onsubmit = (event) => {
    event.preventDefault();
    complain();
    db.mutate.add({ text: field.value }).catch(complain);
    field.value = '';
    tell();
  };
}

const session = await logIn();
// Each user of a browser has a copy of their own.
open(sharedList, {
  document: 'shared-list',
  server: location.origin.replace('http', 'ws'),
  user: session.user,
  token: session.token,
}).then((db) => {
  app.hidden = false;
  show(db, session.user);
}, complain);
