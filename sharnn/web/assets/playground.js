// The playground: a text that the reader writes, what the model expected at each byte, and where
// its head looked. It shows a prepared text until the model is started.

const LONGEST = 4000; // bytes of a text
const WRITTEN = 300; // bytes that one press of the button writes
const GUESSES = 8;

const toBytes = (text) => new TextEncoder().encode(text);

/** What is known about a text: its bytes, what each cost, and what was expected instead. */
class Known {
  constructor(bytes) {
    this.bytes = bytes;
    this.bits = []; // with the memory
    this.bitsWithout = []; // if the head attends to nothing but the newest row
    this.guesses = []; // { symbols, probabilities } for each byte, and for the one after the last
    this.glyphs = toGlyphs(bytes);
    this.glyphIndex = glyphOfByte(this.glyphs, bytes.length);
  }

  /** Returns the number of bytes that have been read. */
  get read() {
    return this.bits.length;
  }
}

class Playground {
  constructor(payload) {
    this.payload = payload;
    this.engine = null;
    this.chosen = null;
    this.turn = 0;
    $("title").textContent = payload.title;
    $("about").textContent = payload.about;
    $("start").textContent = `Start the model${payload.file ? "" : ` (${payload.size})`}`;
    $("notes").replaceChildren(...payload.notes.map((note) => make("p", note)));
  }

  /** Shows the prepared text, whose numbers were computed with the page. */
  async showExample() {
    const { example } = this.payload;
    const known = new Known(await unpack(example.text));
    known.bits = Array.from(await unpack(example.bits));
    known.bitsWithout = Array.from(await unpack(example.bits_without));
    const symbols = await unpack(example.guesses);
    const probabilities = await unpack(example.guess_probabilities);
    const count = example.guess_count;
    for (let i = 0; i <= known.bytes.length; i++) {
      const part = [i * count, (i + 1) * count];
      known.guesses.push({
        symbols: Array.from(symbols.subarray(...part)),
        probabilities: Array.from(probabilities.subarray(...part)),
      });
    }
    this.exampleCodes = await unpack(example.codes); // (targets, distances)
    this.example = known;
    $("text").value = new TextDecoder().decode(known.bytes);
    this.show(known);
    this.choose(example.initial_target);
    document.body.dataset.ready = "yes";
  }

  /** Shows a text, read or not. */
  show(known) {
    this.known = known;
    const size = known.bytes.length;
    const pane = (id, choose, hover) => new TextPane($(id), known, 0, size, choose, hover);
    this.textPane = pane("bytes", (index) => this.choose(index), (index) => {
      $("under-bytes").textContent = index === null ? this.pinned ?? "" : this.describe(index);
    });
    this.memoryPane = pane("remembered", (index) => this.look(index), (index) => {
      $("under-remembered").textContent =
        index === null ? this.pinnedWeight ?? "" : this.describeWeight(index);
    });
    this.chosen = null;
    this.paint();
  }

  describe(index) {
    const { known } = this;
    const bits = known.bits[index];
    const name = nameOf(known, index);
    return bits === undefined ? `${name}: not read yet` : `${name}: ${short(bits)} bits`;
  }

  /** Colours the text by its bits, and compares the totals with and without the memory. */
  paint() {
    const { known, colours } = this;
    this.textPane.paint((index) => bitsLevel(known.bits[index] ?? NaN), colours.bits);
    const total = (bits) => bits.reduce((sum, value) => sum + value, 0);
    const [on, off] = [total(known.bits), total(known.bitsWithout)];
    const size = known.bitsWithout.length;
    if (!size || size < known.read) {
      $("race").replaceChildren();
      return;
    }
    const line = (name, bits, kind) => {
      const bar = make("div", "", { class: `bar ${kind}` });
      bar.style.width = `${(100 * bits) / Math.max(on, off)}%`;
      return [
        make("span", name), bar,
        make("span", `${thousands(Math.round(bits))} bits, ${(bits / size).toFixed(2)} per byte`)];
    };
    const saved = off - on;
    const verdict = Math.abs(saved) < 0.5
      ? "The memory made no difference to this text."
      : `The memory ${saved > 0 ? "saved" : "cost"} ${thousands(Math.round(Math.abs(saved)))} bits, ` +
        `${percent(Math.abs(saved) / off)} of this text.`;
    $("race").replaceChildren(
      ...line("with memory", on, ""), ...line("without", off, "off"),
      make("span", verdict, { class: "verdict" }));
  }

