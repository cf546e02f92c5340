// Workflows in a world: days pass in no time, and a device that is gone is gone on for.

import { doctype, mutation } from 'tidelog';
import { command, stream, type WorkflowContext, workflow } from 'tidelog/events';
import { world } from 'tidelog/testing';
import { expect, test } from 'vitest';

const shop = doctype({
  name: 'shop',
  migrations: ['create table orders (id text primary key, state text not null) strict'],
  mutations: {
    ship: mutation(
      { id: 'text' },
      `insert into tidelog_events (aggregate, stream, type) values ('order', :id, 'shipped')`,
    ),
  },
  streams: {
    order: stream({ events: { paid: {}, shipped: {} }, commands: { pay: command({}) } }),
  },
  workflows: { fulfil: workflow({ order: 'text' }) },
});

const DAY = 86_400_000;

type Context = WorkflowContext<NonNullable<typeof shop.streams>>;

test('a run that waits for days is gone on with as these pass', async () => {
  const w = await world(shop);
  try {
    const [ada, office] = [await w.client(), await w.client()];
    const begunAt = w.now;
    let tries = 0;
    const errors: unknown[] = [];
    const fulfil = async (ctx: Context, { order }: { order: string }) => {
      await ctx.step('stamp', () => {
        tries += 1;
        if (tries === 1) throw new Error('no ink');
      });
      const paid = await ctx.send.order.pay(order);
      await ctx.sleep('3d');
      const days = Math.floor((ctx.now - begunAt) / DAY);
      const shipped = await ctx.waitFor('order', order, 'shipped', { timeout: '7d' });
      return [paid, days, shipped?.type];
    };
    const onError = (error: unknown): number => errors.push(String(error));
    const pay = { initial: 0, commands: { pay: () => [{ type: 'paid' as const }] } };
    office.db.handle('fulfil', fulfil, { onError });
    office.db.handle('order', pay);
    const receipt = ada.db.start.fulfil({ order: 'o-1' }, { id: 'f-1' });
    await receipt.confirmed;
    await w.pass(2 * DAY);
    const states = 'select state from tidelog_workflows';
    expect(await ada.db.query(states)).toEqual([{ state: 'waiting' }]);
    expect([tries, errors]).toEqual([2, ['Error: no ink']]);

    // Whoever was at it is gone meanwhile.
    await office.close();
    const other = await w.client();
    other.db.handle('fulfil', fulfil, { onError });
    await w.pass(DAY + 60_000);
    await ada.db.mutate.ship({ id: 'o-1' }).confirmed;
    expect(await receipt.completed).toEqual([{ first: 1, last: 1 }, 3, 'shipped']);
    expect(tries).toBe(2);
  } finally {
    await w.close();
  }
});
