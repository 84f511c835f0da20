// A text, and what the model made of it as far as it has read it.

const toBytes = (text) => new TextEncoder().encode(text);

/** Returns the marks of another text's bytes: those of the beginning and the end that both texts share. */
function keepMarks(old, marks, bytes) {
  const shorter = Math.min(old.length, bytes.length);
  let start = 0;
  while (start < shorter && old[start] === bytes[start]) start++;
  let end = 0;
  while (end < shorter - start && old[old.length - 1 - end] === bytes[bytes.length - 1 - end]) end++;
  const kept = new Uint8Array(bytes.length);
  kept.set(marks.subarray(0, start));
  kept.set(marks.subarray(old.length - end), bytes.length - end);
  return kept;
}

class Known {
  /**
   * @param bytes     the text
   * @param readings  number of readings, each with another limit of the memory
   * @param before    what is known about another text, of which the same beginning is kept
   * @param marked    { bytes, written } of a text, whose marks are kept
   */
  constructor(bytes, readings, before = null, marked = before) {
    this.bytes = bytes;
    this.glyphs = toGlyphs(bytes);
    this.glyphIndex = glyphOfByte(this.glyphs, bytes.length);
    // 1 for each byte that the model wrote
    this.written = marked ? keepMarks(marked.bytes, marked.written, bytes) : new Uint8Array(bytes.length);
    const same = before ? before.common(bytes) : 0;
    this.bitsOf = Array.from({ length: readings }, (_, k) => before ? before.bitsOf[k].slice(0, same) : []);
    // { symbols, probabilities } in place of each byte, and after the last
    this.guesses = before ? before.guesses.slice(0, same) : [];
  }

  /** Bits of the bytes in the first reading. */
  get bits() {
    return this.bitsOf[0];
  }

  /** Number of bytes that have been read. */
  get read() {
    return this.bits.length;
  }

  /** Returns the number of bytes at the start of another text that have been read here. */
  common(bytes) {
    const longest = Math.min(this.read, bytes.length);
    let same = 0;
    while (same < longest && this.bytes[same] === bytes[same]) same++;
    return same;
  }

  /** Adds what the worker sent: the bits and the guesses from byte `from` on. */
  receive({ from, bits, guesses }) {
    bits.forEach((values, k) => values.forEach((value, i) => (this.bitsOf[k][from + i] = value)));
    guesses.forEach((guess, i) => (this.guesses[from + i] = guess));
  }

  describe(index) {
    const bits = this.bits[index];
    const name = nameOf(this, index);
    return bits === undefined ? `${name}: not read yet` : `${name}: ${cost(bits)} bits`;
  }

  /**
   * Describes the weight of the byte at `index` in the prediction of the byte at `target`.
   *
   * @param attention  { first, weights }, with the weight of byte `first` first; null if unknown
   */
  describeWeight(index, target, attention) {
    const name = nameOf(this, index);
    const weight = attention?.weights[index - attention.first];
    if (weight === undefined || index >= target) return `${name}: not visible to this prediction`;
    return `${name}, ${plural(target - index, "byte")} back: ${percent(weight)} of the attention`;
  }
}

/** Colours a pane by weights; the colour is strongest at `largest` times an even share. */
function paintWeights(pane, { first, weights }, colours, largest) {
  pane.paint((index) => {
    const weight = weights[index - first];
    return weight === undefined ? EVEN : Math.max(EVEN, weightLevel(weight * weights.length, largest));
  }, colours.weights);
}

/** Returns the largest of some weights, as a multiple of an even share; at least 2. */
const largestRelative = (weights) => Math.max(2, ...weights.map((weight) => weight * weights.length));

/** Shows the colours that `paintWeights` gives some weights up to `largest` times an even share. */
function fillRelativeLegend(colours, weights, largest) {
  const [even, most] = [1, largest].map((share) => percent(Math.min(1, share / weights.length)));
  fillWeightsLegend(colours, `${most} (largest)`, `${even} (spread evenly)`);
}

/** Returns an item of a list of guesses: a byte after those of a `started` character, a bar and its probability. */
function guessItem(byte, probability, came, started) {
  const item = make("li", "", byte === came ? { class: "came" } : {});
  item.append(make("code", shownAs(byte, started)), barHolder(probability), make("span", percent(probability)));
  return item;
}
