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

/** Returns the `count` cheapest symbols, and their probabilities. */
function guesses(cost, count) {
  const symbols = []; // sorting all of them would take a tenth of the time of a step
  cost.forEach((bits, symbol) => {
    if (bits >= cost[symbols[count - 1]]) return;
    const place = symbols.findLastIndex((other) => cost[other] <= bits) + 1;
    symbols.splice(place, 0, symbol);
    symbols.splice(count);
  });
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
   * per reading, and the first reading's guesses for each. If `gates` is the number of a block, it
   * also has the numbers of that block's LSTM in the first reading.
   */
  async *read({ text, count, from, gates = null }) {
    const kept = Math.min(
      from, ...this.readings.map((reading) => reading.common(text)));
    this.readings.forEach((reading) => reading.rewind(kept));
    let part = null;
    let started = performance.now();
    for (let i = kept; i < text.length; i++) {
      part ??= { from: i, bits: this.readings.map(() => []), guesses: [], gates: [] };
      part.guesses.push(guesses(this.readings[0].cost, count));
      this.readings.forEach((reading, k) => {
        part.bits[k].push(reading.cost[text[i]]);
        reading.read(text[i]);
      });
      if (gates !== null) part.gates.push(this.readings[0].gates(gates));
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

  /**
   * Continues the text that was read last. Each part has the bytes written and the bits of each.
   * The random numbers are those of the seed from number `first` on.
   */
  async *write({ length, seed, first = 0, ...settings }) {
    const [reading] = this.readings;
    let part = { symbols: [], bits: [] };
    let started = performance.now();
    for (let i = 0; i < length; i++) {
      const symbol = draw(distribution(reading.cost, settings), uniform(seed, first + i));
      part.symbols.push(symbol);
      part.bits.push(reading.cost[symbol]);
      reading.read(symbol);
      if (performance.now() - started > SLICE) {
        yield part;
        part = { symbols: [], bits: [] };
        started = performance.now();
      }
    }
    yield part;
  }

  /** Ends the reading or writing in progress. */
  async *pause() {}

  /** Returns the bits of each symbol in place of byte `target`. */
  costs({ target, reading = 0 }) {
    return { costs: this.readings[reading].costsAt(target) };
  }

  /** Returns the weights of the head in a block when it predicted byte `target`. */
  attend({ target, block, reading = 0 }) {
    return this.readings[reading].weights(target, block);
  }

  /** Returns the rows that the head in a block remembers, one after the other. */
  rows({ block, reading = 0 }) {
    return { rows: this.readings[reading].stream.states[block].memory.copy() };
  }

  /**
   * Returns the bits of byte `target`, and `count` guesses, for each of the sets of rows in
   * `removals` that its query in a block's head can't attend to.
   */
  without({ target, block, removals, count, reading = 0 }) {
    const { text } = this.readings[reading];
    const found = this.readings[reading].costsWithout(target, block, removals);
    return {
      bits: found.map((cost) => cost[text[target]]),
      guesses: found.map((cost) => guesses(cost, count)),
    };
  }
}

function startWorker(reader) {
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
