// A safetensors file: the size of its header, the header (JSON), and the numbers.

/** Returns the bytes that base64 text represents. */
function fromBase64(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < characters.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/** Returns the number that the 16 bits of a float16 represent. */
function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * 2 ** -24 * fraction;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * 2 ** (exponent - 25) * (1024 + fraction);
}

/** A model in the bytes that `sharnn.save` wrote: its configuration, and its tensors by name. */
class ModelFile {
  constructor(bytes) {
    this.bytes = bytes;
    const size = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    this.start = 8 + size; // of the numbers
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, this.start)));
    this.config = JSON.parse(header.__metadata__.sharnn).config;
    delete header.__metadata__;
    this.tensors = header; // type, shape and place of each
  }

  has(name) {
    return name in this.tensors;
  }

  /** Returns the values of a tensor, as they are stored: Float32Array or Int8Array. */
  values(name) {
    const { dtype, data_offsets: [begin, end] } = this.tensors[name];
    const { buffer } = this.bytes.slice(this.start + begin, this.start + end); // aligned
    if (dtype === "F32") return new Float32Array(buffer);
    if (dtype === "F16") return Float32Array.from(new Uint16Array(buffer), fromHalf);
    if (dtype === "I8") return new Int8Array(buffer);
    throw new Error(`${name} has the unknown type ${dtype}`);
  }

  /** Returns the class of a matrix in the engine, which depends on its type in the file. */
  kind(name) {
    return this.tensors[name].dtype === "I8" ? Int8Matrix : Matrix;
  }

  /** Returns a copy of a matrix in a workspace. */
  matrix(name, workspace) {
    const [rows, columns] = this.tensors[name].shape;
    const values = this.values(name);
    const matrix = new (this.kind(name))(workspace, rows, columns);
    for (let r = 0; r < rows; r++) {
      matrix.row(r).set(values.subarray(r * columns, (r + 1) * columns));
    }
    if (matrix.scales) matrix.scales.set(this.values(`${name}.scale`));
    return matrix;
  }

  /** Returns a matrix as 8-bit integers, with the numbers and scales of `to_int8` in sharnn/checkpoint.py. */
  integers(name, workspace, rows = this.tensors[name].shape[0]) {
    const [, columns] = this.tensors[name].shape;
    const values = this.values(name);
    const scales = this.has(`${name}.scale`) ? this.values(`${name}.scale`) : null;
    const matrix = new Integers(workspace, rows, columns);
    for (let r = 0; r < rows; r++) {
      const row = values.subarray(r * columns, (r + 1) * columns);
      const scale = scales ? scales[r] : scaleOf(row);
      matrix.scales[r] = scale;
      matrix.row(r).set(scales ? row : row.map((value) => rint(Math.fround(value / scale))));
    }
    return matrix;
  }

  /** Returns the names and the shapes of all matrices. */
  matrices() {
    return Object.entries(this.tensors)
      .filter(([name, { shape }]) => shape.length === 2 && !name.endsWith(".scale"))
      .map(([name, { shape }]) => [name, shape]);
  }

  /** Returns the number of bytes that all matrices need in a workspace. */
  size() {
    return this.matrices().reduce((sum, [name, shape]) => sum + this.kind(name).size(...shape), 0);
  }
}

/** Returns the scale of a row of floats in 8 bits, as a float32. */
function scaleOf(row) {
  const largest = row.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return Math.max(Math.fround(largest / 127), Math.fround(1e-30));
}
