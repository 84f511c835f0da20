// An arithmetic coder: a text becomes a number in an interval whose width is the product of all
// probabilities. Its twin is sharnn/compression/coder.py, which writes the same code.

const TOTAL = 2 ** 24; // sum of the frequencies of one prediction
const WHOLE = 2 ** 48; // width of the first interval; all products are exact in 53 bits
const NARROW = 2 ** 40; // a narrower interval is widened by one byte

/** Returns predictions as integers that sum to TOTAL, each at least 1. */
function toFrequencies(logits) {
  let likeliest = 0;
  for (let v = 1; v < logits.length; v++) if (logits[v] > logits[likeliest]) likeliest = v;
  const frequencies = new Float64Array(logits.length);
  let total = 0;
  for (let v = 0; v < logits.length; v++) {
    total += frequencies[v] = EXP.at(logits[v] - logits[likeliest]);
  }
  // f = 1 + floor(e (2^24 - V) / sum(e)), with e = exp(logits - max)
  const factor = (TOTAL - logits.length) / total;
  let rest = TOTAL;
  for (let v = 0; v < logits.length; v++) {
    frequencies[v] = 1 + Math.floor(frequencies[v] * factor);
    rest -= frequencies[v];
  }
  frequencies[likeliest] += rest; // of the rounding
  return frequencies;
}

class Encoder {
  constructor() {
    this.low = 0; // start of the interval, without the bytes that are in the code
    this.width = WHOLE;
    this.code = [];
  }

  /** Narrows the interval to the piece of a symbol. */
  write(frequencies, symbol) {
    let before = 0;
    for (let i = 0; i < symbol; i++) before += frequencies[i];
    const step = Math.floor(this.width / TOTAL);
    this.low += step * before;
    this.width = step * frequencies[symbol];
    this.carry();
    while (this.width < NARROW) {
      this.code.push(Math.floor(this.low / NARROW));
      this.low = (this.low % NARROW) * 256;
      this.width *= 256;
    }
  }

  /** Adds what exceeds the interval's bytes to the bytes before them. */
  carry() {
    if (this.low < WHOLE) return;
    this.low -= WHOLE;
    let last = this.code.length - 1;
    while (this.code[last] === 255) this.code[last--] = 0;
    this.code[last] += 1;
  }

  /** Returns the code: the shortest one in the interval, if zeros follow it. */
  finish() {
    const end = this.low + this.width;
    let unit = WHOLE;
    while (Math.ceil(this.low / unit) * unit >= end) unit /= 256;
    this.low = Math.ceil(this.low / unit) * unit;
    this.carry();
    for (; unit < WHOLE; unit *= 256) {
      this.code.push(Math.floor(this.low / NARROW));
      this.low = (this.low % NARROW) * 256;
    }
    while (this.code.at(-1) === 0) this.code.pop();
    return Uint8Array.from(this.code);
  }
}

class Decoder {
  constructor(code) {
    this.code = code;
    this.next = 0; // byte of the code
    this.width = WHOLE;
    this.offset = 0; // of the coded number from the start of the interval
    for (let i = 0; i < 6; i++) this.take();
  }

  take() {
    this.offset = this.offset * 256 + (this.code[this.next++] ?? 0);
  }

  /** Returns the symbol in whose piece the number is, and narrows the interval to it. */
  read(frequencies) {
    const step = Math.floor(this.width / TOTAL);
    const point = Math.min(TOTAL - 1, Math.floor(this.offset / step));
    let before = 0;
    let symbol = 0;
    while (before + frequencies[symbol] <= point) before += frequencies[symbol++];
    this.offset -= step * before;
    this.width = step * frequencies[symbol];
    while (this.width < NARROW) {
      this.width *= 256;
      this.take();
    }
    return symbol;
  }
}
