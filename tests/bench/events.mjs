// Events, commands and workflows, in one document, through processes of Node and a server on this
// machine; beside them tables of PostgreSQL that do the same, where that is installed.
//
// Goal: what an app waits for, and how much goes on at a time, each beside what it is to be: what
// is not is `missed`. Method: so many callers, each of whom waits for the end of what it has asked
// before it asks again, for as long as a measure takes; medians of three turns, in which the
// systems alternate, each with a document, or tables, in which there is nothing yet. A process of
// its own handles what is asked for, of either system as many at a time. `a second` is how many
// calls have ended, and p50 and p99 how long one took: of a workflow, the whole run. An argument
// chooses the measures whose names have it.

import { fromBrowserToBrowser } from './events/browsers.mjs';
import * as postgres from './events/postgres.mjs';
import * as tidelog from './events/tidelog.mjs';
import { median, percentile, printColumns } from './table.mjs';

const TURNS = 3;
const TURN_MS = 4_000;
const WARM_MS = 1_000;

/** What one process has at work at a time at most: commands of 50 streams, or runs. */
const HANDLED = 64;

/** Events of a stream that another device catches up with. */
const CAUGHT_UP = 100_000;

/** Events of each stream whose state is to be known. */
const FOLDED = 30_000;

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

/** `goal`: what a figure of Tidelog has to be at least, or at most. */
const MEASURES = [
  ...[1, 16, 256].map((callers) => ({
    says: `appends, ${callers} in flight`,
    goal: callers === 256 && { perSecond: 20_000 },
    async measure(system) {
      const { write, end } = await system.writer(callers);
      const result = await callAll(callers, write);
      await end();
      return result;
    },
  })),
  ...[1, 256].map((callers) => ({
    says: `commands through a handler, ${callers} in flight`,
    goal: callers === 256 && { perSecond: 3_000 },
    async measure(system) {
      const { command, end } = await system.commander(callers, HANDLED);
      const result = await callAll(callers, command);
      await end();
      return result;
    },
  })),
  {
    says: 'workflows of three steps, 1 in flight',
    goal: { p50: 10 },
    async measure(system) {
      const { run, end } = await system.runner(1, HANDLED);
      const result = await callAll(1, () => run(3));
      await end();
      return result;
    },
  },
  {
    says: 'workflows of twenty steps, 64 in flight',
    async measure(system) {
      const { run, end } = await system.runner(64, HANDLED);
      const result = await callAll(64, () => run(20));
      await end();
      return result;
    },
  },
];

const systems = [];
for (const { name, begin } of [tidelog, postgres]) {
  const system = await begin();
  if (system) systems.push({ name, ...system });
  else console.log(`${name} is not installed`);
}

/** What is said of a figure beside its goal. */
function judged(goal, perSecond, p50) {
  if (!goal) return '';
  if (goal.p50)
    return p50 <= goal.p50 ? `p50 at most ${goal.p50}` : `p50 at most ${goal.p50}: missed`;
  const least = `at least ${goal.perSecond}`;
  return perSecond >= goal.perSecond ? least : `${least}: missed`;
}

const wanted = process.argv[2] ?? '';
const isWanted = (says) => says.includes(wanted);
for (const { says, goal, measure } of MEASURES.filter((it) => isWanted(it.says))) {
  const found = new Map(systems.map(({ name }) => [name, []]));
  for (let turn = 0; turn < TURNS; turn += 1) {
    for (const system of systems) found.get(system.name).push(await measure(system));
  }
  const ofAll = (name, what) => median(found.get(name).map((it) => it[what]));
  console.log('');
  printColumns([
    [says, 'a second', 'p50 ms', 'p99 ms', 'of PostgreSQL', 'goal'],
    ...systems.map(({ name }) => [
      `  ${name}`,
      ofAll(name, 'perSecond').toFixed(0),
      ofAll(name, 'p50').toFixed(2),
      ofAll(name, 'p99').toFixed(2),
      found.has(postgres.name)
        ? (ofAll(name, 'perSecond') / ofAll(postgres.name, 'perSecond')).toFixed(2)
        : '',
      name === tidelog.name ? judged(goal, ofAll(name, 'perSecond'), ofAll(name, 'p50')) : '',
    ]),
  ]);
}

if (isWanted('catching up')) {
  const { read, end } = await systems[0].reader(CAUGHT_UP);
  const takes = [];
  for (let turn = 0; turn < TURNS; turn += 1) takes.push(await read());
  await end();
  console.log(`\ncatching up with ${CAUGHT_UP} events: ${median(takes).toFixed(0)} ms`);
}

if (isWanted('folding')) {
  const streams = Array.from({ length: TURNS }, (_, nth) => `folded-${nth}`);
  const { fold, end } = await systems[0].folder(FOLDED, streams);
  const takes = [];
  for (const stream of streams) takes.push(await fold(stream));
  await end();
  console.log(`\nfolding ${FOLDED} events for a command: ${median(takes).toFixed(0)} ms`);
}

if (isWanted('from browser to browser')) {
  const { row, command } = await fromBrowserToBrowser();
  const ratio = command / row;
  const is = `${command.toFixed(2)} ms, ${ratio.toFixed(2)} of a row's ${row.toFixed(2)}`;
  console.log(`\nfrom browser to browser, a command and its events, p50: ${is}`);
  console.log(`  at most 2.5${ratio > 2.5 ? ': missed' : ''}`);
}

for (const { end } of systems) await end();
