// The playground: a text that the reader writes, what the model expected at each byte, and where
// its head looked. It shows a prepared text until the model is started.

const BEFORE = 16; // bytes shown before one

class Playground {
  constructor(payload) {
    this.payload = payload;
    this.session = new Session(payload, this, WRITTEN);
    this.chosen = null;
    this.isAtEnd = false; // the byte after the text is selected, also after a change of the text
    this.head = 0; // index of the head that is shown
    offerHeads(payload.head_blocks, (index) => this.showHead(index));
    this.writer = new Writer(this.session, (index) => this.chooseLater(index));
    $("to-example").addEventListener("click", () => this.chooseLater(payload.example.initial_target));
    $("warning").textContent = payload.warning;
    $("reason").textContent = payload.reason;
  }

  /** Shows the prepared text. */
  async open() {
    const { example } = this.payload;
    this.exampleCodes = await Promise.all(example.heads.map(({ codes }) => unpack(codes))); // (targets, distances) each
    this.toChoose = example.initial_target;
    await this.session.showExample();
  }

  /** Shows where another head looked. */
  showHead(index) {
    this.head = index;
    if (this.chosen !== null) this.choose(this.chosen);
  }

  /** Shows a text, read or not. */
  show(known) {
    this.known = known;
    const size = known.bytes.length;
    this.text = withNext(known.bytes);
    const end = size ? size + 1 : 0;
    const pane = (id, choose, hover) => new TextPane($(id), this.text, 0, end, choose, hover);
    this.textPane = pane("bytes", (index) => this.choose(index), (index) => {
      $("under-bytes").textContent = index === null ? this.pinned : `Pointer on ${this.describe(index)}`;
    });
    this.memoryPane = pane("remembered", (index) => this.look(index), (index) => {
      $("under-remembered").textContent = index === null ? this.pinnedWeight : `Pointer on ${this.describeWeight(index)}`;
    });
    for (const { cells } of [this.textPane, this.memoryPane]) {
      cells.forEach((cell, index) => cell.classList.toggle("written", known.written[index] === 1));
    }
    if (this.isAtEnd) this.toChoose = size;
    else if (this.chosen !== null) this.toChoose = this.chosen;
    this.writer.show();
    this.clear();
    this.paint();
    this.chooseAgain();
  }

  receive() {
    this.paint();
    if (this.chosen === null) this.chooseAgain();
  }

  finish({ bytes }) {
    const { length } = bytes;
    if (length) this.choose(this.chosen ?? (this.toChoose === length ? length : length - 1));
  }

  /** Selects a byte of the next text. */
  chooseLater(index) {
    this.isAtEnd = false;
    this.chosen = index;
  }

  /** Selects the byte that was selected in the last text, if it has been read. */
  chooseAgain() {
    if (this.toChoose < this.known.read) this.choose(this.toChoose);
  }

  /** Shows that no byte is selected. */
  clear() {
    this.chosen = null;
    this.pinned = $("under-bytes").textContent = "";
    $("guessing-hint").textContent = this.known.bytes.length ? "Not read yet." : "There is no text.";
    $("guesses").replaceChildren();
    this.attention = null;
    this.paintMemory();
  }

  /** True while the text is the prepared one. */
  get isExample() {
    const { example } = this.session;
    return example.bytes.length === this.known.bytes.length && example.common(this.known.bytes) === example.read;
  }

  /** Returns the bits of the text's bytes, with memory and without, of those that the model wrote or the others. */
  totals(written) {
    return this.known.bitsOf.map((bits) => sum(bits.filter((_, index) => this.known.written[index] === written)));
  }

