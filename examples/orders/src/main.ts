// The shop: sends orders, also while it is offline, and shows what becomes of each.
import { at, complain, opened, row } from './pages.ts';

interface Order {
  id: string;
  item: string;
  state: string;
  run: string | null;
}

// What the run of each order waits for, or how it stands.
const ORDERS = `
  select orders.id, item, orders.state,
         coalesce((select group_concat(name, ', ') from tidelog_records
                   where number = run.number and state in ('started', 'waiting')),
                  run.state) as run
  from orders left join tidelog_workflows as run on run.id = orders.id
  order by at desc, orders.id limit 100`;

async function show(): Promise<void> {
  const db = await opened();
  const live = db.live<Order>(ORDERS);
  live.subscribe((orders, error) => {
    if (error) complain(error);
    if (!orders) return;
    at('empty').hidden = orders.length > 0;
    at('orders').replaceChildren(...orders.map(({ item, state, run }) => row(item, state, run)));
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
