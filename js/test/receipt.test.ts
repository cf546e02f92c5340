import { expect, test } from 'vitest';
import { RejectedError } from '../src/errors.js';
import { issue } from '../src/receipt.js';

const refused = new RejectedError('taken');

/** Rejections that nobody handled while `work` ran. */
async function unhandledIn(work: () => void): Promise<unknown[]> {
  const seen: unknown[] = [];
  const before = process.listeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection');
  process.on('unhandledRejection', (reason) => seen.push(reason));
  work();
  await new Promise((resolve) => setTimeout(resolve));
  process.removeAllListeners('unhandledRejection');
  for (const listener of before) process.on('unhandledRejection', listener);
  return seen;
}

test('W12: a receipt is a promise of its LSN', async () => {
  const { receipt, durable, confirmed } = issue(() => ({}));
  expect(receipt).toBeInstanceOf(Promise);
  expect(receipt.durable).toBe(receipt);
  durable({ lsn: 7 });
  confirmed({ lsn: 9 });
  expect(await receipt.finally(() => {})).toEqual({ lsn: 7 });
  expect(await receipt.confirmed).toEqual({ lsn: 9 });
});

test('a receipt has the arguments that its mutation was issued with', () => {
  expect(issue(() => ({ id: 'drawn' })).receipt.args).toEqual({ id: 'drawn' });
});

test('W12: a mutation that failed and that nobody awaits is an unhandled rejection', async () => {
  expect(await unhandledIn(() => issue(() => ({})).failed(refused, true))).toEqual([refused]);
  const caught = (): void => {
    const { receipt, failed } = issue(() => ({}));
    receipt.catch(() => {});
    failed(refused, true);
  };
  expect(await unhandledIn(caught)).toEqual([]);
});

test('a verdict that nobody awaits is no unhandled rejection', async () => {
  const rejectedLater = (): void => {
    const { durable, failed } = issue(() => ({}));
    durable({ lsn: 1 });
    failed(refused, true);
  };
  expect(await unhandledIn(rejectedLater)).toEqual([]);
});

test('who listens to the verdict need not listen to the receipt as well', async () => {
  const heard: unknown[] = [];
  const awaited = (): void => {
    const { receipt, failed } = issue(() => ({}));
    receipt.confirmed.catch((error) => heard.push(error));
    failed(refused, true);
  };
  expect(await unhandledIn(awaited)).toEqual([]);
  expect(heard).toEqual([refused]);
});
