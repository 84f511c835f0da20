// The whole model in exact arithmetic, one byte at a time: the twin of sharnn/exact/stepper.py.

/** The weights of a model, which any number of streams share. */
class ExactModel {
  constructor(file, workspace) {
    this.config = file.config;
    this.workspace = workspace;
    const { dim, boom_dim: boomDim, layers, attention_layers: heads } = this.config;
    const vector = (name) => Float64Array.from(file.values(name));
    const matrix = (name, rows) => file.integers(name, workspace, rows);
    const norm = (name) => ({ gain: vector(`${name}.weight`), bias: vector(`${name}.bias`) });

    this.embedding = matrix("embedding.weight");
    this.outputBias = vector("output_bias");
    this.units = boomDim - (boomDim % dim); // Boom ignores those beyond the last whole chunk
    this.blocks = Array.from({ length: layers }, (_, i) => {
      const block = `blocks.${i}`;
      const hiddenBias = vector(`${block}.lstm.bias_hh_l0`);
      return {
        startNorm: norm(`${block}.start_norm`),
        input: matrix(`${block}.lstm.weight_ih_l0`),
        recurrent: matrix(`${block}.lstm.weight_hh_l0`),
        gatesBias: vector(`${block}.lstm.bias_ih_l0`).map((value, j) => value + hiddenBias[j]),
        lstmSkip: file.has(`${block}.lstm_skip`) ? vector(`${block}.lstm_skip`) : null,
        head: heads.includes(i) ? this.head(block, vector, matrix, norm) : null,
        skipNorm: norm(`${block}.skip_norm`),
        boomNorm: norm(`${block}.boom_norm`),
        expand: matrix(`${block}.boom.expand.weight`, this.units),
        expandBias: vector(`${block}.boom.expand.bias`),
      };
    });
  }

  head(block, vector, matrix, norm) {
    const head = `${block}.head`;
    // q k' / sqrt(d): both gates and the root become one factor of the query.
    const keyGate = vector(`${head}.key_scale`).map(exactSigmoid);
    const queryGate = vector(`${head}.query_scale`).map(exactSigmoid);
    const root = Math.sqrt(this.config.dim);
    return {
      memoryNorm: norm(`${block}.memory_norm`),
      middleNorm: norm(`${block}.middle_norm`),
      query: matrix(`${head}.query.weight`),
      queryBias: vector(`${head}.query.bias`),
      queryNorm: norm(`${head}.query_norm`),
      queryFactor: queryGate.map((gate, j) => (gate * keyGate[j]) / root),
      valueGate: vector(`${head}.value_gate`),
    };
  }

  /** Returns the number of bytes that the matrices of a file need in a workspace. */
  static size(file) {
    return file.matrices().reduce((sum, [, shape]) => sum + Integers.size(...shape), 0);
  }
}

/** One text that a model reads: the states of its LSTMs, and the memories of its heads. */
class ExactStream extends Rewindable {
  /**
   * @param {ExactModel} model - the weights
   * @param {number} limit - M, the maximum number of rows that a query can attend to
   * @param {number} capacity - the number of rows to store, at least M
   */
  constructor(model, limit, capacity) {
    super();
    this.model = model;
    const { workspace, config, units } = model;
    const { dim, vocab_size: symbols, shifted_keys: shiftedKeys = false } = config;
    const vector = (length = dim) => new Float64Array(length);
    this.states = model.blocks.map(({ head }) => ({
      hidden: vector(),
      cell: vector(),
      memory: head ? new IntegerMemory(workspace, limit, capacity, dim, shiftedKeys) : null,
    }));
    // Intermediate vectors.
    this.h = vector();
    this.n = vector();
    this.q = vector();
    this.attended = vector();
    this.gates = vector(4 * dim);
    this.fromHidden = vector(4 * dim);
    this.u = vector(units);
    this.logits = vector(symbols);
  }

  /** Returns the number of bytes that a stream needs in a workspace. */
  static size({ dim, attention_layers: heads }, capacity) {
    return heads.length * IntegerMemory.size(capacity, dim);
  }

  /** Reads one byte and returns the logits of the next, which the next step overwrites. */
  step(symbol) {
    const { model, h, logits } = this;
    model.embedding.copyRow(symbol, h);
    model.blocks.forEach((block, i) => {
      this.lstm(block, this.states[i]);
      if (block.head) this.attend(block.head, this.states[i].memory);
      this.boom(block);
    });
    // logits = E h + b
    model.embedding.multiply(h, logits);
    for (let v = 0; v < logits.length; v++) logits[v] += model.outputBias[v];
    return logits;
  }

  /** h = LSTM(LN_start(h)), plus g LN_start(h) if the model has that skip */
  lstm(block, { hidden, cell }) {
    const { h, n, gates, fromHidden } = this;
    const dim = h.length;
    normalise(h, n);
    scale(block.startNorm, n, n);
    // [i f g o] = W n + U h' + b
    block.input.multiply(n, gates);
    block.recurrent.multiply(hidden, fromHidden);
    for (let j = 0; j < 4 * dim; j++) gates[j] = gates[j] + fromHidden[j] + block.gatesBias[j];
    for (let j = 0; j < dim; j++) {
      const i = SIGMOID.at(gates[j]);
      const f = SIGMOID.at(gates[dim + j]);
      const g = 2 * SIGMOID.at(2 * gates[2 * dim + j]) - 1; // tanh(g) = 2 sigma(2 g) - 1
      const o = SIGMOID.at(gates[3 * dim + j]);
      // c' = f c + i tanh(g);  h' = o tanh(c')
      cell[j] = f * cell[j] + i * g;
      hidden[j] = o * (2 * SIGMOID.at(2 * cell[j]) - 1);
    }
    h.set(hidden);
    if (block.lstmSkip) for (let j = 0; j < dim; j++) h[j] += block.lstmSkip[j] * n[j];
  }

  /** h = LN_mid(h) + v_gate (softmax(q k') m), with m the rows remembered, that of h included */
  attend(head, memory) {
    const { h, n, q, attended } = this;
    normalise(h, n);
    scale(head.memoryNorm, n, h);
    memory.write(h);
    scale(head.middleNorm, n, h);
    // q = sigma(q_s) LN_q(W_q h + b_q), times the keys' gate and 1 / sqrt(d)
    head.query.multiply(h, q);
    for (let j = 0; j < q.length; j++) q[j] += head.queryBias[j];
    normalise(q, q);
    scale(head.queryNorm, q, q);
    for (let j = 0; j < q.length; j++) q[j] *= head.queryFactor[j];
    memory.attend(q, attended);
    for (let j = 0; j < h.length; j++) h[j] += head.valueGate[j] * attended[j];
  }

  /** h = LN_ff(h) + Boom(LN_xff(h)), with Boom the sum of the chunks of gelu(W h + b) */
  boom(block) {
    const { h, n, q, u } = this;
    normalise(h, n);
    scale(block.boomNorm, n, q);
    block.expand.multiply(q, u);
    for (let j = 0; j < u.length; j++) {
      const x = u[j] + block.expandBias[j];
      u[j] = x * SIGMOID.at(1.702 * x);
    }
    scale(block.skipNorm, n, h);
    for (let chunk = 0; chunk < u.length; chunk += h.length) {
      for (let j = 0; j < h.length; j++) h[j] += u[chunk + j];
    }
  }
}
