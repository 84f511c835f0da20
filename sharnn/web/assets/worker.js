// The worker: it reads and writes text with the model, so that the page never waits for it.
//
// Requests are objects with an id and a type. A request is answered by messages with its id: any
// number of parts, and a last one with `done`. A new text ends the reading or writing in progress.

const SLICE = 30; // milliseconds between two looks at new requests

/** Waits until messages that have arrived are handled. */
function pause() {
  return new Promise((resume) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resume();
    };
    port2.postMessage(null);
  });
}

/** Returns a function that returns uniform numbers from a seed: xorshift. */
function randomNumbers(seed) {
  let state = (seed ^ 0x9e3779b9) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** Draws a symbol; see `sharnn.generate` for the settings. */
function sample(cost, { temperature, topK, topP }, random) {
  const order = Array.from(cost.keys()).sort((a, b) => cost[a] - cost[b]);
  if (temperature === 0) return order[0];
  // Bits are logits on another scale: p = 2^(-bits / temperature), and normalised.
  let weights = order.map((symbol) => 2 ** ((cost[order[0]] - cost[symbol]) / temperature));
  if (topK) weights = weights.slice(0, topK);
  let total = weights.reduce((sum, weight) => sum + weight, 0);
  if (topP < 1) {
    let within = 0;
    const count = weights.findIndex((weight) => (within += weight) >= topP * total) + 1;
    weights = weights.slice(0, count || weights.length);
    total = weights.reduce((sum, weight) => sum + weight, 0);
  }
  let point = random() * total;
  const drawn = weights.findIndex((weight) => (point -= weight) < 0);
  return order[drawn < 0 ? weights.length - 1 : drawn];
}

/** Returns the `count` cheapest symbols, and their probabilities. */
function guesses(cost, count) {
  const symbols = Array.from(cost.keys()).sort((a, b) => cost[a] - cost[b]).slice(0, count);
  return { symbols, probabilities: symbols.map((symbol) => 2 ** -cost[symbol]) };
}

class Reader {
  /** Prepares readings of a model's file, one for each limit of the memory. */
  load({ file, kernels, limits, longest }) {
    const model = new ModelFile(file);
    const { config } = model;
    this.limits = limits.map((limit) => limit ?? config.memory);
    const all = [...this.limits, config.memory]; // the last one for `reread`
    const readings = all.reduce((sum, limit) => sum + Reading.size(config, limit, longest), 0);
    const workspace = new Workspace(model.size() + readings, kernels);
    const weights = new Model(model, workspace);
    this.readings = all.map((limit) => new Reading(weights, limit, longest));
    this.spare = this.readings.pop();
    return { config, simd: workspace.kernels !== null };
  }

  /**
   * Reads a text with every reading. Each part has the bits of the bytes from `from` on, one array
   * per reading, and the first reading's guesses for each.
   */
  async *read({ text, count, from }) {
    const kept = Math.min(
      from, ...this.readings.map((reading) => reading.common(text)));
    this.readings.forEach((reading) => reading.rewind(kept));
    let part = null;
    let started = performance.now();
    for (let i = kept; i < text.length; i++) {
      part ??= { from: i, bits: this.readings.map(() => []), guesses: [] };
      part.guesses.push(guesses(this.readings[0].cost, count));
      this.readings.forEach((reading, k) => {
        part.bits[k].push(reading.cost[text[i]]);
        reading.read(text[i]);
      });
      if (performance.now() - started > SLICE) {
        yield part;
        part = null;
        started = performance.now();
      }
    }
    if (part) yield part;
    return { next: guesses(this.readings[0].cost, count) };
  }

  /** Reads a text from its start with another limit of the memory. Each part has the bits from byte `from` on. */
  async *reread({ text, limit }) {
    const { spare } = this;
    spare.restart(limit);
    let part = { from: 0, bits: [] };
    let started = performance.now();
    for (let i = 0; i < text.length; i++) {
      part.bits.push(spare.cost[text[i]]);
      spare.read(text[i]);
      if (performance.now() - started > SLICE) {
        yield part;
        part = { from: i + 1, bits: [] };
        started = performance.now();
      }
    }
    return part;
  }

  /** Continues the text that was read last. Each part has the bytes written. */
  async *write({ length, seed, ...settings }) {
    const random = randomNumbers(seed);
    const [reading] = this.readings;
    let part = [];
    let started = performance.now();
    for (let i = 0; i < length; i++) {
      const symbol = sample(reading.cost, settings, random);
      reading.read(symbol);
      part.push(symbol);
      if (performance.now() - started > SLICE) {
        yield { symbols: part };
        part = [];
        started = performance.now();
      }
    }
    yield { symbols: part };
  }

  /** Ends the reading or writing in progress. */
  async *pause() {}

  /** Returns the weights of the head in a block when it predicted byte `target`. */
  attend({ target, block, reading = 0 }) {
    return this.readings[reading].weights(target, block);
  }

  /** Returns the rows that the head in a block remembers, one after the other. */
  rows({ block, reading = 0 }) {
    return { rows: this.readings[reading].stream.states[block].memory.copy() };
  }
}

function startWorker() {
  const reader = new Reader();
  let newest = 0;
  self.onmessage = async ({ data: { id, type, ...request } }) => {
    try {
      const result = reader[type](request);
      if (result[Symbol.asyncIterator]) {
        newest = id;
        let { value, done } = await result.next();
        while (!done && newest === id) {
          self.postMessage({ id, ...value });
          await pause();
          if (newest === id) ({ value, done } = await result.next());
        }
        self.postMessage({ id, done: true, ...(done ? value : {}) });
      } else {
        self.postMessage({ id, done: true, ...result });
      }
    } catch (error) {
      self.postMessage({ id, done: true, error: String(error) });
    }
  };
}
