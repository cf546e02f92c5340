// Events, commands and workflows, in one document, through processes of Node and a server on this
// machine; beside them tables of PostgreSQL that do the same, where that is installed.
//
// Goal: what an app waits for, and how much goes on at a time. Method: so many callers, each of
// whom waits for the end of what it has asked before it asks again, for as long as a measure takes;
// medians of three turns, in which the systems alternate.

import * as postgres from './events/postgres.mjs';
import * as tidelog from './events/tidelog.mjs';
import { median, percentile, printColumns } from './table.mjs';

const TURNS = 3;
const TURN_MS = 4_000;
const WARM_MS = 1_000;

/** Events of a stream that another device catches up with. */
const CAUGHT_UP = 100_000;

/** So many callers call until the time is over: how many calls a second, and how long each took. */
async function callAll(callers, call) {
  const takes = [];
  const until = async (end) => {
    while (performance.now() < end) {
      const begun = performance.now();
      await call();
      takes.push(performance.now() - begun);
    }
  };
  const all = (ms) => {
    const end = performance.now() + ms;
    return Promise.all(Array.from({ length: callers }, () => until(end)));
  };
  await all(WARM_MS);
  takes.length = 0;
  const begun = performance.now();
  await all(TURN_MS);
  const perSecond = takes.length / ((performance.now() - begun) / 1_000);
  return {
    perSecond,
    p50: median(takes),
    p99: percentile(
      takes.sort((a, b) => a - b),
      99,
    ),
  };
}

const MEASURES = [
  ...[1, 16, 256].map((callers) => ({
    says: `appends, ${callers} in flight`,
    async measure(system) {
      const { write, end } = await system.writer(Math.min(callers, 256));
      const result = await callAll(callers, write);
      await end();
      return result;
    },
  })),
  ...[1, 256].map((callers) => ({
    says: `commands through a handler, ${callers} in flight`,
    async measure(system) {
      const { command, end } = await system.commander(Math.min(callers, 200));
      const result = await callAll(callers, command);
      await end();
      return result;
    },
  })),
  {
    says: 'workflows of three steps, 1 in flight',
    async measure(system) {
      const { run, end } = await system.runner(1);
      const result = await callAll(1, () => run(3));
      await end();
      return result;
    },
  },
  {
    says: 'steps of workflows of twenty, 64 in flight',
    async measure(system) {
      const { run, end } = await system.runner(64);
      const { perSecond, ...takes } = await callAll(64, () => run(20));
      await end();
      return { perSecond: perSecond * 20, ...takes };
    },
  },
];

const systems = [];
for (const { name, begin } of [tidelog, postgres]) {
  const system = await begin();
  if (system) systems.push({ name, ...system });
  else console.log(`${name} is not installed`);
}

const wanted = process.argv[2] ?? '';
for (const { says, measure } of MEASURES.filter((it) => it.says.includes(wanted))) {
  const found = new Map(systems.map(({ name }) => [name, []]));
  for (let turn = 0; turn < TURNS; turn += 1) {
    for (const system of systems) found.get(system.name).push(await measure(system));
  }
  const ofAll = (name, what) => median(found.get(name).map((it) => it[what]));
  console.log('');
  printColumns([
    [says, 'a second', 'p50 ms', 'p99 ms', 'of PostgreSQL'],
    ...systems.map(({ name }) => [
      `  ${name}`,
      ofAll(name, 'perSecond').toFixed(0),
      ofAll(name, 'p50').toFixed(2),
      ofAll(name, 'p99').toFixed(2),
      found.has(postgres.name)
        ? (ofAll(name, 'perSecond') / ofAll(postgres.name, 'perSecond')).toFixed(2)
        : '',
    ]),
  ]);
}

if (!wanted || 'catching up'.includes(wanted)) {
  const { read, end } = await systems[0].reader(CAUGHT_UP);
  const takes = [];
  for (let turn = 0; turn < TURNS; turn += 1) {
    const begun = performance.now();
    await read();
    takes.push(performance.now() - begun);
  }
  await end();
  console.log(`\ncatching up with ${CAUGHT_UP} events: ${median(takes).toFixed(0)} ms`);
}

for (const { end } of systems) await end();