  /** Colours the text by its bits, and compares the totals with and without the memory. */
  paint() {
    const { known, colours } = this;
    this.textPane.paint((index) => bitsLevel(known.bits[index] ?? NaN), colours.bits);
    const isApart = sum(known.written.subarray(0, known.read));
    const size = known.read - isApart;
    const [on, off] = this.totals(1);
    $("apart").textContent = isApart
      ? `Not counted: the ${plural(isApart, "byte")} that the model wrote (underlined), ` +
        `${(on / isApart).toFixed(2)} bits per byte; without memory ${(off / isApart).toFixed(2)}.`
      : "";
    this.paintRace(size, ...this.totals(0).map(Math.round));
  }

  /** Draws a bar for the bits of `size` bytes with the memory, and one for those without. */
  paintRace(size, on, off) {
    const { typical, headless, head_blocks: heads } = this.payload;
    $("comparison").textContent = "";
    if (!size) {
      $("race").replaceChildren();
      if (!this.known.bytes.length) $("comparison").textContent = "There is no text.";
      return;
    }
    const line = (name, bits, kind) => {
      const holder = make("div", "", { class: "holder" });
      holder.append(makeBar(bits / Math.max(on, off), kind));
      return [make("span", name), holder,
        make("span", `${thousands(bits)} bits, ${(bits / size).toFixed(2)} per byte`)];
    };
    if (!heads.length) {
      $("race").replaceChildren(...line("this text", on, ""));
      return;
    }
    const saved = off - on;
    const verdict = make("span", saved === 0
      ? "Cutting the memory makes no difference to this text."
      : `Its memory ${saved > 0 ? "saves" : "costs"} ${plural(Math.abs(saved), "bit")}, ` +
        `${percent(Math.abs(saved) / off)} of this text.`, { class: "verdict" });
    const lines = [...line("with memory", on, ""), ...line("memory cut", off, "off")];
    if (typical) {
      const [bits, cut] = typical; // per byte
      const share = 1 - bits / cut;
      const mark = () => make("i", "", { class: "typical" });
      lines[1].append(mark());
      lines[1].lastChild.style.left = `${100 * (1 - share) * off / Math.max(on, off)}%`;
      const score = make("span", "", { class: "hint wide" });
      score.append(mark(), ` ${this.payload.name} on Wikipedia text that it has not seen: ${bits.toFixed(2)} bits per byte, ` +
        `${cut.toFixed(2)} with its memory cut. It saves ${percent(share)} there; the first bar would end at this tick.`);
      lines.push(verdict, score);
    } else lines.push(verdict);
    $("race").replaceChildren(...lines);
    $("comparison").textContent =
      `Both bars are the same model. For the second, ${heads.length > 1 ? "the memory of each head" : "the head's memory"} ` +
      "is cut to the newest byte; the LSTMs keep " +
      "their state. It has not learned to work so: a model that learned without a head " +
      (typical && headless ? `needs ${Number(headless).toFixed(2)} bits per byte on the unseen text. ` : "would lose less. ") +
      "The memory helps to complete what began before: the first letters of a name must still be guessed." +
      (this.isExample ? " This text repeats its names, which suits the memory." : "");
  }

  recolour() {
    this.colours = new Colours();
    fillBitsLegend(this.colours);
    if (!this.known) return;
    this.paint();
    this.paintMemory();
  }

  /** Describes the bits of a byte. */
  describe(index) {
    const { known, payload } = this;
    if (index === known.bytes.length) return "the next byte: it has not come yet";
    const cut = known.bitsOf[1][index];
    return known.describe(index) +
      (cut === undefined || !payload.head_blocks.length ? "" : `, with its memory cut ${cost(cut)}`) +
      (known.written[index] ? "; written by the model" : "");
  }

  /** Selects a byte: shows what was expected in its place, and where the head looked. */
  async choose(index) {
    const { known, head } = this;
    this.chosen = index;
    this.isAtEnd = index === known.bytes.length;
    this.pinned = this.describe(index);
    this.textPane.moveTo(index, this.pinned);
    $("under-bytes").textContent = this.pinned;
    this.fillGuesses(index);
    const found = await this.weightsOf(index);
    if (this.chosen !== index || this.known !== known || this.head !== head) return;
    this.attention = found;
    this.paintMemory();
  }

