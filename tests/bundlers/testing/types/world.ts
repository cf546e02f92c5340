// What a test in Node asks of the package's types where those of a page are not there: this is
// compiled, and not run.

import type { Receipt } from 'tidelog';
import { type World, world } from 'tidelog/testing';
import { todos } from '../todos.js';

export async function main(): Promise<number> {
  await using w: World<typeof todos.mutations> = await world(todos, { seed: 2 });
  const { db } = await w.client({ user: 'ada' });
  const receipt: Receipt<{ id: string; title: string }> = db.mutate.add({ title: 'milk' });
  await receipt.confirmed;
  return w.now;
}
