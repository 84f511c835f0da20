// The page about the memory: a stream that moves through segments and memory, and the bits of a text
// under memories of different lengths, which the worker computes one after the other.

const WORDS = 6; // in the list of what a cut costs
const BEFORE = 12; // bytes shown before each of them
const FEWEST = 0.005; // extra bits of a word in the list
const STRONGEST = 4; // extra bits of the strongest colour

/** Returns the lengths of the memory to try on a text: powers of 2, and all rows that it can have. */
function lengthsFor(size, limit) {
  const whole = Math.max(1, Math.min(size, limit));
  const lengths = [];
  for (let length = 1; length < whole; length *= 2) lengths.push(length);
  return [...lengths, whole];
}

/** Returns the elements in an order in which the middle of each gap comes after its ends. */
function coarseFirst(elements) {
  const order = new Set();
  for (let step = 2 ** Math.ceil(Math.log2(elements.length + 1)); step >= 1; step /= 2) {
    for (let i = 0; i < elements.length; i += step) order.add(elements[i]);
  }
  return [...order];
}

/** Splits bytes into words, each with the bytes up to the next word: [{ start, end, letters }]. */
function wordsOf(bytes) {
  const isLetter = (byte) => byte > 127 || /\w/.test(String.fromCharCode(byte));
  const words = [];
  for (let i = 0; i < bytes.length; i++) {
    const letter = isLetter(bytes[i]);
    if (!words.length || (letter && !isLetter(bytes[i - 1]))) words.push({ start: i, end: i, letters: i });
    const word = words[words.length - 1];
    word.end = i + 1;
    if (letter) word.letters = i + 1;
  }
  return words;
}

class MemoryView {
  constructor(payload) {
    this.payload = payload;
    this.session = new Session(payload, this);
    this.stream = new StreamPicture();
    this.chosen = null; // byte that the reader selected
    this.marked = null; // byte whose bits are shown: that one, or the most expensive one
    this.position = null; // of the slider, which stays where the reader put it
    $("length").oninput = () => {
      this.position = Number($("length").value);
      this.showLength();
    };
    this.total = new Chart($("total"), (share) => {
      const distances = this.lengths.map((length) => Math.abs(this.axis().share(length) - share));
      $("length").value = this.position = distances.indexOf(Math.min(...distances));
      this.showLength();
    });
    this.one = new Chart($("one"));
  }

  async open() {
    const { example } = this.payload;
    const rows = await unpack(example.bits_by_length);
    const size = rows.length / example.lengths.length;
    this.exampleBits = new Map(
      example.lengths.map((length, i) => [length, Array.from(rows.subarray(i * size, (i + 1) * size))]));
    await this.session.showExample();
  }

  /** Shows a text, read or not. */
  show(known) {
    this.known = known;
    delete document.body.dataset.complete;
    this.stream.show(known);
    this.lengths = lengthsFor(known.bytes.length, this.payload.memory);
    this.bitsBy = new Map(); // bits of each byte, by the length of the memory
    if (known === this.session.example) this.exampleBits.forEach((bits, length) => this.bitsBy.set(length, bits));
    this.words = wordsOf(known.bytes);
    this.pane = new TextPane($("bytes"), known, 0, known.bytes.length, (index) => this.choose(index), (index) => {
      $("under-bytes").textContent = this.describe(index ?? this.marked);
    });
    const last = this.lengths.length - 1;
    $("length").max = last;
    $("length").value = Math.min(this.position ?? Math.min(3, last), last);
    this.chosen = this.marked = null;
    $("progress").textContent = "";
    this.showLength();
  }

  receive() {}

