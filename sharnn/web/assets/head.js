// One head under gains and gates that a reader sets: scores and weights from the equations, as
// `SingleHeadAttention` in sharnn/attention.py computes them.

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const rootMeanSquare = (values) => Math.sqrt(mean(values.map((value) => value * value)));

/** Returns x with mean 0 and deviation 1: a LayerNorm without its gain and its bias. */
function normalise(x) {
  const middle = mean(x);
  const scale = 1 / Math.sqrt(mean(x.map((value) => (value - middle) ** 2)) + 1e-12);
  return x.map((value) => (value - middle) * scale);
}

/** Returns W x. */
function multiply(matrix, x) {
  return x.map((_, i) => {
    let sum = 0;
    for (let j = 0; j < x.length; j++) sum += matrix[i * x.length + j] * x[j];
    return sum;
  });
}

const largestOf = (values) => values.reduce((largest, value) => Math.max(largest, value), -Infinity);

/** Returns softmax(s). */
function softmax(scores) {
  const largest = largestOf(scores);
  const powers = scores.map((score) => Math.exp(score - largest));
  const total = sum(powers);
  return powers.map((power) => power / total);
}

/** Returns 2^H, with H the entropy of softmax(t s) in bits. */
function effectivePositions(scores, t = 1) {
  const largest = largestOf(scores);
  let [total, moment] = [0, 0];
  for (const score of scores) {
    const x = t * (score - largest);
    total += Math.exp(x);
    moment += Math.exp(x) * x;
  }
  // In nats: H = log(sum e^x) - sum p x
  return total * Math.exp(-moment / total);
}

/** Returns 8-bit integers times the scale of their row. */
function scaleRows(codes, scales) {
  const columns = codes.length / scales.length;
  return Float32Array.from(codes, (code, i) => (code - 128) * scales[Math.floor(i / columns)]);
}

class Head {
  /** @param model  the parameters of the model's head, and its settings */
  constructor(model) {
    this.model = model;
    this.dim = model.query_bias.length;
    this.rows = new Float32Array(0); // without gain and bias of LN_mem
  }

  /** The model's own settings. */
  get trained() {
    const { query_gain: queryGain, memory_gain: rowGain, query_scale, key_scale, shifted } = this.model;
    const gates = mean([...query_scale, ...key_scale].map(sigmoid));
    return {
      matrix: "model", queryGain: rootMeanSquare(queryGain), rowGain: rootMeanSquare(rowGain), gates, shifted,
    };
  }

  /** Removes gain and bias of LN_mem from the rows that the engine remembers. */
  receive(remembered) {
    const { memory_gain: gain, memory_bias: bias } = this.model;
    const { dim } = this;
    this.rows = remembered.map((value, i) => (gain[i % dim] ? (value - bias[i % dim]) / gain[i % dim] : 0));
  }

  row(j) {
    return this.rows.subarray(j * this.dim, (j + 1) * this.dim);
  }

  /**
   * Returns the vectors of a head with these settings. Gains and biases of the model are scaled to the
   * gain's root mean square, and one number is added to q_s and k_s for the mean of the gates. A fresh
   * head has equal components and no biases.
   */
  vectors({ matrix, queryGain, rowGain, gates }) {
    const { model, dim } = this;
    const every = (value) => new Float32Array(dim).fill(value);
    if (matrix !== "model") {
      return {
        queryGain: every(queryGain), queryBias: every(0), queryGate: every(gates), keyGate: every(gates),
        rowGain: every(rowGain), rowBias: every(0),
      };
    }
    const scaled = (values, factor) => values.map((value) => value * factor);
    const forQuery = queryGain / (rootMeanSquare(model.query_gain) || 1);
    const forRows = rowGain / (rootMeanSquare(model.memory_gain) || 1);
    const opened = this.openGates(gates);
    return {
      queryGain: scaled(model.query_gain, forQuery), queryBias: scaled(model.query_norm_bias, forQuery),
      queryGate: model.query_scale.map((logit) => sigmoid(logit + opened)),
      keyGate: model.key_scale.map((logit) => sigmoid(logit + opened)),
      rowGain: scaled(model.memory_gain, forRows), rowBias: scaled(model.memory_bias, forRows),
    };
  }

  /** Returns the number to add to q_s and k_s so that the gates have this mean. */
  openGates(gates) {
    const logits = [...this.model.query_scale, ...this.model.key_scale];
    let [low, high] = [-40, 40];
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      if (mean(logits.map((logit) => sigmoid(logit + middle))) < gates) low = middle;
      else high = middle;
    }
    return low;
  }

  /** Returns the normalised W_q h + b_q of row j. */
  query(j, matrix) {
    const { model } = this;
    const row = this.row(j);
    if (matrix === "identity") return normalise(row);
    if (matrix === "random") return normalise(multiply(this.random(), row));
    const h = row.map((value, c) => model.middle_gain[c] * value + model.middle_bias[c]);
    return normalise(multiply(model.matrix, h).map((value, c) => value + model.query_bias[c]));
  }

  /** Returns a matrix of normal numbers, always the same one. */
  random() {
    if (this.randomMatrix) return this.randomMatrix;
    // Box and Muller: two uniform numbers make a normal one.
    const normal = (_, i) =>
      Math.sqrt(-2 * Math.log(1 - uniform(0, 2 * i))) * Math.cos(2 * Math.PI * uniform(0, 2 * i + 1));
    this.randomMatrix = Float32Array.from({ length: this.dim ** 2 }, normal);
    return this.randomMatrix;
  }

  /** Returns the first row that byte `target`'s prediction can attend to, and the scores from there on. */
  scores(target, settings) {
    const { dim } = this;
    const { queryGain, queryBias, queryGate, keyGate, rowGain, rowBias } = this.vectors(settings);
    // q = sigma(q_s) LN_q(W_q h + b_q), times the keys' gate and 1 / sqrt(d)
    const q = this.query(target - 1, settings.matrix).map((n, c) =>
      queryGate[c] * (queryGain[c] * n + queryBias[c]) * keyGate[c] / Math.sqrt(dim));
    // q m_j, with m_j = gain r_j + bias
    const a = q.map((value, c) => value * rowGain[c]);
    const constant = q.reduce((sum, value, c) => sum + value * rowBias[c], 0);
    const first = Math.max(0, target - this.model.limit);
    const scores = new Float64Array(target - first);
    for (let j = first; j < target; j++) {
      let sum = constant;
      const start = j * dim;
      for (let c = 0; c < dim; c++) sum += a[c] * this.rows[start + c];
      scores[j - first] = sum;
    }
    if (settings.shifted) {
      // The key of a row is the row before it. The first one has no key: its score is 0.
      scores.copyWithin(1, 0, scores.length - 1);
      scores[0] = 0;
    }
    return { first, scores };
  }

  /** Returns the score of a row that fits perfectly: exact if all components of gains and gates are equal. */
  perfect({ queryGain, rowGain, gates }) {
    return Math.sqrt(this.dim) * gates * queryGain * gates * rowGain;
  }
}
