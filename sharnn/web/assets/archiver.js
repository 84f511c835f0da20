// The compressor's worker: it reads texts and archives with the model in exact arithmetic, so that all
// machines make the same archives.

const MOST_MEMORY = 2 ** 30; // bytes, for the lanes of an archive
const MAX_ROWS = 100_000; // whose weighted sum is exact, see sharnn/exact/ring.py
const LANE_BYTES = 2 ** 16; // about the size of a lane without its memory

/** A text that is read with exact steps. */
class ExactReading extends Reading {
  static size(config, limit, longest) {
    return ExactStream.size(config, Math.max(limit, longest));
  }

  open(model, limit, capacity) {
    return new ExactStream(model, limit, capacity);
  }

  /** Returns the bits of each symbol in an archive. */
  costs(logits) {
    return toFrequencies(logits).map((frequency) => Math.log2(TOTAL / frequency));
  }

  /** Returns the frequencies that `costs` has turned into bits. */
  static frequencies(costs) {
    return costs.map((bits) => Math.round(TOTAL / 2 ** bits));
  }
}

/** A lane of an archive: the frequencies of its next byte. */
class Lane {
  constructor(model, limit, capacity) {
    this.stream = new ExactStream(model, limit, capacity);
    this.frequencies = toFrequencies(this.stream.logits); // equal: nothing is known yet
  }

  read(symbol) {
    this.frequencies = toFrequencies(this.stream.step(symbol));
  }
}

class Archiver extends Reader {
  /** Prepares a model's file for reading a text. Archives have lanes of their own. */
  load({ file, kernels, limits: [limit], longest }) {
    const model = new ModelFile(file);
    const { config } = model;
    const memory = limit ?? config.memory;
    const size = ExactModel.size(model) + ExactReading.size(config, memory, longest);
    const workspace = new Workspace(size, kernels);
    this.readings = [new ExactReading(new ExactModel(model, workspace), memory, longest)];
    return { config, simd: workspace.kernels !== null };
  }

  /** Returns the code of the text that was read last, and its archive. */
  encode({ fingerprint }) {
    const { history, text, length } = this.readings[0];
    const encoder = new Encoder();
    for (let i = 0; i < length; i++) encoder.write(ExactReading.frequencies(history[i]), text[i]);
    const code = encoder.finish();
    return { code, archive: makeArchive(text.subarray(0, length), length ? [code] : [], fingerprint) };
  }

  /** Reads a text of `length` bytes from its code. Each part has the bytes read. */
  async *decode({ code, length }) {
    const decoder = new Decoder(code);
    const [reading] = this.readings;
    reading.rewind(0);
    let part = [];
    let started = performance.now();
    while (reading.length < length) {
      const symbol = decoder.read(ExactReading.frequencies(reading.cost));
      reading.read(symbol);
      part.push(symbol);
      if (performance.now() - started > SLICE) {
        yield { symbols: part };
        part = [];
        started = performance.now();
      }
    }
    yield { symbols: part };
  }

  /** Packs a content of any length. Each part has the share that is packed, and the last the archive. */
  async *pack({ content, fingerprint, ...model }) {
    const [lane] = openLanes(model, 1, content.length);
    return { archive: yield* report(pack(content, lane, fingerprint)) };
  }

  /** Opens an archive. Each part has the share that is restored, and the last the content. */
  async *unpack({ archive, fingerprint, ...model }) {
    try {
      return yield* report(unpack(archive, fingerprint, (...size) => openLanes(model, ...size)));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { refusal: error.message };
    }
  }
}

/** Returns a number of lanes with a model of their own, of at most `longest` bytes each. */
function openLanes({ file, kernels }, count, longest) {
  const model = new ModelFile(file);
  const limit = Math.max(1, Math.min(model.config.memory, longest, MAX_ROWS));
  const capacity = Math.max(1, Math.min(2 * limit, longest));
  const size = count * ExactStream.size(model.config, capacity);
  if (size + count * LANE_BYTES > MOST_MEMORY) {
    throw new Refusal(`The archive has ${count} lanes, for which a page has too little memory: open it with sharnn decompress.`);
  }
  const weights = new ExactModel(model, new Workspace(ExactModel.size(model) + size, kernels));
  return Array.from({ length: count }, () => new Lane(weights, limit, capacity));
}

/** Passes on the shares that a generator yields, but only some times a second. */
function* report(steps) {
  let started = performance.now();
  let step = steps.next();
  for (; !step.done; step = steps.next()) {
    if (performance.now() - started <= SLICE) continue;
    yield { share: step.value };
    started = performance.now();
  }
  return step.value;
}
