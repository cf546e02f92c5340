/**
 * How values become bytes and back: bincode with fixed-width little-endian integers.
 *
 * The Rust side is crate `sync`, module `codec`; both check the same golden bytes.
 */

/**
 * Bytes of a buffer of their own, that can be sent along. Named by a function that makes them: to
 * TypeScript before 5.7 there is but one type of bytes.
 */
export type Bytes = ReturnType<Uint8ArrayConstructor['of']>;

/** A SQL value: what a query takes as a parameter and answers in a cell. */
export type Value = null | number | bigint | string | Uint8Array;

const encoder = new TextEncoder();
/** Without the option it would drop a text's leading U+FEFF. */
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** Texts up to this many code units are copied by hand: cheaper than calling the encoder. */
const SHORT_TEXT = 48;
/** Room for writing is given back beyond this. */
const KEPT_SIZE_MAX = 1 << 20;
const TWO_32 = 4294967296;

/** Bytes that grow. */
export class Writer {
  #bytes: Bytes = new Uint8Array(1024);
  #view: DataView = new DataView(this.#bytes.buffer);
  #size = 0;

  /** How many bytes were written. */
  get size(): number {
    return this.#size;
  }

  /** A copy of what was written; begins anew, also where there is no room for one. */
  take(): Bytes {
    const written = this.#bytes.subarray(0, this.#size);
    this.#size = 0;
    if (this.#bytes.length > KEPT_SIZE_MAX) this.#resize(1024);
    return written.slice();
  }

  /** Takes back what was written beyond this size, whole or not. */
  cut(size: number): void {
    this.#size = size;
  }

  #resize(size: number): void {
    const bytes = new Uint8Array(size);
    bytes.set(this.#bytes.subarray(0, Math.min(size, this.#bytes.length)));
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }

  /** Makes room for `count` more bytes and says where they go. */
  #room(count: number): number {
    const at = this.#size;
    this.#size += count;
    if (this.#size > this.#bytes.length) {
      this.#resize(Math.max(this.#size, this.#bytes.length * 2));
    }
    return at;
  }

  u8(value: number | boolean): void {
    const at = this.#room(1);
    this.#bytes[at] = Number(value);
  }

  u32(value: number): void {
    const at = this.#room(4);
    this.#view.setUint32(at, value, true);
  }

  /** A whole number of at most 53 bits, signed or not. */
  u64(value: number): void {
    const at = this.#room(8);
    this.#view.setUint32(at, value % TWO_32, true);
    this.#view.setInt32(at + 4, Math.floor(value / TWO_32), true);
  }

  /** Bytes without a length. */
  raw(bytes: Uint8Array): void {
    const at = this.#room(bytes.length);
    this.#bytes.set(bytes, at);
  }

  bytes(bytes: Uint8Array): void {
    this.u64(bytes.length);
    this.raw(bytes);
  }

  text(text: string): void {
    const { length } = text;
    const at = this.#room(8 + length * 3);
    const start = at + 8;
    let size = 0;
    if (length <= SHORT_TEXT) {
      for (; size < length; size++) {
        const unit = text.charCodeAt(size);
        if (unit > 127) break;
        this.#bytes[start + size] = unit;
      }
    }
    if (size < length) {
      size += encoder.encodeInto(text.slice(size), this.#bytes.subarray(start + size)).written;
    }
    this.#size = at;
    this.u64(size);
    this.#size = start + size;
  }

  /** `None` where `value` is null or undefined. */
  option<T>(value: T | null | undefined, write: (value: T) => void): void {
    const some = value != null;
    this.u8(some);
    if (some) write(value);
  }

  list<T>(items: readonly T[], write: (item: T) => void): void {
    this.u64(items.length);
    items.forEach(write);
  }

  value(value: Value): void {
    if (value === null) this.u32(0);
    else if (typeof value === 'bigint') this.#number(1, value);
    else if (typeof value === 'number') {
      if (Number.isSafeInteger(value)) {
        this.u32(1);
        this.u64(value);
      } else this.#number(2, value);
    } else if (typeof value === 'string') {
      this.u32(3);
      this.text(value);
    } else {
      this.u32(4);
      this.bytes(value);
    }
  }

  #number(tag: number, value: number | bigint): void {
    this.u32(tag);
    const at = this.#room(8);
    if (typeof value === 'bigint') this.#view.setBigInt64(at, value, true);
    else this.#view.setFloat64(at, value, true);
  }

  named(values: readonly (readonly [string, Value])[]): void {
    this.list(values, ([name, value]) => {
      this.text(name);
      this.value(value);
    });
  }
}

/** Reads what Rust wrote; the core is trusted to write it well. */
export class Reader {
  readonly #bytes: Bytes;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  #take(count: number): number {
    const at = this.#at;
    this.#at += count;
    return at;
  }

  /** Goes on reading at this place. */
  seek(at: number): void {
    this.#at = at;
  }

  u8(): number {
    return this.#bytes[this.#take(1)]!;
  }

  flag(): boolean {
    return this.u8() === 1;
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u64(): number {
    const low = this.u32();
    return this.u32() * TWO_32 + low;
  }

  i64(): number | bigint {
    const at = this.#take(8);
    const number = this.#view.getInt32(at + 4, true) * TWO_32 + this.#view.getUint32(at, true);
    return Number.isSafeInteger(number) ? number : this.#view.getBigInt64(at, true);
  }

  f64(): number {
    return this.#view.getFloat64(this.#take(8), true);
  }

  /** A view of the next `size` bytes. */
  view(size: number): Bytes {
    const at = this.#take(size);
    return this.#bytes.subarray(at, at + size);
  }

  bytes(): Bytes {
    return this.view(this.u64());
  }

  /** The text in the next `size` bytes. */
  utf8(size: number): string {
    const at = this.#take(size);
    if (size <= 16) {
      let text = '';
      let index = at;
      for (; index < at + size; index++) {
        const byte = this.#bytes[index]!;
        if (byte > 127) break;
        text += String.fromCharCode(byte);
      }
      if (index === at + size) return text;
    }
    return decoder.decode(this.#bytes.subarray(at, at + size));
  }

  text(): string {
    return this.utf8(this.u64());
  }

  option<T>(read: () => T): T | null {
    return this.flag() ? read() : null;
  }

  list<T>(read: () => T): T[] {
    return Array.from({ length: this.u64() }, read);
  }

  value(): Value {
    const tag = this.u32();
    if (tag === 1) return this.i64();
    if (tag === 2) return this.f64();
    if (tag === 3) return this.text();
    return tag ? this.bytes().slice() : null;
  }

  /** One cell of a row: see `Rows` in crate `types`. */
  cell(): Value {
    const tag = this.u8();
    if (tag === 1) return this.i64();
    if (tag === 2) return this.f64();
    if (tag === 3) return this.utf8(this.u32());
    return tag ? this.view(this.u32()).slice() : null;
  }

  named(): Record<string, Value> {
    return Object.fromEntries(this.list(() => [this.text(), this.value()]));
  }
}
