// Arrays of numbers, stored as base64 of deflated little-endian bytes.

const KINDS = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array };

/** Returns the weight of a code: 0 of code 0; the others are evenly spaced logarithms. */
const dequantise = (code, { step, log2_largest: largest }) => code && 2 ** (largest - step * (255 - code));

async function unpack({ kind, data }) {
  const characters = atob(data);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < characters.length; i++) bytes[i] = characters.charCodeAt(i);
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new KINDS[kind](await new Response(inflated).arrayBuffer());
}
