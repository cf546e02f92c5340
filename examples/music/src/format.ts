// Values of the database as people read them.

const MONEY = new Intl.NumberFormat('en-US', { style: 'currency', currency: 'USD' });
const DAY = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeZone: 'UTC' });

export function money(amount: number): string {
  return MONEY.format(amount);
}

/** `5:43`. */
export function duration(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

/** A date that the database holds as text, which stands as it is where it is none. */
export function day(text: string): string {
  const [, year, month, date] = /^(\d{4})\D(\d{1,2})\D(\d{1,2})/.exec(text) ?? [];
  if (!year) return text;
  return DAY.format(Date.UTC(Number(year), Number(month) - 1, Number(date)));
}

/** A price as somebody types it, or null: `0.99`, `$ 1,29`. */
export function readPrice(text: string): number | null {
  const price = Number(text.replace(/[$\s]/g, '').replace(',', '.'));
  return Number.isFinite(price) && text.trim() ? Math.round(price * 100) / 100 : null;
}

/** A length as somebody types it, or null: `5:43`, `5`. */
export function readDuration(text: string): number | null {
  const [, minutes, seconds] = /^(\d{1,3})(?::([0-5]?\d))?$/.exec(text.trim()) ?? [];
  return minutes ? (Number(minutes) * 60 + Number(seconds ?? 0)) * 1000 : null;
}
