// The example of orders, as its users see it: a shop, a warehouse, and an office that is killed.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { at, click, examplesServer } from './harness/example-page.mjs';
import { atLeast, both, eventually, inRoot } from './harness.mjs';

const rowsOf = (page, id) =>
  page.evaluate(
    (selector) =>
      [...document.querySelectorAll(selector)].map((row) =>
        [...row.cells].map((cell) => cell.textContent).join(' '),
      ),
    `${at(id)} tr`,
  );

async function shows(page, id, wanted, options = {}) {
  let shown;
  await eventually(
    async () => {
      shown = await rowsOf(page, id);
      return JSON.stringify(shown) === JSON.stringify(wanted);
    },
    { what: JSON.stringify(wanted), ...options },
  ).catch((error) => {
    throw new Error(`${error.message}; the page shows ${JSON.stringify(shown)}`);
  });
}

async function order(page, item) {
  await page.evaluate(
    ([selector, item]) => {
      document.querySelector(selector).value = item;
    },
    [at('item'), item],
  );
  await click(page, 'order');
}

/** An office, and what it has said. */
function office(stage, server, bankTakesMs, carrierTakesMs = 10) {
  const takes = { BANK_TAKES_MS: String(bankTakesMs), CARRIER_TAKES_MS: String(carrierTakesMs) };
  const child = spawn(process.execPath, [inRoot('examples/orders/office.mjs')], {
    env: { ...process.env, SERVER: server.ws, ...takes },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const said = [];
  createInterface({ input: child.stdout }).on('line', (line) => said.push(line));
  stage.onEnd(() => child.kill('SIGKILL'));
  return { child, said };
}

/** Kills an office, and waits until it is gone: what is sent meanwhile may be given to it. */
async function die({ child }) {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

both(
  'orders go from the shop to the office and the warehouse, and to nobody twice',
  async (stage) => {
    const server = await examplesServer(stage);
    const shop = await stage.tab(`${server.http}/orders/`);
    const warehouse = await stage.otherTab(`${server.http}/orders/warehouse.html`);
    await order(shop, 'tea');
    await shows(shop, 'orders', ['tea sent ']);
    await shows(warehouse, 'commands', ['1 tea place received 0']);
    const first = office(stage, server, 2_000);
    await shows(shop, 'orders', ['tea placed send:order.pay']);
    // The order is the first task, and its run the second.
    await shows(warehouse, 'commands', ['4 tea ship received 0']);
    await shows(shop, 'orders', ['tea paid send:order.ship, waitFor:order.shipped']);
    await click(warehouse, 'at-work');
    await shows(shop, 'orders', ['tea shipped completed']);
    await shows(warehouse, 'commands', []);

    // One that dies while it waits for the bank: what it was at is given to the next one.
    await order(shop, 'coffee');
    await eventually(() => first.said.some((line) => /payment 7, attempt 1/.test(line)));
    await die(first);
    const second = office(stage, server, 10);
    const before = ['coffee shipped completed', 'tea shipped completed'];
    await shows(shop, 'orders', before, { withinMs: 60_000 });
    const saidOf = (what, { said }) => said.filter((line) => line.startsWith(what));
    assert.deepEqual(saidOf('payment', second), ['payment 7, attempt 2']);
    const labels = [...saidOf('label', first), ...saidOf('label', second)];
    assert.equal(labels.length, 2);
    assert.equal(new Set(labels).size, 2);

    // One that dies while it asks for a label: the next one asks with the same key.
    await die(second);
    const third = office(stage, server, 10, 60_000);
    await order(shop, 'tea');
    await eventually(() => saidOf('label', third).length === 1);
    await shows(shop, 'orders', ['tea paid label', ...before]);
    await die(third);
    const fourth = office(stage, server, 10);
    await shows(shop, 'orders', ['tea shipped completed', ...before], { withinMs: 60_000 });
    assert.deepEqual(saidOf('label', fourth), saidOf('label', third));
    assert.deepEqual(saidOf('payment', fourth), []);

    // A rule across all orders: there is one of these.
    await order(shop, 'a rare book');
    await order(shop, 'a rare book');
    await eventually(async () => {
      const states = (await rowsOf(shop, 'orders')).slice(0, 2).sort();
      return (
        /^a rare book given up: CHECK constraint failed/.test(states[0]) &&
        states[1] === 'a rare book shipped completed'
      );
    });
  },
);

atLeast(1);