  /** Reads the text again with each shorter memory, after it has been read with the whole one. */
  async finish(known) {
    const { lengths, bitsBy } = this;
    const whole = lengths[lengths.length - 1];
    bitsBy.set(whole, known.bits);
    this.showLength();
    if (known !== this.session.example) {
      const waiting = coarseFirst(lengths.slice(0, -1));
      const count = waiting.length;
      while (waiting.length) {
        const shown = waiting.indexOf(this.length); // the reader waits for this one
        const [limit] = waiting.splice(Math.max(0, shown), 1);
        $("progress").textContent =
          `Reading again with a memory of ${rows(limit)} (${count - waiting.length} of ${count}) ...`;
        const bits = [];
        const receive = (part) => part.bits?.forEach((value) => bits.push(value));
        receive(await this.session.request("reread", { text: known.bytes, limit }, receive));
        if (this.known !== known) return;
        bitsBy.set(limit, bits);
        if (limit === this.length) this.showLength();
        else this.drawCurves();
      }
      $("progress").textContent = known.bytes.length ? `Read with ${plural(lengths.length, "length")} of the memory.` : "";
    }
    document.body.dataset.complete = known.bytes.length;
  }

  recolour() {
    this.colours = new Colours();
    const { weights } = this.colours;
    fillLegend("extra-legend", [0, 8, EVEN, 24, 32].map((level) => weights[level]), "cheaper", `${STRONGEST} bits more`);
    if (!this.known) return;
    this.showLength();
    this.stream.drawMap();
  }

  get length() {
    return this.lengths[Number($("length").value)];
  }

  get whole() {
    return this.lengths[this.lengths.length - 1];
  }

  name(length) {
    return length === this.whole ? `all ${thousands(length)}` : thousands(length);
  }

  axis() {
    const { lengths, whole } = this;
    const ticks = lengths.filter((length, i) => length === whole || (i % 2 === 0 && 3 * length <= whole));
    return new Axis([1, Math.max(2, whole)], ticks.map((length) => [length, thousands(length)]), "rows that a query can attend to", true);
  }

  /** Returns the extra bits of a byte under the memory of the slider; NaN if they are not known yet. */
  extra(index) {
    const { bitsBy, length, whole } = this;
    return (bitsBy.get(length)?.[index] ?? NaN) - (bitsBy.get(whole)?.[index] ?? NaN);
  }

  /** Shows everything that depends on the length of the memory. */
  showLength() {
    const { known, length, whole, bitsBy, pane, colours } = this;
    if (!known || !colours) return;
    $("length-value").textContent = this.name(length);
    $("length").setAttribute("aria-valuetext", `${this.name(length)} rows`);
    const size = known.bytes.length;
    const bits = bitsBy.get(length);
    const least = bitsBy.get(whole);
    if (!size || !bits || !least) {
      $("verdict").textContent = size ? "Not read yet." : "There is no text.";
    } else if (length === whole) {
      $("verdict").textContent = `With all its rows, the text costs ${thousands(Math.round(sum(least)))} bits.`;
    } else {
      const extra = sum(bits) - sum(least);
      $("verdict").textContent =
        `With a memory of ${rows(length)}, the text costs ${thousands(Math.round(sum(bits)))} bits: ` +
        `${short(Math.abs(extra))} ${extra < 0 ? "fewer" : "more"} than with all ${thousands(whole)}.`;
    }
    pane.paint((index) => {
      const share = this.extra(index) / STRONGEST;
      return Number.isNaN(share) ? EVEN : EVEN + Math.round(STEPS * Math.min(1, Math.max(-1, share)));
    }, colours.weights);
    this.listWords();
    this.mark(this.chosen ?? this.costs()[0]?.most ?? null);
  }

  /** Returns words with their extra bits and their byte that becomes most expensive, the most expensive word first. */
  costs() {
    return this.words.map((word) => {
      let [extra, most] = [0, word.start];
      for (let i = word.start; i < word.end; i++) {
        extra += this.extra(i);
        if (this.extra(i) > this.extra(most)) most = i;
      }
      return { ...word, sum: extra, most };
    }).filter((word) => word.sum >= FEWEST).sort((a, b) => b.sum - a.sum);
  }

