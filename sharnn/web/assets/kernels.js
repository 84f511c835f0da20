// Matrices and their products: in WebAssembly if the browser has SIMD, otherwise in JavaScript.

const pad = (count) => Math.ceil(count / 8) * 8;

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

  /** y = W x, for the first `rows` rows of W. */
  multiply(x, y, rows) {
    if (this.kernels) {
      this.run(this.kernels.multiply, this.values, x, y, rows);
    } else {
      for (let r = 0; r < rows; r++) y[r] = this.product(r, x);
    }
  }

  /** y = p M, for the first `rows` rows of M. */
  mix(p, y, rows) {
    if (this.kernels) {
      this.run(this.kernels.mix, p, this.values, y, rows);
      return;
    }
    y.fill(0);
    for (let r = 0; r < rows; r++) {
      const start = r * this.stride;
      for (let c = 0; c < this.columns; c++) y[c] += p[r] * this.values[start + c];
    }
  }

  run(kernel, a, b, y, rows) {
    const bytes = this.stride * this.values.BYTES_PER_ELEMENT;
    kernel(a.byteOffset, b.byteOffset, y.byteOffset, pad(rows), bytes);
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
    this.scales = new Float32Array(rows);
  }

  static size(rows, columns) {
    return pad(rows) * pad(columns);
  }

  copyRow(r, y) {
    const row = this.row(r);
    for (let c = 0; c < row.length; c++) y[c] = row[c] * this.scales[r];
  }

  multiply(x, y, rows) {
    if (this.kernels) {
      this.run(this.kernels.multiply8, this.values, x, y, rows);
    } else {
      for (let r = 0; r < rows; r++) y[r] = this.product(r, x);
    }
    for (let r = 0; r < rows; r++) y[r] *= this.scales[r];
  }
}
