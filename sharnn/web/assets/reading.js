// A text that is read, changed, and read again from the change on.

const SNAPSHOT_EVERY = 32; // bytes

/** Returns the bits that each symbol costs: -log2 softmax(logits). */
function costs(logits) {
  let largest = -Infinity;
  for (const value of logits) if (value > largest) largest = value;
  let total = 0;
  for (const value of logits) total += Math.exp(value - largest);
  const log = largest + Math.log(total);
  return logits.map((value) => (log - value) / Math.LN2);
}

/** A stream, and the text that it has read. */
class Reading {
  /**
   * @param {Model} model - the weights
   * @param {number} limit - M, the maximum number of rows that a query can attend to
   * @param {number} longest - the maximum length of a text, in bytes
   */
  constructor(model, limit, longest) {
    this.stream = new Stream(model, limit, Math.max(limit, longest));
    this.text = new Uint8Array(longest);
    this.length = 0; // bytes read
    this.snapshots = [this.stream.snapshot()]; // after 0, 32, 64, ... bytes
    const { vocab_size: symbols } = model.config;
    this.atStart = new Float32Array(symbols).fill(Math.log2(symbols)); // nothing is known yet
    this.cost = this.atStart; // bits of each symbol as the next one
  }

  static size(config, limit, longest) {
    return Stream.size(config, limit, Math.max(limit, longest));
  }

  /** Reads one more byte. */
  read(symbol) {
    this.cost = costs(this.stream.step(symbol));
    this.text[this.length++] = symbol;
    if (this.length % SNAPSHOT_EVERY === 0) this.snapshots.push(this.stream.snapshot());
  }

  /** Returns the number of bytes at the start of a text that have been read already. */
  common(text) {
    const longest = Math.min(this.length, text.length);
    let same = 0;
    while (same < longest && text[same] === this.text[same]) same++;
    return same;
  }

  /** Forgets all bytes but the first `length`. */
  rewind(length) {
    if (length === this.length) return;
    this.cost = length ? costs(this.replay(length)) : this.atStart;
    if (!length) this.stream.restore(this.snapshots[0]);
    this.length = length;
    this.snapshots.length = Math.floor(length / SNAPSHOT_EVERY) + 1;
  }

  /** Forgets the text, and sets the limit of the memory to at most the one that it was made with. */
  restart(limit) {
    this.rewind(0);
    this.stream.states.forEach(({ memory }) => { if (memory) memory.limit = limit; });
  }

  /** Reads the first `length` bytes again, at least one, and returns the logits of the next. */
  replay(length, isRemoved = null) {
    const number = Math.floor((length - 1) / SNAPSHOT_EVERY);
    this.stream.restore(this.snapshots[number]);
    for (let i = number * SNAPSHOT_EVERY; i < length - 1; i++) this.stream.step(this.text[i]);
    return this.stream.step(this.text[length - 1], isRemoved);
  }

  /** Returns the result of `act`, which may replay; the state is the same after it. */
  inPast(act) {
    const present = this.stream.snapshot(); // the memory still has the rows after that point
    const result = act();
    this.stream.restore(present);
    return result;
  }

  /** Returns the weights with which a block's head predicted byte `target`, oldest row first. */
  weights(target, block) {
    return this.inPast(() => {
      this.replay(target);
      const { memory, weights } = this.stream.states[block];
      const first = memory.first(target - 1);
      return { first, weights: weights.slice(0, target - first) };
    });
  }

  /** Returns the bits of each symbol in place of byte `target`, which may be the next one. */
  costsAt(target) {
    if (target === this.length) return this.cost;
    return target ? this.inPast(() => costs(this.replay(target))) : this.atStart;
  }

  /** Returns the numbers i, f, g, o and c of all units of a block's LSTM at the newest byte. */
  gates(block) {
    const { gates, cell } = this.stream.states[block];
    return Float32Array.of(...gates, ...cell);
  }

  /** Returns the bits of byte `target` if its own queries can't attend to some rows. */
  costWithout(target, isRemoved) {
    return this.inPast(() => costs(this.replay(target, isRemoved))[this.text[target]]);
  }
}
