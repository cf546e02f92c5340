// Measures one system from the page. `?system=..` says which; with `&task=..` the page opens
// `&database=..`, with `&text` one of text keys, and does that as soon as it can.

/** In a row that is wide. */
const WIDE = 'wide '.repeat(400);

/** What a page does by itself; the clock of `performance` starts with the navigation. */
const TASKS = {
  async first(system) {
    const [row] = await system.query('first');
    if (!row) throw new Error('there is no first row');
  },
  insert: (system) => system.mutate('insert', { id: 1, title: 'item 1' }),
};

export function measure(systems) {
  const options = new URLSearchParams(location.search);
  const system = systems[options.get('system')]();
  const task = options.get('task');

  if (task) {
    globalThis.done = (async () => {
      await system.open(options.get('database'), options.has('text'));
      await TASKS[task](system);
      return performance.now();
    })();
    return;
  }

  /** The key of the row of this number: texts are in no order. */
  let key = (number) => number;
  const textKey = (number) =>
    `note-${(Math.imul(number, 0x9e3779b1) >>> 0).toString(36).padStart(7, '0')}`;

  async function timed(work) {
    const start = performance.now();
    await work();
    return performance.now() - start;
  }

  /** One after the other: milliseconds of all, and of each. */
  async function oneByOne(calls) {
    const each = [];
    const all = await timed(async () => {
      for (const call of calls) each.push(await timed(call));
    });
    return { all, each };
  }

  async function selected(number) {
    const id = key(number);
    const [row] = await system.query('select', { id });
    if (row?.id !== id) throw new Error(`row ${id} is ${JSON.stringify(row)}`);
  }

  async function ranged(number) {
    const rows = await system.query('range', { id: key(number) });
    if (rows.length !== 1000) throw new Error(`a range has ${rows.length} rows`);
  }

  const numbers = (count, from) => Array.from({ length: count }, (_, index) => from + index);
  const inserting = (count, from, title) =>
    numbers(count, from).map(
      (number) => () =>
        system.mutate('insert', { id: key(number), title: title ?? `item ${number}` }),
    );
  const together = (calls) => timed(() => Promise.all(calls.map((call) => call())));

  globalThis.bench = {
    open(name, isText) {
      if (isText) key = textKey;
      return system.open(name, isText);
    },
    inserts: (count, from) => oneByOne(inserting(count, from)),
    insertsTogether: (count, from) => together(inserting(count, from)),
    updates: (numbers) =>
      oneByOne(
        numbers.map(
          (number) => () =>
            system.mutate('update', { id: key(number), title: `changed ${number}` }),
        ),
      ),
    removes: (numbers) =>
      oneByOne(numbers.map((number) => () => system.mutate('remove', { id: key(number) }))),
    wideInserts: (count, from) => oneByOne(inserting(count, from, WIDE)),
    bulk: (count) => {
      const rows = numbers(count, 1).map((number) => [key(number), `item ${number}`]);
      return timed(() => system.mutate('insertMany', { rows }));
    },
    selects: (ids) => oneByOne(ids.map((id) => () => selected(id))),
    selectsTogether: (ids) => together(ids.map((id) => () => selected(id))),
    ranges: (ids) => oneByOne(ids.map((id) => () => ranged(id))),
    settle: () => system.settle?.(),
  };
  globalThis.ready = true;
}
