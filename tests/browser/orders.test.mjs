// The example of orders, as its users see it: a shop, a warehouse, and an office that is killed.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
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
function office(stage, server, bankTakesMs) {
  const child = spawn(process.execPath, [inRoot('examples/orders/office.mjs')], {
    env: { ...process.env, SERVER: server.ws, BANK_TAKES_MS: String(bankTakesMs) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const said = [];
  createInterface({ input: child.stdout }).on('line', (line) => said.push(line));
  stage.onEnd(() => child.kill('SIGKILL'));
  return { child, said };
}

both(
  'orders go from the shop to the office and the warehouse, and to nobody twice',
  async (stage) => {
    const server = await examplesServer(stage);
    const shop = await stage.tab(`${server.http}/orders/`);
    const warehouse = await stage.otherTab(`${server.http}/orders/warehouse.html`);
    await order(shop, 'tea');
    await shows(shop, 'orders', ['tea sent']);
    await shows(warehouse, 'commands', ['1 tea place received 0']);
    const first = office(stage, server, 2_000);
    await shows(shop, 'orders', ['tea paid']);
    await shows(warehouse, 'commands', ['3 tea ship received 0']);
    await click(warehouse, 'at-work');
    await shows(shop, 'orders', ['tea shipped']);
    await shows(warehouse, 'commands', []);

    // One that dies while it waits for the bank: what it was at is given to the next one.
    await order(shop, 'coffee');
    await eventually(() => first.said.some((line) => /payment 5, attempt 1/.test(line)));
    first.child.kill('SIGKILL');
    const second = office(stage, server, 10);
    await shows(shop, 'orders', ['coffee shipped', 'tea shipped'], { withinMs: 60_000 });
    assert.deepEqual(
      second.said.filter((line) => line.startsWith('payment')),
      ['payment 5, attempt 2'],
    );

    // A rule across all orders: there is one of these.
    await order(shop, 'a rare book');
    await order(shop, 'a rare book');
    await eventually(async () => {
      const states = (await rowsOf(shop, 'orders')).slice(0, 2).sort();
      return (
        /^a rare book given up: CHECK constraint failed/.test(states[0]) &&
        states[1] === 'a rare book shipped'
      );
    });
  },
);

atLeast(1);
