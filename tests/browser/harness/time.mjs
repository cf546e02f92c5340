// Waiting for what must come, and no longer.

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks again until the answer is truthy, which it returns. A throw ends it at once. */
export async function eventually(ask, { withinMs = 20_000, everyMs = 10, what = 'it' } = {}) {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (performance.now() > deadline) throw new Error(`${what} did not come within ${withinMs} ms`);
    await sleep(everyMs);
  }
}