  recolour() {
    this.colours = new Colours();
    const { bits, weights } = this.colours;
    fillLegend("bits-legend", [0, 4, 8, 12, 16].map((level) => bits[level]), "0 bits", "8 or more");
    const more = [EVEN, 20, 24, 28, 32].map((level) => weights[level]);
    fillLegend("weights-legend", more, "an even share or less", "much more");
    if (!this.known) return;
    this.paint();
    if (this.chosen !== null) this.choose(this.chosen);
  }

  /** Selects a byte: shows what was expected in its place, and where the head looked. */
  async choose(index) {
    const { known } = this;
    this.chosen = index;
    this.pinned = this.describe(index);
    this.textPane.moveTo(index, this.pinned);
    $("under-bytes").textContent = this.pinned;
    this.fillGuesses(index);
    const found = await this.weightsOf(index);
    if (this.chosen !== index || this.known !== known) return;
    this.attention = found;
    this.paintMemory();
  }

  fillGuesses(index) {
    const { known } = this;
    const guesses = known.guesses[index];
    const came = known.bytes[index];
    if (!guesses) {
      $("guessing-hint").textContent = "";
      $("guesses").replaceChildren();
      return;
    }
    const before = index ? oneLine(known.glyphs, known.glyphIndex, Math.max(0, index - 16), index) : "";
    $("guessing-hint").textContent = index < known.bytes.length
      ? `Most likely bytes after “${before}”; the one that came is orange.`
      : `Most likely bytes after the end of the text.`;
    const shown = guesses.symbols.slice(0, GUESSES);
    const rows = shown.map((symbol, i) => [symbol, guesses.probabilities[i]]);
    if (index < known.bytes.length && !shown.includes(came)) rows.push([came, 2 ** -known.bits[index]]);
    $("guesses").replaceChildren(...rows.map(([symbol, probability]) => {
      const item = make("li", "", symbol === came ? { class: "came" } : {});
      const bar = make("div", "", { class: "bar" });
      bar.style.width = `${100 * probability}%`;
      const holder = make("div");
      holder.append(bar);
      const { shown: glyph } = toGlyphs(Uint8Array.of(symbol))[0];
      item.append(make("code", glyph === " " ? "space" : glyph), holder, make("span", percent(probability)));
      return item;
    }));
  }

  /** Returns the weights behind the prediction of a byte, or null if there are none. */
  async weightsOf(index) {
    const { known, payload } = this;
    if (!payload.head_blocks.length || index < 1 || index > known.read) return null;
    if (known === this.example) {
      const { step, log2_largest: largest } = payload.example;
      const codes = this.exampleCodes.subarray((index - 1) * known.bytes.length, index * known.bytes.length);
      const weights = Array.from({ length: index }, (_, row) => {
        const code = codes[index - 1 - row];
        return code && 2 ** (largest - step * (255 - code));
      });
      return { first: 0, weights };
    }
    return this.engine.request("attend", { target: index, block: payload.head_blocks[0] });
  }

  paintMemory() {
    const { attention, memoryPane, colours, known, chosen } = this;
    const readable = chosen > 0 && attention;
    $("looking-hint").textContent = !this.payload.head_blocks.length
      ? "This model has no head."
      : readable
        ? `Weight of each earlier byte when the model predicted “${nameOf(known, Math.min(chosen, known.bytes.length - 1))}”.`
        : "Before the first byte there is nothing to look at.";
    if (!readable) {
      memoryPane.paint(() => EVEN, colours.weights);
      memoryPane.dimFrom(0);
      return;
    }
    const { first, weights } = attention;
    const largest = Math.max(2, ...weights.map((weight) => weight * weights.length));
    memoryPane.paint((index) => {
      if (index < first || index >= chosen) return EVEN;
      return Math.max(EVEN, weightLevel(weights[index - first] * weights.length, largest));
    }, colours.weights);
    memoryPane.dimFrom(chosen);
    let top = 0;
    weights.forEach((weight, i) => { if (weight > weights[top]) top = i; });
    this.look(first + top);
  }

  describeWeight(index) {
    const { attention, known, chosen } = this;
    const weight = attention?.weights[index - attention.first];
    const name = nameOf(known, index);
    if (weight === undefined || index >= chosen) return `${name}: not visible to this prediction`;
    const distance = chosen - index;
    return `${name}, ${thousands(distance)} ${distance === 1 ? "byte" : "bytes"} back: ` +
      `${percent(weight)} of the attention`;
  }

  look(index) {
    this.pinnedWeight = this.describeWeight(index);
    this.memoryPane.moveTo(index, this.pinnedWeight);
    $("under-remembered").textContent = this.pinnedWeight;
  }

  /** Starts the model, which takes a moment, and reads the text. */
  async start() {
    if (this.starting) return this.starting;
    $("start").disabled = true;
    $("status").textContent = "Starting the model ...";
    this.starting = this.load();
    return this.starting;
  }

