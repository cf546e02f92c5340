/** Looking again and again at what nobody tells of. */

/**
 * Looks so long after it began, and then so long after each look was done, until one has seen
 * enough. Looks that take longer than that do not pile up, nor count as many at once.
 */
export async function lookEvery(ms: number, look: () => Promise<boolean>): Promise<void> {
  do await new Promise((resolve) => setTimeout(resolve, ms));
  while (!(await look()));
}
