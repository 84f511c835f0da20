// Random numbers that are the same again for the same seed.

/** Mixes the 32 bits of a number: the finaliser of MurmurHash3. */
function mix(x) {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** Returns uniform number n of a seed, at least 0 and below 1. */
const uniform = (seed, n) => mix(mix(seed + 1) + n) / 2 ** 32;
