// The playground: a text that the reader writes, what the model expected at each byte, and where
// its head looked. It shows a prepared text until the model is started.

const WRITTEN = 300; // bytes that one press of the button writes

class Playground {
  constructor(payload) {
    this.payload = payload;
    this.session = new Session(payload, this, WRITTEN);
    this.chosen = null;
    $("continue").onclick = () => this.write();
    $("stop").onclick = () => this.stop();
    const showTemperature = () => ($("temperature-value").textContent = $("temperature").value);
    $("temperature").oninput = showTemperature;
    showTemperature();
  }

  /** Shows the prepared text. */
  async open() {
    const { example } = this.payload;
    this.exampleCodes = await unpack(example.codes); // (targets, distances)
    this.toChoose = example.initial_target;
    await this.session.showExample();
  }

  /** Shows a text, read or not. */
  show(known) {
    this.known = known;
    const size = known.bytes.length;
    const pane = (id, choose, hover) => new TextPane($(id), known, 0, size, choose, hover);
    this.textPane = pane("bytes", (index) => this.choose(index), (index) => {
      $("under-bytes").textContent = index === null ? this.pinned ?? "" : known.describe(index);
    });
    this.memoryPane = pane("remembered", (index) => this.look(index), (index) => {
      $("under-remembered").textContent =
        index === null ? this.pinnedWeight ?? "" : this.describeWeight(index);
    });
    if (this.chosen !== null) this.toChoose = this.chosen;
    this.chosen = null;
    this.paint();
  }

  receive() {
    this.paint();
  }

  finish({ bytes }) {
    if (bytes.length) this.choose(Math.min(this.toChoose ?? bytes.length - 1, bytes.length - 1));
  }

  /** Colours the text by its bits, and compares the totals with and without the memory. */
  paint() {
    const { known, colours } = this;
    this.textPane.paint((index) => bitsLevel(known.bits[index] ?? NaN), colours.bits);
    const [on, off] = known.bitsOf.map(sum);
    const size = known.read;
    if (!size) {
      $("race").replaceChildren();
      return;
    }
    const line = (name, bits, kind) => [
      make("span", name), makeBar(bits / Math.max(on, off), kind),
      make("span", `${thousands(Math.round(bits))} bits, ${(bits / size).toFixed(2)} per byte`)];
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
    fillBitsLegend(this.colours);
    fillWeightsLegend(this.colours, "much more");
    if (!this.known) return;
    this.paint();
    if (this.chosen !== null) this.choose(this.chosen);
  }

  /** Selects a byte: shows what was expected in its place, and where the head looked. */
  async choose(index) {
    const { known } = this;
    this.chosen = index;
    this.pinned = this.known.describe(index);
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
    $("guesses").replaceChildren(...rows.map(([symbol, probability]) => guessItem(symbol, probability, came)));
  }

  /** Returns the weights behind the prediction of a byte, or null if there are none. */
  async weightsOf(index) {
    const { known, payload } = this;
    if (!payload.head_blocks.length || index < 1 || index > known.read) return null;
    if (known === this.session.example) {
      const codes = this.exampleCodes.subarray((index - 1) * known.bytes.length, index * known.bytes.length);
      const weights = Array.from(
        { length: index }, (_, row) => dequantise(codes[index - 1 - row], payload.example));
      return { first: 0, weights };
    }
    return this.session.request("attend", { target: index, block: payload.head_blocks[0] });
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
    paintWeights(memoryPane, attention, colours, largestRelative(weights));
    memoryPane.dimFrom(chosen);
    let top = 0;
    weights.forEach((weight, i) => { if (weight > weights[top]) top = i; });
    this.look(first + top);
  }

  describeWeight(index) {
    return this.known.describeWeight(index, this.chosen, this.attention);
  }

  look(index) {
    this.pinnedWeight = this.describeWeight(index);
    this.memoryPane.moveTo(index, this.pinnedWeight);
    $("under-remembered").textContent = this.pinnedWeight;
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
    await this.session.request("write", settings, ({ symbols }) => {
      if (this.stopped) return;
      bytes = Uint8Array.of(...bytes, ...symbols);
      $("text").value = new TextDecoder().decode(bytes);
      $("text").scrollTop = $("text").scrollHeight;
    });
    $("continue").hidden = false;
    $("stop").hidden = true;
    await this.session.read();
  }

  stop() {
    this.stopped = true;
    this.session.request("pause");
  }
}

const start = () => startPage((payload) => new Playground(payload));
