// Values as `crates/sync/PROTOCOL.md` writes them under "Values".

export class Writer {
  #parts = [];

  #part(size, write) {
    const part = Buffer.alloc(size);
    write(part);
    this.#parts.push(part);
    return this;
  }

  /** A number of so many bytes, as where a paper draws them. */
  fixed(size, value) {
    const number = Buffer.alloc(8);
    number.writeBigUInt64LE(BigInt(value));
    return this.bytes(number.subarray(0, size));
  }

  #number(value) {
    if (value < 251n) return this.fixed(1, value);
    if (value < 1n << 16n) return this.fixed(1, 251).fixed(2, value);
    if (value < 1n << 32n) return this.fixed(1, 252).fixed(4, value);
    return this.fixed(1, 253).fixed(8, value);
  }

  u32 = (value) => this.#number(BigInt(value));
  u64 = (value) => this.#number(BigInt(value));

  i64(value) {
    const number = BigInt(value);
    return this.#number(number < 0n ? -2n * number - 1n : 2n * number);
  }

  f64 = (value) => this.#part(8, (part) => part.writeDoubleLE(value));
  bool = (value) => this.fixed(1, value ? 1 : 0);

  /** Bytes whose number both sides know: ids and hashes. */
  bytes(bytes) {
    this.#parts.push(bytes);
    return this;
  }

  blob = (bytes) => this.u64(bytes.length).bytes(bytes);
  text = (text) => this.blob(Buffer.from(text));

  list(items, write) {
    this.u64(items.length);
    for (const item of items) write(item);
    return this;
  }

  optional(value, write) {
    this.bool(value !== null);
    if (value !== null) write(value);
    return this;
  }

  done = () => Buffer.concat(this.#parts);
}

export class Reader {
  #bytes;
  #at = 0;

  constructor(bytes) {
    this.#bytes = bytes;
  }

  bytes(size) {
    const end = this.#at + size;
    if (end > this.#bytes.length) throw new Error(`${size} bytes are not there`);
    const bytes = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return bytes;
  }

  /** A number of so many bytes, as where a paper draws them. */
  fixed(size) {
    const number = Buffer.alloc(8);
    this.bytes(size).copy(number);
    const value = Number(number.readBigUInt64LE());
    if (!Number.isSafeInteger(value)) throw new Error(`${value} is too large`);
    return value;
  }

  /** None of those that are written here is beyond 2^53. */
  #number(most) {
    const [size, least] = { 251: [2, 251], 252: [4, 2 ** 16], 253: [8, 2 ** 32] }[
      this.#bytes[this.#at]
    ] ?? [1, 0];
    if (size > 1) this.fixed(1);
    const value = this.fixed(size);
    if (size === 1 && value > 253) throw new Error(`${value} begins no number`);
    if (value < least || value > most) throw new Error(`${value} is written otherwise`);
    return value;
  }

  u32 = () => this.#number(2 ** 32 - 1);
  u64 = () => this.#number(Number.MAX_SAFE_INTEGER);

  i64() {
    const value = this.u64();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  bool() {
    const value = this.fixed(1);
    if (value > 1) throw new Error(`${value} is no bool`);
    return value === 1;
  }

  lsn() {
    const value = this.u64();
    if (value === 0) throw new Error('0 is no LSN');
    return value;
  }

  id = () => this.bytes(16);
  hash = () => this.bytes(32);
  blob = () => this.bytes(this.u64());
  text = () => new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(this.blob());
  list = (read) => Array.from({ length: this.u64() }, () => read());
  optional = (read) => (this.bool() ? read() : null);

  /** One of the choices by its number, `{ type, ...what it reads }`. */
  choice(choices) {
    const number = this.u32();
    const chosen = choices[number];
    if (!chosen) throw new Error(`there is no choice ${number}`);
    const [type, read = () => ({})] = chosen;
    return { type, ...read() };
  }

  end() {
    if (this.#at !== this.#bytes.length) throw new Error('bytes are left over');
  }
}
