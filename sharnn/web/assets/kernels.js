// Matrices, products and functions of vectors: in WebAssembly if the browser has SIMD, otherwise in
// JavaScript.

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

const pad = (count) => Math.ceil(count / 8) * 8;
const address = (array) => array.byteOffset;

/** Memory that JavaScript and WebAssembly share, and from which vectors and matrices are cut. */
class Workspace {
  /**
   * @param {number} bytes - the size, padding included
   * @param {Uint8Array | null} binary - the assembled kernels; null for JavaScript
   */
  constructor(bytes, binary) {
    const pages = Math.ceil(bytes / 65536);
    this.kernels = null;
    this.buffer = new ArrayBuffer(0);
    if (binary && WebAssembly.validate(binary)) {
      const memory = new WebAssembly.Memory({ initial: pages });
      const module = new WebAssembly.Module(binary);
      this.kernels = new WebAssembly.Instance(module, { page: { memory } }).exports;
      this.buffer = memory.buffer;
    } else {
      this.buffer = new ArrayBuffer(pages * 65536);
    }
    this.used = 0; // bytes
  }

  /** Returns a new array of zeros, which is followed by zeros up to a multiple of 8 elements. */
  array(length, Kind = Float32Array) {
    const start = this.used;
    this.used += pad(length) * Kind.BYTES_PER_ELEMENT;
    if (this.used > this.buffer.byteLength) throw new Error("the workspace is full");
    return new Kind(this.buffer, start, length);
  }

  /** x = e^x, in place. */
  exp(x) {
    this.apply("exp", Math.exp, x);
  }

  /** x = sigma(x), in place. */
  sigmoid(x) {
    this.apply("sigmoid", sigmoid, x);
  }

  /** x = tanh(x), in place. */
  tanh(x) {
    this.apply("tanh", Math.tanh, x);
  }

  /** x = gelu(x) = x sigma(1.702 x), in place. */
  gelu(x) {
    this.apply("gelu", (value) => value * sigmoid(1.702 * value), x);
  }

  /** x = f(x), in place. A kernel takes four numbers at a time, and f those that are left. */
  apply(kernel, f, x) {
    const taken = this.kernels ? x.length - (x.length % 4) : 0;
    if (taken) this.kernels[kernel](address(x), taken);
    for (let i = taken; i < x.length; i++) x[i] = f(x[i]);
  }
}

/** A matrix of floats, whose rows are padded with zeros. */
class Matrix {
  constructor(workspace, rows, columns, Kind = Float32Array) {
    this.kernels = workspace.kernels;
    this.columns = columns;
    this.stride = pad(columns);
    this.values = workspace.array(pad(rows) * this.stride, Kind);
  }

  static size(rows, columns) {
    return 4 * pad(rows) * pad(columns);
  }

  /** Returns the matrix without its first r rows. It shares memory with this one. */
  from(r) {
    const rest = Object.create(this);
    rest.values = this.values.subarray(r * this.stride);
    return rest;
  }

  /** Returns row r. It shares memory with the matrix. */
  row(r) {
    return this.values.subarray(r * this.stride, r * this.stride + this.columns);
  }

  /** y = row r of W */
  copyRow(r, y) {
    y.set(this.row(r));
  }

  /** y += W x, for the first `rows` rows of W. */
  addProduct(x, y, rows) {
    const { kernels, values, stride } = this;
    if (kernels) {
      kernels.add_product(address(values), address(x), address(y), pad(rows), 4 * stride);
    } else {
      for (let r = 0; r < rows; r++) y[r] += this.product(r, x);
    }
  }

  /** y += p M, for the first `rows` rows of M. */
  addMix(p, y, rows) {
    const { kernels, values, stride } = this;
    if (kernels) {
      kernels.add_mix(address(p), address(values), address(y), pad(rows), 4 * stride);
      return;
    }
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < this.columns; c++) y[c] += p[r] * values[r * stride + c];
    }
  }

  product(r, x) {
    let sum = 0;
    const start = r * this.stride;
    for (let c = 0; c < this.columns; c++) sum += this.values[start + c] * x[c];
    return sum;
  }
}

/** A matrix of 8-bit integers with one scale per row: a quarter of the bytes to read. */
class Int8Matrix extends Matrix {
  constructor(workspace, rows, columns) {
    super(workspace, rows, columns, Int8Array);
    this.scales = workspace.array(rows);
    // The kernels multiply integers: each number of a vector is split into two of 16 bits, a high
    // and a low one. Four sums of a quarter of the products each must fit in 32 bits.
    this.integers = workspace.array(2 * this.stride, Int16Array);
    this.largest = Math.min(32767, Math.floor((2 ** 31 - 1) / 128 / (this.stride / 4)));
  }

  static size(rows, columns) {
    return pad(rows) * pad(columns) + 4 * pad(rows) + 4 * pad(columns);
  }

  copyRow(r, y) {
    const row = this.row(r);
    for (let c = 0; c < row.length; c++) y[c] = row[c] * this.scales[r];
  }

  addProduct(x, y, rows) {
    const { kernels, values, stride, scales, integers, largest } = this;
    if (kernels) {
      const [W, s, n] = [values, scales, integers].map(address);
      const unit = kernels.split(address(x), n, stride, largest);
      kernels.add_product8(W, s, n, unit, address(y), pad(rows), stride);
    } else {
      for (let r = 0; r < rows; r++) y[r] += scales[r] * this.product(r, x);
    }
  }
}
