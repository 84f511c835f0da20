// The whole model, one byte at a time. Each line has its counterpart in sharnn/model.py,
// attention.py or layers.py. No dropout, and the heads are collapsed.

/** y = W x + b */
function linear({ weight, bias }, x, y) {
  y.set(bias);
  weight.addProduct(x, y, bias.length);
}

/** y = LN(x): mean 0 and deviation 1, times a gain, plus a bias. */
function layerNorm({ weight, bias }, x, y) {
  let mean = 0;
  for (let i = 0; i < x.length; i++) mean += x[i];
  mean /= x.length;
  let variance = 0;
  for (let i = 0; i < x.length; i++) variance += (x[i] - mean) ** 2;
  const scale = 1 / Math.sqrt(variance / x.length + 1e-12);
  for (let i = 0; i < x.length; i++) y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

/** p = softmax(scores), in place. */
function softmax(workspace, scores) {
  let largest = -Infinity;
  for (let i = 0; i < scores.length; i++) if (scores[i] > largest) largest = scores[i];
  for (let i = 0; i < scores.length; i++) scores[i] -= largest;
  workspace.exp(scores);
  let total = 0;
  for (let i = 0; i < scores.length; i++) total += scores[i];
  for (let i = 0; i < scores.length; i++) scores[i] /= total;
}

/** The weights of a model, which any number of streams share. */
class Model {
  constructor(file, workspace) {
    this.config = file.config;
    this.workspace = workspace;
    const vector = (name) => file.values(name);
    const matrix = (name) => file.matrix(name, workspace);
    const affine = (weight, bias) => ({ weight: matrix(weight), bias: vector(bias) });
    const norm = (name) => ({ weight: vector(`${name}.weight`), bias: vector(`${name}.bias`) });

    this.embedding = matrix("embedding.weight");
    this.output = { weight: this.embedding, bias: vector("output_bias") };
    this.blocks = Array.from({ length: this.config.layers }, (_, i) => {
      const block = `blocks.${i}`;
      const head = `${block}.head`;
      return {
        startNorm: norm(`${block}.start_norm`),
        input: affine(`${block}.lstm.weight_ih_l0`, `${block}.lstm.bias_ih_l0`),
        hidden: affine(`${block}.lstm.weight_hh_l0`, `${block}.lstm.bias_hh_l0`),
        lstmSkip: file.has(`${block}.lstm_skip`) ? vector(`${block}.lstm_skip`) : null,
        head: this.config.attention_layers.includes(i) && {
          memoryNorm: norm(`${block}.memory_norm`),
          middleNorm: norm(`${block}.middle_norm`),
          query: affine(`${head}.query.weight`, `${head}.query.bias`),
          queryNorm: norm(`${head}.query_norm`),
          queryGate: vector(`${head}.query_scale`).map(sigmoid),
          keyGate: vector(`${head}.key_scale`).map(sigmoid),
          valueGate: vector(`${head}.value_gate`),
        },
        skipNorm: norm(`${block}.skip_norm`),
        boomNorm: norm(`${block}.boom_norm`),
        expand: affine(`${block}.boom.expand.weight`, `${block}.boom.expand.bias`),
      };
    });
  }
}

/** The rows that a head remembers, oldest first. The newest `limit` of them can be attended to. */
class Memory {
  constructor(workspace, limit, capacity, dim) {
    this.limit = limit;
    this.capacity = capacity;
    this.rows = new Matrix(workspace, capacity, dim);
    this.count = 0;
  }

  /** Returns a new last row. If there is no space, the rows that no query can reach are dropped. */
  append() {
    if (this.count === this.capacity) {
      const kept = this.limit - 1;
      const { values, stride } = this.rows;
      values.copyWithin(0, (this.count - kept) * stride, this.count * stride);
      this.count = kept;
    }
    this.count += 1;
    return this.rows.row(this.count - 1);
  }

  /** Returns a copy of the rows, one after the other. */
  copy() {
    const { columns } = this.rows;
    const copy = new Float32Array(this.count * columns);
    for (let r = 0; r < this.count; r++) copy.set(this.rows.row(r), r * columns);
    return copy;
  }

  /** Returns the index of the oldest row that a query at row `last` can attend to. */
  first(last) {
    return Math.max(0, last + 1 - this.limit);
  }
}

/** One text that a model reads: the states of its LSTMs, and the memories of its heads. */
class Stream extends Rewindable {
  /**
   * @param {Model} model - the weights
   * @param {number} limit - M, the maximum number of rows that a query can attend to
   * @param {number} capacity - the number of rows to store, at least M
   */
  constructor(model, limit = model.config.memory, capacity = 2 * limit) {
    super();
    this.model = model;
    const { workspace, config: { dim, boom_dim: boomDim, vocab_size: symbols } } = model;
    const vector = (length = dim) => workspace.array(length);
    this.states = model.blocks.map(({ head }) => ({
      hidden: vector(),
      cell: vector(),
      gates: vector(4 * dim), // of the newest byte: i, f, g and o
      memory: head ? new Memory(workspace, limit, capacity, dim) : null,
      weights: head ? vector(pad(limit) + 8) : null,
    }));
    // Intermediate vectors.
    this.h = vector();
    this.n = vector();
    this.q = vector();
    this.attended = vector();
    this.fromHidden = vector(4 * dim);
    this.u = vector(boomDim);
    this.logits = vector(symbols);
  }

  /** Returns the number of bytes that a stream needs in a workspace. */
  static size(config, limit = config.memory, capacity = 2 * limit) {
    const { dim, boom_dim: boomDim, vocab_size: symbols, layers, attention_layers } = config;
    const wide = Array(1 + layers).fill(4 * dim);
    const vectors = [boomDim, symbols, ...wide, ...Array(4 + 2 * layers).fill(dim)];
    const head = Matrix.size(capacity, dim) + 4 * (pad(limit) + 8);
    return vectors.reduce((sum, length) => sum + 4 * pad(length), attention_layers.length * head);
  }

  /**
   * Reads one byte and returns the logits of the next, which the next step overwrites.
   *
   * With `removed`, this byte's query in the head of `removed.block` can't attend to `removed.rows`.
   */
  step(symbol, removed = null) {
    const { model, h } = this;
    model.embedding.copyRow(symbol, h);
    model.blocks.forEach((block, i) => {
      this.lstm(block, this.states[i]);
      const rows = removed?.block === i ? removed.rows : null;
      if (block.head) this.attend(block.head, this.states[i], rows);
      this.boom(block);
    });
    // logits = E h + b
    linear(model.output, h, this.logits);
    return this.logits;
  }

  /** h = LSTM(LN_start(h)), plus g LN_start(h) if the model has that skip */
  lstm(block, { hidden, cell, gates }) {
    const { h, n, fromHidden } = this;
    const { workspace, config: { dim } } = this.model;
    layerNorm(block.startNorm, h, n);
    // [i f g o] = W n + b + U h' + b'
    linear(block.input, n, gates);
    linear(block.hidden, hidden, fromHidden);
    for (let j = 0; j < 4 * dim; j++) gates[j] += fromHidden[j];
    const [i, f, g, o] = [0, 1, 2, 3].map((k) => gates.subarray(k * dim, (k + 1) * dim));
    for (const gate of [i, f, o]) workspace.sigmoid(gate);
    workspace.tanh(g);
    // c = f c + i g;  h' = o tanh(c), with i, f, g and o after sigma or tanh
    for (let j = 0; j < dim; j++) cell[j] = f[j] * cell[j] + i[j] * g[j];
    hidden.set(cell);
    workspace.tanh(hidden);
    for (let j = 0; j < dim; j++) hidden[j] *= o[j];
    h.set(hidden);
    if (block.lstmSkip) for (let j = 0; j < dim; j++) h[j] += block.lstmSkip[j] * n[j];
  }

  /** h = LN_mid(h) + v_gate (softmax(q k') m), with m the rows remembered, that of h included */
  attend(head, { memory, weights }, removed) {
    const { h, n, q, attended } = this;
    const { dim } = this.model.config;
    layerNorm(head.memoryNorm, h, memory.append());
    layerNorm(head.middleNorm, h, n);
    h.set(n);
    // q = sigma(q_s) LN_q(W_q h + b_q), times the keys' gate and 1 / sqrt(d)
    linear(head.query, n, q);
    layerNorm(head.queryNorm, q, q);
    for (let j = 0; j < dim; j++) q[j] *= head.queryGate[j] * (head.keyGate[j] / Math.sqrt(dim));
    const last = memory.count - 1;
    const first = memory.first(last);
    this.weigh(memory.rows, q, first, last, weights, removed);
    attended.fill(0);
    memory.rows.from(first).addMix(weights, attended, last + 1 - first);
    for (let j = 0; j < dim; j++) h[j] += head.valueGate[j] * attended[j];
  }

  /** weights = softmax(q k'), with k the keys of rows `first` to `last` */
  weigh(rows, q, first, last, weights, removed) {
    const count = last + 1 - first;
    weights.fill(0);
    if (this.model.config.shifted_keys) {
      // The key of a row is the row before it. The first one has no key: its score is 0.
      rows.from(first).addProduct(q, weights.subarray(1), count - 1);
    } else {
      rows.from(first).addProduct(q, weights, count);
    }
    weights.fill(0, count);
    const visible = weights.subarray(0, count);
    for (const row of removed ?? []) {
      if (row >= first && row <= last) visible[row - first] = -Infinity;
    }
    if (visible.every((score) => score === -Infinity)) visible.fill(0); // it attends to nothing
    else softmax(this.model.workspace, visible);
  }

  /** h = LN_ff(h) + Boom(LN_xff(h)), with Boom the sum of the chunks of gelu(W h + b) */
  boom(block) {
    const { h, n, u } = this;
    const { workspace, config: { dim } } = this.model;
    layerNorm(block.boomNorm, h, n);
    linear(block.expand, n, u);
    workspace.gelu(u);
    layerNorm(block.skipNorm, h, h);
    // Units beyond the last whole chunk are dropped.
    for (let chunk = 0; chunk + dim <= u.length; chunk += dim) {
      for (let j = 0; j < dim; j++) h[j] += u[chunk + j];
    }
  }
}
