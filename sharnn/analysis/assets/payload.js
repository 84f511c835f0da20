// The data of the explorer's page: a trace and its heads.

/** Returns the even share of the distances from `near` to before `far` together. */
function evenShare(near, far, visible) {
  return Math.max(0, Math.min(far, visible + 1) - near) / visible;
}

/** The trace of a text. `loadText` and `loadHeads` unpack its arrays. */
class Trace {
  constructor(payload) {
    this.payload = payload;
    this.memoryLimit = payload.memory_limit;
    this.first = payload.first; // index of the first target
    this.numTargets = payload.num_targets;
    this.overviewEdges = payload.overview_edges;
    this.counts = payload.counts;
    this.bandEdges = payload.band_edges;
  }

  async loadText() {
    const { payload } = this;
    this.bytes = await unpack(payload.text);
    this.bits = await unpack(payload.bits); // (bytes) NaN for a byte that is not predicted
    this.numVisible = await unpack(payload.num_visible); // (targets) keys its query can attend to
    this.guesses = await unpack(payload.guesses); // (targets, guesses) bytes, most probable first
    this.guessProbabilities = await unpack(payload.guess_probabilities); // (targets, guesses)
    this.glyphs = toGlyphs(this.bytes);
    this.glyphIndex = glyphOfByte(this.glyphs, this.bytes.length);
  }

  async loadHeads() {
    this.heads = await Promise.all(this.payload.heads.map((head) => Head.load(head, this)));
  }
}

/** One head: the weights of each target by distance, and the numbers computed from them. */
class Head {
  static async load(payload, trace) {
    const head = new Head();
    head.block = payload.block;
    head.memoryLimit = trace.memoryLimit;
    const load = async (property, name = property) => {
      head[property] = await unpack(payload[name]);
    };
    await Promise.all([
      load("codes"), // (targets, memory)
      load("effective"), // (targets) effective number of positions
      load("median"), // (targets) distance that half of the weight is within
      load("reach"), // (targets) distance that 90% of the weight is within
      load("mass"), // (targets, overview bands)
      load("top"), // (targets, counts) extra bits
      load("random"), // (targets, counts)
      load("randomStd", "random_std"), // (targets, counts)
      load("byBand", "by_band"), // (targets, bands)
    ]);
    head.weightOf = Float32Array.from({ length: 256 }, (_, code) => dequantise(code, payload));
    head.largestRelative = head.findLargest(trace.numVisible);
    head.strongBand = head.findStrongBand(trace);
    head.meanMass = head.meanOfMass(trace.overviewEdges.length - 1);
    return head;
  }

  /** Returns the weight of target i's query on the byte at a distance. */
  weight(i, distance) {
    if (distance < 1 || distance > this.memoryLimit) return 0;
    return this.weightOf[this.codesOf(i)[distance - 1]];
  }

  /** Returns the codes of target i: element 0 belongs to the byte just before it. */
  codesOf(i) {
    return this.codes.subarray(i * this.memoryLimit, (i + 1) * this.memoryLimit);
  }

  /** Returns the weights of target i, in the same order. */
  weights(i) {
    return Float32Array.from(this.codesOf(i), (code) => this.weightOf[code]);
  }

  /** Returns the largest weight of all targets, as a multiple of its even share. */
  findLargest(numVisible) {
    let largest = 1;
    for (let i = 0; i < numVisible.length; i++) {
      const codes = this.codesOf(i);
      let code = 0;
      for (let j = 0; j < codes.length; j++) if (codes[j] > code) code = codes[j];
      largest = Math.max(largest, this.weightOf[code] * numVisible[i]);
    }
    return largest;
  }

  /** Returns the relative weight that only one band in 200 exceeds. */
  findStrongBand({ overviewEdges: edges, numVisible }) {
    const bands = edges.length - 1;
    const all = [];
    for (let i = 0; i < numVisible.length; i++) {
      for (let band = 0; band < bands; band++) {
        const even = evenShare(edges[band], edges[band + 1], numVisible[i]);
        if (even > 0) all.push(this.mass[i * bands + band] / even);
      }
    }
    return Math.max(2, Float32Array.from(all).sort()[Math.floor(0.995 * all.length)]);
  }

  /** Returns the weight in each band, averaged over the targets. */
  meanOfMass(bands) {
    const mean = new Float32Array(bands);
    const numTargets = this.mass.length / bands;
    this.mass.forEach((weight, index) => (mean[index % bands] += weight / numTargets));
    return mean;
  }

  /** Returns at most `limit` peaks of target i, largest first and at least `apart` bytes apart. */
  peaks(i, limit, apart) {
    const codes = this.codesOf(i);
    const counts = new Uint32Array(257); // of each code; a threshold then leaves few to sort
    for (const code of codes) counts[code]++;
    let threshold = 255;
    for (let above = 0; threshold > 1 && above < limit * apart * 2; threshold--) {
      above += counts[threshold];
    }
    const order = [];
    for (let j = 0; j < codes.length; j++) if (codes[j] >= threshold) order.push(j);
    order.sort((a, b) => codes[b] - codes[a] || a - b);
    const peaks = [];
    for (const j of order) {
      if (peaks.length === limit) break;
      if (peaks.every((peak) => Math.abs(peak.distance - 1 - j) >= apart)) {
        peaks.push({ distance: j + 1, weight: this.weightOf[codes[j]] });
      }
    }
    return peaks;
  }
}
