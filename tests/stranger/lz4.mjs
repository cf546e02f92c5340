// The LZ4 block format.

/** The `size` bytes that are compressed in a block. */
export function decompress(block, size) {
  const bytes = Buffer.alloc(size);
  let [from, to] = [0, 0];
  const length = (nibble) => {
    let sum = nibble;
    for (let more = nibble === 15 ? 255 : 0; more === 255; ) {
      more = block[from++];
      sum += more;
    }
    return sum;
  };
  while (from < block.length) {
    const token = block[from++];
    const literals = length(token >> 4);
    block.copy(bytes, to, from, from + literals);
    [from, to] = [from + literals, to + literals];
    if (from >= block.length) break;
    const back = block.readUInt16LE(from);
    from += 2;
    // What is copied may be what is being written.
    for (let left = length(token & 15) + 4; left > 0; left -= 1, to += 1) {
      bytes[to] = bytes[to - back];
    }
  }
  if (to !== size) throw new Error(`a block of ${to} bytes, and not of ${size}`);
  return bytes;
}

/** A block that becomes these bytes, without a match. */
export function literals(bytes) {
  if (bytes.length < 15) return Buffer.concat([Buffer.from([bytes.length << 4]), bytes]);
  const lengths = [];
  let left = bytes.length - 15;
  for (; left >= 255; left -= 255) lengths.push(255);
  return Buffer.concat([Buffer.from([0xf0, ...lengths, left]), bytes]);
}
