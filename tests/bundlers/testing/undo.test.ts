// The cookbook's way to undo, run as it stands there.

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type Database, type Doctype, type Mutations, RejectedError } from 'tidelog';
import { type Client, type World, world } from 'tidelog/testing';
import { afterAll, expect, test, vi } from 'vitest';

const RECIPE = new URL('./recipe.generated.ts', import.meta.url);

let w: World<Mutations>;
let ada: Client<Mutations>;
let bob: Client<Mutations>;

vi.mock('tidelog', async (original) => ({
  ...(await original<typeof import('tidelog')>()),
  // The app of the recipe is Ada's.
  open: async (doctype: Doctype): Promise<Database> => {
    w = await world(doctype);
    [ada, bob] = [await w.client(), await w.client({ user: 'bob' })];
    return ada.db;
  },
}));

afterAll(async () => {
  rmSync(RECIPE, { force: true });
  await w.close();
});

test('what the recipe does it takes back, unless somebody else has changed it since', async () => {
  const page = readFileSync(new URL('../../../docs/cookbook.md', import.meta.url), 'utf8');
  const [, code] = page.split('\n## Undo\n')[1]!.match(/^```ts\n([\s\S]*?)^```$/m)!;
  writeFileSync(RECIPE, code!);
  const { rename, remove, undo } = await import(RECIPE.href);
  const titles = async () => {
    await w.settle();
    return (await bob.db.values('select title from todo')).flat();
  };
  const milk = { id: 'a', title: 'milk', at: 1 };
  await ada.db.mutate.restore!(milk);

  await rename(milk, 'oat milk');
  await remove({ ...milk, title: 'oat milk' });
  expect(await titles()).toEqual([]);
  await undo();
  expect(await titles()).toEqual(['oat milk']);
  await undo();
  expect(await titles()).toEqual(['milk']);
  await undo();
  expect(await titles()).toEqual(['milk']);

  await rename(milk, 'tea');
  await w.settle();
  await bob.db.mutate.rename!({ id: 'a', title: 'coffee', from: 'tea' });
  await w.settle();
  await expect(undo()).rejects.toThrow(RejectedError);
  expect(await titles()).toEqual(['coffee']);
});
