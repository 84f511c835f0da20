// What the page was given: numbers as base64 of deflated little-endian arrays.

const KINDS = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array };

async function unpack({ kind, data }) {
  const letters = atob(data);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new KINDS[kind](await new Response(inflated).arrayBuffer());
}

/** Share of an even spread that the distances from `near` to before `far` have. */
function evenShare(near, far, visible) {
  return Math.max(0, Math.min(far, visible + 1) - near) / visible;
}

/** A reading: its text at once, the heads' weights after `load`. */
class Reading {
  constructor(payload) {
    Object.assign(this, payload); // name, about, notes, memory, first, watched, counts, edges, ...
    this.payload = payload;
  }

  async loadText() {
    const { text, bits, visible, likely, chances } = this.payload;
    this.bytes = await unpack(text);
    this.bits = await unpack(bits); // (bytes) NaN where nothing predicted the byte
    this.visible = await unpack(visible); // (watched) keys that the query sees
    this.likely = await unpack(likely); // (watched, guesses) bytes, the likeliest first
    this.chances = await unpack(chances); // (watched, guesses)
    this.glyphs = glyphs(this.bytes);
    this.places = glyphOfByte(this.glyphs, this.bytes.length);
  }

  async loadHeads() {
    this.heads = await Promise.all(this.payload.heads.map((head) => Head.load(head, this)));
  }
}

/** One head: for each watched byte its weights by distance, and what was computed from them. */
class Head {
  static async load(payload, reading) {
    const head = new Head();
    head.block = payload.block;
    head.memory = reading.memory;
    const names = ["codes", "effective", "median", "reach", "mass", "top", "chance", "spread", "bands"];
    const arrays = await Promise.all(names.map((name) => unpack(payload[name])));
    names.forEach((name, i) => (head[name] = arrays[i]));
    // Code 0 is no weight; the others are evenly spaced logarithms up to the largest weight.
    head.weightOf = new Float32Array(256);
    for (let code = 1; code < 256; code++) {
      head.weightOf[code] = 2 ** (payload.largest - payload.step * (255 - code));
    }
    head.largestRelative = head.findLargest(reading.visible);
    head.strongBand = head.findStrongBand(reading);
    head.meanMass = head.meanOfMass(reading.edges.length - 1);
    return head;
  }

  /** Weight of watched byte i on the byte `distance` back from it. */
  weight(i, distance) {
    if (distance < 1 || distance > this.memory) return 0;
    return this.weightOf[this.codes[i * this.memory + distance - 1]];
  }

  /** Codes of watched byte i: element 0 belongs to the byte just before it. */
  row(i) {
    return this.codes.subarray(i * this.memory, (i + 1) * this.memory);
  }

  /** All weights of watched byte i, in the same order. */
  weights(i) {
    const row = this.row(i);
    const weights = new Float32Array(row.length);
    for (let j = 0; j < row.length; j++) weights[j] = this.weightOf[row[j]];
    return weights;
  }

  /** Largest weight of any byte, against its even share. */
  findLargest(visible) {
    let largest = 1;
    for (let i = 0; i < visible.length; i++) {
      const row = this.row(i);
      let code = 0;
      for (let j = 0; j < row.length; j++) if (row[j] > code) code = row[j];
      largest = Math.max(largest, this.weightOf[code] * visible[i]);
    }
    return largest;
  }

  /** The weight of a band, against its even share, that only one in 200 exceeds. */
  findStrongBand({ edges, visible }) {
    const bands = edges.length - 1;
    const all = [];
    for (let i = 0; i < visible.length; i++) {
      for (let band = 0; band < bands; band++) {
        const even = evenShare(edges[band], edges[band + 1], visible[i]);
        if (even > 0) all.push(this.mass[i * bands + band] / even);
      }
    }
    return Math.max(2, Float32Array.from(all).sort()[Math.floor(0.995 * all.length)]);
  }

  /** (bands) the mean over the watched bytes of the weight in each band. */
  meanOfMass(bands) {
    const mean = new Float32Array(bands);
    const watched = this.mass.length / bands;
    this.mass.forEach((weight, place) => (mean[place % bands] += weight / watched));
    return mean;
  }

  /** The peaks of watched byte i: [{ distance, weight }], the largest first, none beside another. */
  peaks(i, most, apart) {
    const row = this.row(i);
    const counts = new Uint32Array(257); // of the codes, so that a threshold leaves few to sort
    for (const code of row) counts[code]++;
    let threshold = 255;
    for (let above = 0; threshold > 1 && above < most * apart * 2; threshold--) {
      above += counts[threshold];
    }
    const order = [];
    for (let j = 0; j < row.length; j++) if (row[j] >= threshold) order.push(j);
    order.sort((a, b) => row[b] - row[a] || a - b);
    const found = [];
    for (const j of order) {
      if (found.length === most) break;
      if (found.every((peak) => Math.abs(peak.distance - 1 - j) >= apart)) {
        found.push({ distance: j + 1, weight: this.weightOf[row[j]] });
      }
    }
    return found;
  }
}
