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
    this.stream = this.open(model, limit, Math.max(limit, longest));
    this.text = new Uint8Array(longest);
    this.length = 0; // bytes read
    this.snapshots = [this.stream.snapshot()]; // after 0, 32, 64, ... bytes
    this.history = []; // the costs in place of each byte
    const { vocab_size: symbols } = model.config;
    this.atStart = new Float32Array(symbols).fill(Math.log2(symbols)); // nothing is known yet
    this.cost = this.atStart; // bits of each symbol as the next one
  }

  static size(config, limit, longest) {
    return Stream.size(config, limit, Math.max(limit, longest));
  }

  /** Returns a new stream of the model. */
  open(model, limit, capacity) {
    return new Stream(model, limit, capacity);
  }

  /** Returns the bits of each symbol. */
  costs(logits) {
    return costs(logits);
  }

  /** Reads one more byte. */
  read(symbol) {
    this.history[this.length] = this.cost;
    this.cost = this.costs(this.stream.step(symbol));
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
    this.goTo(length);
    this.cost = this.history[length];
    this.length = this.history.length = length;
    this.snapshots.length = Math.floor(length / SNAPSHOT_EVERY) + 1;
  }

  /** Forgets the text, and sets the limit of the memory to at most the one that it was made with. */
  restart(limit) {
    this.rewind(0);
    this.stream.states.forEach(({ memory }) => { if (memory) memory.limit = limit; });
  }

  /** Returns the stream to the point at which it had read `length` bytes. */
  goTo(length) {
    const number = Math.floor(length / SNAPSHOT_EVERY);
    this.stream.restore(this.snapshots[number]);
    for (let i = number * SNAPSHOT_EVERY; i < length; i++) this.stream.step(this.text[i]);
  }

  /** Reads the first `length` bytes again, at least one, and returns the logits of the next. */
  replay(length) {
    this.goTo(length - 1);
    return this.stream.step(this.text[length - 1]);
  }

  /** Returns the result of `act`, which may step; the state is the same after it. */
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
    return target === this.length ? this.cost : this.history[target];
  }

  /** Returns the numbers i, f, g, o and c of all units of a block's LSTM at the newest byte. */
  gates(block) {
    const { gates, cell } = this.stream.states[block];
    return Float32Array.of(...gates, ...cell);
  }

  /**
   * Returns the costs in place of byte `target` if its own query in a block's head can't attend to
   * some rows: an array of costs for each of the sets of rows in `removals`.
   */
  costsWithout(target, block, removals) {
    return this.inPast(() => {
      this.goTo(target - 1);
      const before = this.stream.snapshot();
      const step = (removed) => {
        this.stream.restore(before);
        return this.stream.step(this.text[target - 1], removed);
      };
      const found = removals.map((rows) => costs(step({ block, rows })));
      step(null); // the memories of the blocks above get their own row again
      return found;
    });
  }
}
