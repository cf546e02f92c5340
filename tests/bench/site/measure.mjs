// Measures one system from the page. `?system=..&database=..` say what; with `&first` the page
// opens the database and asks for its first row as soon as it can.

export function measure(systems) {
  const options = new URLSearchParams(location.search);
  const system = systems[options.get('system')]();

  if (options.has('first')) {
    globalThis.done = (async () => {
      await system.open(options.get('database'));
      const row = await system.first();
      if (!row) throw new Error('there is no first row');
      // The clock of `performance` starts with the navigation.
      return performance.now();
    })();
    return;
  }

  async function timed(work) {
    const start = performance.now();
    await work();
    return performance.now() - start;
  }

  async function selected(id) {
    const row = await system.select(id);
    if (row?.id !== id) throw new Error(`row ${id} is ${JSON.stringify(row)}`);
  }

  const numbers = (count, from) => Array.from({ length: count }, (_, index) => from + index);

  globalThis.bench = {
    open: (name) => system.open(name),
    sequential: (count, from) =>
      timed(async () => {
        for (const id of numbers(count, from)) await system.insert(id, `item ${id}`);
      }),
    together: (count, from) =>
      timed(() => Promise.all(numbers(count, from).map((id) => system.insert(id, `item ${id}`)))),
    bulk: (count) => {
      const rows = JSON.stringify(numbers(count, 1).map((id) => [id, `item ${id}`]));
      return timed(() => system.insertMany(rows));
    },
    selects: (ids) =>
      timed(async () => {
        for (const id of ids) await selected(id);
      }),
    selectsTogether: (ids) => timed(() => Promise.all(ids.map(selected))),
    settle: () => system.settle?.(),
  };
  globalThis.ready = true;
}