  listWords() {
    const { known, length, whole, bitsBy } = this;
    const line = (a, b) => oneLine(known, a, b);
    const lines = new Set();
    // The same word after the same text is listed once.
    const words = this.costs().filter(({ start, end }) => {
      const text = line(Math.max(0, start - BEFORE), end);
      return !lines.has(text) && lines.add(text);
    }).slice(0, WORDS);
    $("words-hint").textContent = !known.bytes.length ? "" : length === whole ? "Choose a shorter memory."
      : !bitsBy.has(length) || !bitsBy.has(whole) ? ""
      : !words.length ? `No word costs more with a memory of ${rows(length)}.`
      : `Words whose bits increase most when the memory has only ${rows(length)}.`;
    $("words").replaceChildren(...words.map(({ start, letters, end, sum: extra, most }) => {
      const last = letters > start ? letters : end;
      const code = make("code");
      code.append(make("span", line(Math.max(0, start - BEFORE), start)), make("b", line(start, last)));
      const button = make("button", "", { type: "button" });
      button.append(code, barHolder(extra / words[0].sum), make("span", `+${short(extra)} bits`));
      button.onclick = () => this.choose(most);
      const item = make("li");
      item.append(button);
      return item;
    }));
  }

  describe(index) {
    if (index === null) return "";
    const { known, length, whole, bitsBy } = this;
    const [cut, full] = [length, whole].map((each) => bitsBy.get(each)?.[index]);
    const name = nameOf(known, index);
    if (cut === undefined || full === undefined) return `${name}: not read yet`;
    if (length === whole) return `${name}: ${short(full)} bits`;
    return `${name}: ${short(cut)} bits with ${rows(length)}, ${short(full)} with all ${thousands(whole)}`;
  }

  /** Selects a byte. */
  choose(index) {
    this.chosen = index;
    this.mark(index);
  }

  /** Shows the bits of a byte under each memory. */
  mark(index) {
    const { known, pane } = this;
    this.marked = index;
    $("choice").hidden = index === null;
    $("under-bytes").textContent = this.describe(index);
    if (index !== null) {
      pane.moveTo(index, this.describe(index));
      const context = oneLine(known, index - 14, index + 1);
      $("one-title").textContent = `The last byte of “${context}”`;
    }
    this.drawCurves();
  }

  /** Draws the bits by the length of the memory: of the whole text, and of the marked byte. */
  drawCurves() {
    const { known, marked } = this;
    const size = known.bytes.length;
    $("total").hidden = !size;
    if (!size) return;
    const means = this.byLength((bits) => sum(bits) / size);
    const [least, most] = [Math.min, Math.max].map((choose) => choose(...means.map(([, value]) => value)));
    // The chart has space for a difference of at least a tenth of the bits.
    const room = 0.15 * Math.max(most - least, 0.1 * most);
    const ends = most > 0 ? [Math.max(0, least - room), Math.max(most, 1.1 * least) + room] : [0, 8];
    this.drawCurve(this.total, means, ends, 3, "bits per byte");
    if (marked === null) return;
    const costs = this.byLength((bits) => bits[marked]);
    this.drawCurve(this.one, costs, [0, 1.15 * Math.max(1, ...costs.map(([, value]) => value))], 2, "bits");
  }

  /** Returns pairs of a length that has been read, and a number that its bits give. */
  byLength(number) {
    return this.lengths.filter((length) => this.bitsBy.has(length))
      .map((length) => [length, number(this.bitsBy.get(length))]);
  }

  drawCurve(chart, points, ends, digits, unit) {
    const here = points.find(([length]) => length === this.length);
    chart.draw(
      this.axis(), new Axis(ends, roundTicks(...ends), ""),
      [
        { kind: "line", points }, { kind: "dots", points },
        ...(here ? [{ kind: "spot", at: here, text: `${here[1].toFixed(digits)} ${unit}` }] : []),
      ],
      `${unit} by the length of the memory: ` +
        points.map(([length, value]) => `${length}: ${value.toFixed(digits)}`).join(", "));
  }
}

const start = () => startPage((payload) => new MemoryView(payload));
