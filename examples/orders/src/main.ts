// The shop: sends orders, also while it is offline, and shows what becomes of each.
import { at, complain, opened, row } from './pages.ts';

interface Order {
  id: string;
  item: string;
  state: string;
}

async function show(): Promise<void> {
  const db = await opened();
  const live = db.live<Order>('select id, item, state from orders order by at desc, id limit 100');
  live.subscribe((orders, error) => {
    if (error) complain(error);
    if (!orders) return;
    at('empty').hidden = orders.length > 0;
    at('orders').replaceChildren(...orders.map(({ item, state }) => row(item, state)));
  });
  at<HTMLFormElement>('ordering').onsubmit = (event) => {
    event.preventDefault();
    complain();
    const item = at<HTMLSelectElement>('item').value;
    // Its id is its key as well: sent twice, it would still be one order.
    const id = crypto.randomUUID();
    db.send.order.place(id, { item }, { key: id }).catch(complain);
  };
}

show().catch(complain);
