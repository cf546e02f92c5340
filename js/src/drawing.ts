/** Numbers that look drawn, and are the same each time. */

/**
 * A generator of numbers from 0 up to 1, which a text determines: the generator sfc32, whose state
 * is four hashes (FNV-1a) of the text. Nothing that is a secret may hang on it.
 */
export function drawnFrom(text: string): () => number {
  let [a, b, c, d] = [1, 2, 3, 4].map((seed) => hashOf(`${seed}${text}`)) as Four;
  const next = (): number => {
    const sum = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + sum) | 0;
    return sum >>> 0;
  };
  // The first ones still resemble each other where the texts do.
  for (let at = 0; at < 16; at += 1) next();
  // As many bits as a fraction has.
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}

type Four = [number, number, number, number];

function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  }
  return hash;
}