  fillGuesses(index) {
    const { known } = this;
    const guesses = known.guesses[index];
    const came = known.bytes[index];
    if (!guesses || index === 0) {
      $("guessing-hint").textContent = index
        ? "Not read yet." : "Nothing comes before the first byte: all 256 bytes are equally likely.";
      $("guesses").replaceChildren();
      return;
    }
    $("guessing-hint").textContent =
      `Likeliest bytes after “${oneLine(known, index - BEFORE, index)}”` +
      (came === undefined ? ", where the text ends." : "; the one that came is orange.");
    const started = unfinished(known.bytes, index);
    const shown = guesses.symbols.slice(0, GUESSES);
    const rows = shown.map((symbol, i) => [symbol, guesses.probabilities[i]]);
    if (came !== undefined && !shown.includes(came)) rows.push([came, 2 ** -known.bits[index]]);
    $("guesses").replaceChildren(
      ...rows.map(([symbol, probability]) => guessItem(symbol, probability, came, started)));
  }

  /** Returns the weights behind the prediction of a byte, or null if there are none. */
  async weightsOf(index) {
    const { known, payload, head } = this;
    const isRead = index < known.read || known.read === known.bytes.length;
    if (!payload.head_blocks.length || index < 1 || !isRead) return null;
    const { example, live } = this.session;
    if (!live && index <= example.common(known.bytes)) {
      const { length } = example.bytes;
      const codes = this.exampleCodes[head].subarray((index - 1) * length, index * length);
      const scale = { step: payload.example.step, ...payload.example.heads[head] };
      const weights = Array.from({ length: index }, (_, row) => dequantise(codes[index - 1 - row], scale));
      return { first: 0, weights };
    }
    return this.session.request("attend", { target: index, block: payload.head_blocks[head] });
  }

  paintMemory() {
    const { attention, memoryPane, colours, known, chosen } = this;
    const target = () => (chosen === known.bytes.length ? "the next byte" : `“${nameOf(known, chosen)}”`);
    $("looking-hint").textContent = !this.payload.head_blocks.length ? "This model has no head."
      : attention ? `Weight of each earlier byte in the prediction of ${target()} (dashed).`
      : chosen === 0 ? "Before the first byte there is nothing to look at."
      : known.bytes.length ? "Not read yet." : "There is no text.";
    this.pinnedWeight = $("under-remembered").textContent = "";
    $("weights-legend").hidden = !attention;
    this.showReason(false);
    if (!attention) {
      memoryPane.paint(() => EVEN, colours.weights);
      memoryPane.dimFrom(chosen ?? 0);
      return;
    }
    const { first, weights } = attention;
    const largest = largestRelative(weights);
    fillRelativeLegend(colours, weights, largest);
    paintWeights(memoryPane, attention, colours, largest);
    memoryPane.dimFrom(chosen);
    let top = 0;
    weights.forEach((weight, i) => { if (weight > weights[top]) top = i; });
    this.look(first + top);
    this.showReason(known.bytes[first + top] === known.bytes[chosen]);
    memoryPane.show(first + top, chosen);
  }

  /** Offers the reason why the head looks at a copy of the byte, if it does. */
  showReason(isCopy) {
    $("why").classList.toggle("absent", !isCopy);
    if (!isCopy) $("why").open = false;
  }

  describeWeight(index) {
    if (index === this.known.bytes.length) return this.describe(index);
    return this.known.describeWeight(index, this.chosen, this.attention);
  }

  look(index) {
    this.pinnedWeight = this.describeWeight(index);
    this.memoryPane.moveTo(index, this.pinnedWeight);
    $("under-remembered").textContent = this.pinnedWeight;
  }
}

const start = () => startPage((payload) => new Playground(payload));
