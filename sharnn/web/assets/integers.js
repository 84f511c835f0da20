// Products of small integers, each sum exact: the twin of sharnn/exact/products.py and ring.py.

const LARGEST = 127;
const WEIGHTS_TOTAL = 2 ** 16; // of a query's weights as whole numbers

/** Rows of 8-bit integers, with one scale each. */
class Integers {
  constructor(workspace, rows, columns) {
    this.kernels = workspace.kernels;
    this.columns = columns;
    this.stride = pad(columns);
    this.values = workspace.array(pad(rows + 8) * this.stride, Int8Array); // kernels take rows by four
    this.scales = new Float64Array(rows);
    this.p = workspace.array(this.stride, Int16Array);
    this.sums = workspace.array(rows + 8, Int32Array);
  }

  /** Returns the number of bytes in a workspace. */
  static size(rows, columns) {
    return pad(rows + 8) * (pad(columns) + 4) + 2 * pad(columns);
  }

  /** Returns row r. It shares memory with the others. */
  row(r) {
    return this.values.subarray(r * this.stride, r * this.stride + this.columns);
  }

  /** y = row r */
  copyRow(r, y) {
    const row = this.row(r);
    for (let c = 0; c < row.length; c++) y[c] = row[c] * this.scales[r];
  }

  /** Row r becomes x, rounded. */
  setRow(r, x) {
    this.scales[r] = quantise(x, LARGEST, this.row(r));
  }

  /** y[i] = W[first + i] x, for `count` rows of W. */
  multiply(x, y, first = 0, count = y.length) {
    // W x = s a (q p)  with W = s q and x = a p
    const a = quantise(x, LARGEST, this.p);
    this.multiplyIntegers(first, count);
    for (let i = 0; i < count; i++) y[i] = this.sums[i] * a * this.scales[first + i];
  }

  multiplyIntegers(first, count) {
    const { kernels, values, stride, columns, p, sums } = this;
    if (kernels) {
      const W = address(values) + first * stride;
      kernels.multiply8(W, address(p), address(sums), Math.ceil(count / 4) * 4, stride);
      return;
    }
    for (let i = 0; i < count; i++) {
      const start = (first + i) * stride;
      let sum = 0;
      for (let c = 0; c < columns; c++) sum += values[start + c] * p[c];
      sums[i] = sum;
    }
  }

  /** y += w W[r], with integers w and y */
  addMultiple(w, r, y) {
    const { kernels, values, stride, columns } = this;
    const start = r * stride;
    if (kernels) kernels.add_multiple8(w, address(values) + start, address(y), stride);
    else for (let c = 0; c < columns; c++) y[c] += w * values[start + c];
  }
}

/** The rows that a head remembers, oldest first. The newest `limit` of them can be attended to. */
class IntegerMemory {
  constructor(workspace, limit, capacity, dim, shiftedKeys) {
    this.rows = new Integers(workspace, capacity, dim);
    this.limit = limit;
    this.capacity = capacity;
    this.shiftedKeys = shiftedKeys;
    this.scores = new Float64Array(limit);
    this.mixed = workspace.array(dim, Int32Array);
    this.count = 0;
  }

  /** Returns the number of bytes in a workspace. */
  static size(capacity, dim) {
    return Integers.size(capacity, dim) + 4 * pad(dim);
  }

  /** Appends a row. If there is no space, the rows that no query can reach are dropped. */
  write(row) {
    const { rows: { values, scales, stride }, limit, capacity, count } = this;
    if (count === capacity) {
      values.copyWithin(0, (count - limit + 1) * stride, count * stride);
      scales.copyWithin(0, count - limit + 1, count);
      this.count = limit - 1;
    }
    this.rows.setRow(this.count++, row);
  }

  /** y = softmax(q k') m, with m the visible rows and k their keys */
  attend(q, y) {
    const { rows: { scales }, scores } = this;
    const used = Math.min(this.count, this.limit);
    const first = this.count - used;
    if (this.shiftedKeys) {
      // The key of a row is the row before it. The oldest one has no key: its score is 0.
      this.rows.multiply(q, scores.subarray(1), first, used - 1);
      scores[0] = 0;
    } else {
      this.rows.multiply(q, scores, first, used);
    }
    let [highest, largest] = [-Infinity, 0];
    for (let r = 0; r < used; r++) {
      highest = Math.max(highest, scores[r]);
      largest = Math.max(largest, scales[first + r]);
    }
    // softmax(q k') = e / sum(e), e = exp(q k' - max)
    let total = 0;
    for (let r = 0; r < used; r++) total += scores[r] = EXP.at(scores[r] - highest);
    // (e / sum) m = (s / 2^16) (w r)  with w = 2^16 (e / sum) (s_row / s), and s the largest
    const factor = WEIGHTS_TOTAL / total;
    const { mixed } = this;
    mixed.fill(0);
    for (let r = 0; r < used; r++) {
      const weight = rint(scores[r] * factor * (scales[first + r] / largest));
      if (weight !== 0) this.rows.addMultiple(weight, first + r, mixed); // few, if the head is sharp
    }
    for (let c = 0; c < y.length; c++) y[c] = mixed[c] * (largest / WEIGHTS_TOTAL);
  }
}
