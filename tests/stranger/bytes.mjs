// Values as `crates/sync/PROTOCOL.md` writes them under "Values".

export class Writer {
  #parts = [];

  #number(size, write) {
    const part = Buffer.alloc(size);
    write(part);
    this.#parts.push(part);
    return this;
  }

  u8 = (value) => this.#number(1, (part) => part.writeUInt8(value));
  u16 = (value) => this.#number(2, (part) => part.writeUInt16LE(value));
  u32 = (value) => this.#number(4, (part) => part.writeUInt32LE(value));
  u64 = (value) => this.#number(8, (part) => part.writeBigUInt64LE(BigInt(value)));
  i64 = (value) => this.#number(8, (part) => part.writeBigInt64LE(BigInt(value)));
  f64 = (value) => this.#number(8, (part) => part.writeDoubleLE(value));
  bool = (value) => this.u8(value ? 1 : 0);

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

  u8 = () => this.bytes(1).readUInt8();
  u16 = () => this.bytes(2).readUInt16LE();
  u32 = () => this.bytes(4).readUInt32LE();

  /** Lengths and LSNs, none of which is beyond 2^53 here. */
  u64() {
    const value = Number(this.bytes(8).readBigUInt64LE());
    if (!Number.isSafeInteger(value)) throw new Error(`${value} is too large`);
    return value;
  }

  bool() {
    const value = this.u8();
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