  async load() {
    const { payload } = this;
    const before = performance.now();
    const file = fromBase64(payload.file ?? (await window.parent.loadSharnnWeights(payload.shared)));
    this.engine = new Engine(payload.worker);
    const kernels = fromBase64(payload.kernels);
    const { simd } = await this.engine.request("load", {
      file, kernels, limits: [null, 1], longest: LONGEST + WRITTEN,
    });
    const seconds = ((performance.now() - before) / 1000).toFixed(1);
    $("start").hidden = true;
    $("writing").disabled = false;
    this.speed = `ready after ${seconds} s${simd ? "" : ", without SIMD"}`;
    document.body.dataset.started = "yes";
    await this.read();
  }

  /** Reads the text as it is now, from the first change on. */
  async read() {
    const turn = ++this.turn;
    const text = $("text").value;
    let bytes = toBytes(text);
    const cut = bytes.length > LONGEST;
    if (cut) bytes = bytes.subarray(0, LONGEST);
    const old = this.known;
    const known = new Known(bytes);
    let same = 0;
    while (same < Math.min(old.read, bytes.length) && old.bytes[same] === bytes[same]) same++;
    known.bits = old.bits.slice(0, same);
    known.bitsWithout = old.bitsWithout.slice(0, same);
    known.guesses = old.guesses.slice(0, same);
    const chosen = this.chosen;
    this.show(known);
    const before = performance.now();
    let begin = bytes.length;
    document.body.dataset.reading = "yes";
    const last = await this.engine.request("read", { text: bytes, count: GUESSES, from: same }, (part) => {
      if (turn !== this.turn) return;
      begin = Math.min(begin, part.from);
      this.receive(part);
      this.paint();
      $("status").textContent = `${thousands(known.read)} of ${thousands(bytes.length)} bytes`;
    });
    if (turn !== this.turn) return;
    delete document.body.dataset.reading;
    known.guesses[bytes.length] = last.next;
    const rate = (bytes.length - begin) / ((performance.now() - before) / 1000);
    $("status").textContent =
      (cut ? `Only the first ${thousands(LONGEST)} bytes are read. ` : "") +
      `${thousands(bytes.length)} bytes; ${thousands(Math.round(rate))} a second; ${this.speed}.`;
    if (bytes.length) this.choose(Math.min(chosen ?? bytes.length - 1, bytes.length - 1));
  }

  receive({ from, bits, guesses }) {
    const { known } = this;
    bits[0].forEach((value, i) => (known.bits[from + i] = value));
    bits[1].forEach((value, i) => (known.bitsWithout[from + i] = value));
    guesses.forEach((guess, i) => (known.guesses[from + i] = guess));
  }

  /** Lets the model continue the text. */
  async write() {
    $("continue").hidden = true;
    $("stop").hidden = false;
    this.stopped = false;
    let bytes = toBytes($("text").value).subarray(0, LONGEST);
    const settings = {
      length: Math.min(WRITTEN, LONGEST - bytes.length),
      temperature: Number($("temperature").value),
      topK: Number($("top-k").value),
      topP: Number($("top-p").value),
      seed: crypto.getRandomValues(new Uint32Array(1))[0],
    };
    await this.engine.request("write", settings, ({ symbols }) => {
      if (this.stopped) return;
      bytes = Uint8Array.of(...bytes, ...symbols);
      $("text").value = new TextDecoder().decode(bytes);
      $("text").scrollTop = $("text").scrollHeight;
    });
    $("continue").hidden = false;
    $("stop").hidden = true;
    await this.read();
  }

  stop() {
    this.stopped = true;
    this.engine.request("pause");
  }
}

async function start() {
  const playground = new Playground(JSON.parse($("payload").textContent));
  window.sharnn = playground; // gives the console access to the numbers
  window.addEventListener("unhandledrejection", (event) => {
    $("problem").textContent = `Something went wrong on this page: ${event.reason}`;
    $("problem").hidden = false;
  });
  followTheme($("theme"), () => playground.recolour());
  fitFrame();
  await playground.showExample();
  let waiting = null;
  $("text").addEventListener("input", async () => {
    clearTimeout(waiting);
    await playground.start();
    waiting = setTimeout(() => playground.read(), 60);
  });
  $("start").onclick = () => playground.start();
  $("continue").onclick = () => playground.write();
  $("stop").onclick = () => playground.stop();
  const showTemperature = () => ($("temperature-value").textContent = $("temperature").value);
  $("temperature").oninput = showTemperature;
  showTemperature();
}
