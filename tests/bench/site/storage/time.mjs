// Taking the time. The page is isolated, so that the clock is finer than what is timed.

/** Milliseconds that one of so many runs takes. */
export function timed(times, run) {
  const began = performance.now();
  for (let nth = 0; nth < times; nth += 1) run(nth);
  return (performance.now() - began) / times;
}

/** Rounds that do not count, of each that does: browsers compile what is run often once more. */
const WARM_UP = 0.25;

/**
 * Takes the time of each in turn, and begins with another one every round, so that noise meets all
 * of them alike. Each gives its own time or times. `prepare` is run before each round.
 */
export async function inTurn(rounds, measures, prepare = () => {}) {
  const names = Object.keys(measures);
  const times = Object.fromEntries(names.map((name) => [name, []]));
  const warmUps = Math.ceil(rounds * WARM_UP);
  for (let round = 0; round < warmUps + rounds; round += 1) {
    await prepare();
    for (let nth = 0; nth < names.length; nth += 1) {
      const name = names[(round + nth) % names.length];
      const time = await measures[name]();
      if (round >= warmUps) times[name].push(time);
    }
  }
  return times;
}

/** The value that this share of all does not exceed. */
export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) * share)];
}

/** Makes sure of what a measure relies on. */
export function expect(found, wanted, what) {
  if (found !== wanted) throw new Error(`${what}: ${found} instead of ${wanted}`);
}
