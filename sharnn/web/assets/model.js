// The whole model, one byte at a time. Each line has its counterpart in sharnn/model.py,
// attention.py or layers.py. No dropout, and the heads are collapsed.

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** y = LN(x): mean 0 and deviation 1, times a gain, plus a bias. */
function layerNorm({ weight, bias }, x, y) {
  let mean = 0;
  for (const value of x) mean += value;
  mean /= x.length;
  let variance = 0;
  for (const value of x) variance += (value - mean) ** 2;
  const scale = 1 / Math.sqrt(variance / x.length + 1e-12);
  for (let i = 0; i < x.length; i++) y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

/** p = softmax(scores), in place. */
function softmax(scores) {
  let largest = -Infinity;
  for (const score of scores) if (score > largest) largest = score;
  let total = 0;
  for (let i = 0; i < scores.length; i++) {
    scores[i] = Math.exp(scores[i] - largest);
    total += scores[i];
  }
  for (let i = 0; i < scores.length; i++) scores[i] /= total;
}

/** The weights of a model, which any number of streams share. */
class Model {
  constructor(file, workspace) {
    this.config = file.config;
    this.workspace = workspace;
    this.dim = file.config.dim;
    const vector = (name) => file.values(name);
    const matrix = (name) => file.matrix(name, workspace);
    const linear = (name) => ({ weight: matrix(`${name}.weight`), bias: vector(`${name}.bias`) });
    const norm = (name) => ({ weight: vector(`${name}.weight`), bias: vector(`${name}.bias`) });

    this.embedding = matrix("embedding.weight");
    this.outputBias = vector("output_bias");
    this.blocks = Array.from({ length: this.config.layers }, (_, i) => {
      const block = `blocks.${i}`;
      const head = `${block}.head`;
      return {
        startNorm: norm(`${block}.start_norm`),
        inputWeight: matrix(`${block}.lstm.weight_ih_l0`),
        inputBias: vector(`${block}.lstm.bias_ih_l0`),
        hiddenWeight: matrix(`${block}.lstm.weight_hh_l0`),
        hiddenBias: vector(`${block}.lstm.bias_hh_l0`),
        head: this.config.attention_layers.includes(i) && {
          memoryNorm: norm(`${block}.memory_norm`),
          middleNorm: norm(`${block}.middle_norm`),
          query: linear(`${head}.query`),
          queryNorm: norm(`${head}.query_norm`),
          queryGate: vector(`${head}.query_scale`).map(sigmoid),
          keyGate: vector(`${head}.key_scale`).map(sigmoid),
          valueGate: vector(`${head}.value_gate`),
        },
        skipNorm: norm(`${block}.skip_norm`),
        boomNorm: norm(`${block}.boom_norm`),
        expand: linear(`${block}.boom.expand`),
      };
    });
  }
}

/** One text that the model reads: the state of its LSTMs, and the rows that its heads remember. */
class Stream {
  /** Returns the number of bytes that a stream needs in a workspace. */
  static size({ dim, boom_dim: boomDim, vocab_size: symbols, layers, attention_layers }, limit) {
    const vectors = [boomDim, symbols, 4 * dim, 4 * dim, ...Array(4 + 2 * layers).fill(dim)];
    const rows = attention_layers.length * (Matrix.size(limit, dim) + 4 * pad(limit));
    return vectors.reduce((sum, length) => sum + 4 * pad(length), rows);
  }

  constructor(model, memoryLimit = model.config.memory) {
    this.model = model;
    this.memoryLimit = memoryLimit;
    const { workspace, dim, config } = model;
    const vector = (length = dim) => workspace.array(length);
    this.states = model.blocks.map(({ head }) => ({
      hidden: vector(),
      cell: vector(),
      rows: head && new Matrix(workspace, memoryLimit, dim), // a ring: new rows overwrite the oldest
      weights: head && vector(memoryLimit), // attention weights of the last query, by row
    }));
    // Intermediate vectors. A product also writes the padding of its result.
    this.h = vector();
    this.n = vector();
    this.q = vector();
    this.fromInput = vector(4 * dim);
    this.fromHidden = vector(4 * dim);
    this.attended = vector();
    this.u = vector(config.boom_dim);
    this.logits = vector(config.vocab_size);
    this.read = 0; // bytes so far
  }

  /** Reads one byte and returns the logits of the next; they are overwritten by the next step. */
  step(symbol) {
    const { model, h } = this;
    model.embedding.copyRow(symbol, h);
    model.blocks.forEach((block, i) => {
      this.lstm(block, this.states[i]);
      if (block.head) this.attend(block.head, this.states[i]);
      this.boom(block);
    });
    // logits = E h + b
    model.embedding.multiply(h, this.logits, this.logits.length);
    for (let i = 0; i < this.logits.length; i++) this.logits[i] += model.outputBias[i];
    this.read += 1;
    return this.logits;
  }

  /** h = LSTM(LN_start(h)) */
  lstm(block, { hidden, cell }) {
    const { h, n, fromInput, fromHidden } = this;
    const { dim } = this.model;
    layerNorm(block.startNorm, h, n);
    // [i f g o] = W n + b + U h' + b'
    block.inputWeight.multiply(n, fromInput, 4 * dim);
    block.hiddenWeight.multiply(hidden, fromHidden, 4 * dim);
    const gate = (j) => fromInput[j] + block.inputBias[j] + fromHidden[j] + block.hiddenBias[j];
    // c = sigma(f) c + sigma(i) tanh(g);  h' = sigma(o) tanh(c)
    for (let j = 0; j < dim; j++) {
      cell[j] = sigmoid(gate(dim + j)) * cell[j] + sigmoid(gate(j)) * Math.tanh(gate(2 * dim + j));
      hidden[j] = sigmoid(gate(3 * dim + j)) * Math.tanh(cell[j]);
    }
    h.set(hidden);
  }

  /** h = LN_mid(h) + v_gate (softmax(q m' / sqrt(d)) m), with m the rows remembered, h's included */
  attend(head, { rows, weights }) {
    const { h, n, q, attended } = this;
    const { dim } = this.model;
    layerNorm(head.memoryNorm, h, rows.row(this.read % this.memoryLimit));
    layerNorm(head.middleNorm, h, n);
    h.set(n);
    // q = sigma(q_s) LN_q(W_q h + b_q), times the gate of the keys
    head.query.weight.multiply(h, q, dim);
    for (let j = 0; j < dim; j++) q[j] += head.query.bias[j];
    layerNorm(head.queryNorm, q, q);
    for (let j = 0; j < dim; j++) q[j] *= head.queryGate[j] * (head.keyGate[j] / Math.sqrt(dim));
    const visible = weights.subarray(0, Math.min(this.read + 1, this.memoryLimit));
    rows.multiply(q, visible, visible.length);
    softmax(visible);
    weights.fill(0, visible.length);
    rows.mix(visible, attended, visible.length);
    for (let j = 0; j < dim; j++) h[j] += head.valueGate[j] * attended[j];
  }

  /** h = LN_ff(h) + Boom(LN_xff(h)), with Boom the sum of the chunks of gelu(W h + b) */
  boom(block) {
    const { h, n, u } = this;
    const { dim } = this.model;
    layerNorm(block.boomNorm, h, n);
    block.expand.weight.multiply(n, u, u.length);
    layerNorm(block.skipNorm, h, h);
    const whole = Math.floor(u.length / dim) * dim; // units beyond the last whole chunk are dropped
    for (let j = 0; j < whole; j++) {
      const x = u[j] + block.expand.bias[j];
      h[j % dim] += x * sigmoid(1.702 * x);
    }
  }
}
