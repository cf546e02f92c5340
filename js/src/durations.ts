/** Times that an app gives, as milliseconds or as text. */

const UNITS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** The units that a time may have: seconds, minutes, hours, days. */
export type Unit = keyof typeof UNITS;

/** Milliseconds, or a text as `'30s'`, `'5m'`, `'2h'` or `'3d'`. */
export type Duration = number | `${number}${Unit}`;

/** Milliseconds, from 0 up to `most`; undefined where that is no time, or one of other units. */
export function millisecondsOf(given: unknown, units: string, most: number): number | undefined {
  const ms = typeof given === 'string' ? ofText(given, units) : given;
  return Number.isInteger(ms) && isWithin(ms as number, most) ? (ms as number) : undefined;
}

function ofText(text: string, units: string): number | undefined {
  const [, count, unit] = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text) ?? [];
  if (!unit || !units.includes(unit)) return undefined;
  const ms = Number(count) * UNITS[unit as Unit];
  const whole = Math.round(ms);
  // Most decimals are no binary ones: 1.1 hours are not quite 3,960,000 milliseconds.
  const isWhole = Math.abs(ms - whole) < 0.001 && (whole > 0 || ms === 0);
  return isWhole ? whole : undefined;
}

const isWithin = (ms: number, most: number): boolean => ms >= 0 && ms <= most;
