/** The release and the build of this package, and which of two releases is the newer one. */

/** Tabs, cores and page servers of two builds do not talk. The build names itself here. */
export const BUILD = '0.1.0+00000000';

/** Whether the first of two texts that end in a release, as `1.2.3` or `1.2.3+build`, is newer. */
export function isNewer(one: string, other: string): boolean {
  const [mine, theirs] = [numbersOf(one), numbersOf(other)];
  const differs = mine.findIndex((number, index) => number !== theirs[index]);
  return differs >= 0 && mine[differs]! > theirs[differs]!;
}

/** Which of two that began at the same time stays: the newer one, or one of two builds of it. */
export function winsOver(one: string, other: string): boolean {
  return isNewer(one, other) || (!isNewer(other, one) && one > other);
}

const numbersOf = (text: string): number[] =>
  (/(\d+)\.(\d+)\.(\d+)/.exec(text) ?? [0, 0, 0, 0]).slice(1).map(Number);
