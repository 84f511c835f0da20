// Arithmetic that gives the same bits on every machine: the twin of sharnn/exact/arithmetic.py.
// JavaScript rounds each single operation as IEEE 754 prescribes, so the same operations in the same
// order have the same results. Sums of whole numbers up to 2^53 are exact in any order.

const ROUNDING = 1.5 * 2 ** 52; // from there on, float64 has no digits after the point
const LARGEST_IN_NORM = 2 ** 20;
const SMALLEST_SCALE = 2 ** -100; // of a vector of zeros
const HALVINGS = 12;
const TERMS = 6;

/** Returns the nearest whole number, and of two the even one. |x| < 2^51 */
const rint = (x) => x + ROUNDING - ROUNDING;

/** Returns e^x. |x| <= 40 */
function exactExp(x) {
  // e^x = (e^r)^4096 with r = x / 4096;  e^r = 1 + r (1 + r/2 (1 + r/3 (...)))
  const r = x * 2 ** -HALVINGS;
  let y = 1;
  for (let k = TERMS; k > 0; k--) y = 1 + (r * y) / k;
  for (let i = 0; i < HALVINGS; i++) y *= y;
  return y;
}

const exactSigmoid = (x) => 1 / (1 + exactExp(-Math.min(40, Math.max(-40, x))));

/** A function that is read from a table at the nearest of its points, and constant beyond them. */
class Table {
  constructor(f, low, high, steps) {
    Object.assign(this, { low, high, steps, first: low * steps });
    this.values = Float64Array.from(
      { length: (high - low) * steps + 1 }, (_, i) => f((this.first + i) / steps));
  }

  at(x) {
    const inside = x < this.low ? this.low : x > this.high ? this.high : x;
    return this.values[(rint(inside * this.steps) - this.first) | 0];
  }
}

const SIGMOID = new Table(exactSigmoid, -16, 16, 1024);
// Multiples of 2^-30, whose sums are exact.
const EXP = new Table((x) => rint(exactExp(x) * 2 ** 30) * 2 ** -30, -21, 0, 1024);

/** Writes whole numbers p from -largest to largest, and returns a scale a: x is about a p. */
function quantise(x, largest, p) {
  let reach = SMALLEST_SCALE;
  for (let i = 0; i < x.length; i++) reach = Math.max(reach, Math.abs(x[i]));
  const factor = largest / reach;
  for (let i = 0; i < x.length; i++) p[i] = rint(x[i] * factor);
  return reach / largest;
}

/** n = LN(h), without gain and bias. n may be h. */
function normalise(h, n) {
  // h = a p, so LN(h) = (p - mean(p)) / sqrt(var(p) + eps / a^2)
  const dim = h.length;
  const a = quantise(h, LARGEST_IN_NORM, n);
  let [total, squares] = [0, 0];
  for (let i = 0; i < dim; i++) {
    total += n[i];
    squares += n[i] * n[i];
  }
  const mean = total / dim;
  const variance = squares / dim - mean * mean;
  const deviation = Math.sqrt(Math.max(variance, 0) + 1e-12 / (a * a));
  for (let i = 0; i < dim; i++) n[i] = (n[i] - mean) / deviation;
}

/** y = n gain + bias. y may be n. */
function scale({ gain, bias }, n, y) {
  for (let i = 0; i < n.length; i++) y[i] = n[i] * gain[i] + bias[i];
}
