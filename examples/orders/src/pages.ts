// What both pages do alike.
import { open, type Status } from 'tidelog';
import { serverFromAddress } from '../../shared/address.ts';
import { shop } from './shop.js';
import './style.css';

export const at = <Element extends HTMLElement>(id: string): Element =>
  document.querySelector<Element>(`#${id}`)!;

export const complain = (error?: Error | null): void =>
  at('error').replaceChildren(error?.message ?? '');

/** The document, whose status and errors the page shows from now on. */
export async function opened() {
  const server = serverFromAddress();
  const db = await open(shop, { document: 'orders', ...(server && { server }) });
  const tell = ({ connection, pending, error }: Status): void => {
    const waiting = pending ? `, ${pending} not confirmed yet` : '';
    at('status').textContent = `${connection}${waiting}`;
    complain(error);
  };
  db.on('status', tell);
  tell(db.status);
  return db;
}

export function row(...cells: (string | number | null)[]): HTMLElement {
  const line = document.createElement('tr');
  line.append(
    ...cells.map((it) => Object.assign(document.createElement('td'), { textContent: it ?? '' })),
  );
  return line;
}
