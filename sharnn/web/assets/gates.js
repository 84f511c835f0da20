// The page of gates: the five numbers of one unit of an LSTM along a text.

// In the order of the model: input gate, forget gate, candidate, output gate, cell.
const [INPUT, FORGET, CANDIDATE, OUTPUT, CELL] = [0, 1, 2, 3, 4];
// From top to bottom, with a letter, a colour and a height in pixels. Gates are between 0 and 1; the
// candidate and the cell can be negative.
const TRACKS = [
  { number: INPUT, letter: "i", hue: "--more", height: 14 },
  { number: FORGET, letter: "f", hue: "--bits", height: 14 },
  { number: CANDIDATE, letter: "g", hue: "--less", height: 18, signed: true },
  { number: OUTPUT, letter: "o", hue: "--output", height: 14 },
  { number: CELL, letter: "c", hue: "--cell", height: 34, signed: true },
];
const GAP = 3; // pixels between tracks
const REPAINT = 150; // milliseconds between two pictures of a text that is being read

/** Formats a number with two decimals. */
const decimal = (number) => number.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−");

class Gates {
  constructor(payload) {
    this.payload = payload;
    this.session = new Session(payload, this);
    this.chosen = null;
    this.rows = []; // after each byte, the numbers of all units of the block
    $("block").replaceChildren(...Array.from({ length: payload.blocks }, (_, i) => make("option", placeInWords(i), { value: i })));
    $("unit").max = payload.units - 1;
    $("unit").value = 0;
    this.fields = new NumberFields(["unit"], $("refusal"), () => this.select(this.block, Number($("unit").value)));
    $("block").onchange = () => this.fields.accept() && this.select(Number($("block").value), this.unit);
    $("colour").replaceChildren(
      make("option", "nothing", { value: -1 }),
      ...payload.numbers.map((name, i) => make("option", name, { value: i })));
    $("colour").onchange = () => this.recolour();
    $("bytes").addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.measure()).observe($("bytes"));
  }

  /** Shows the prepared text. */
  async open() {
    const { example, numbers } = this.payload;
    this.exampleNumbers = await unpack(example.unit_numbers); // (units, 5, time)
    this.toChoose = example.initial_target;
    this.offer();
    [this.block, this.unit] = example.units[0];
    $("colour").value = numbers.indexOf(example.offers[0]?.number ?? "cell");
    await this.session.showExample();
    this.select(this.block, this.unit);
  }

  /** Fills the list of units that are offered. */
  offer() {
    const { offers } = this.payload.example;
    $("choosing-hint").textContent = (offers.length
      ? "These react most to links, digits and line ends; any other can be chosen below them."
      : "Choose any unit.") + " Blocks and units are numbered from 0, as in the library.";
    for (const place of new Set(offers.map((offer) => offer.place))) {
      const group = make("div", "", { role: "group", "aria-label": `units that react ${place}` });
      group.append(...offers.filter((offer) => offer.place === place).map((offer) => {
        const button = make("button", "", { type: "button" });
        button.append(make("b", `block ${offer.block}, unit ${offer.unit}`), make("span", offer.words));
        button.onclick = () => {
          $("colour").value = this.payload.numbers.indexOf(offer.number);
          this.select(offer.block, offer.unit);
        };
        button.unit = [offer.block, offer.unit];
        return button;
      }));
      group.prepend(make("h3", place));
      $("offers").append(group);
    }
  }

  /** Shows another unit; reads the text again if nothing is known about its block. */
  select(block, unit) {
    const other = block !== this.session.wishes.gates;
    Object.assign(this, { block, unit });
    this.session.wishes = { gates: block };
    $("block").value = block;
    $("unit").value = unit;
    this.fields.check();
    document.querySelectorAll("#offers button").forEach((button) => {
      button.setAttribute("aria-pressed", button.unit[0] === block && button.unit[1] === unit);
    });
    $("along-hint").textContent =
      `Below each byte, the numbers of unit ${unit} in block ${block} after reading it.`;
    if (other) this.rows = [];
    this.recolour();
    if (this.chosen !== null) this.choose(this.chosen);
    if (!this.session.starting) {
      if (!this.prepared()) this.session.start();
    } else if (other && document.body.dataset.started) {
      this.session.forget();
      this.session.read();
    }
  }

  /** Returns the numbers of this unit along the prepared text, or null if it is not on offer. */
  prepared() {
    if (this.known !== this.session.example) return null;
    const index = this.payload.example.units.findIndex(
      ([block, unit]) => block === this.block && unit === this.unit);
    const size = 5 * this.known.bytes.length;
    return index < 0 ? null : this.exampleNumbers.subarray(index * size, (index + 1) * size);
  }

  /** Returns i, f, g, o and c after a byte, or null if they are not known. */
  numbersAt(index) {
    const row = this.rows[index];
    if (row) return TRACKS.map((_, k) => row[k * this.payload.units + this.unit]);
    const prepared = this.prepared();
    return prepared && TRACKS.map((_, k) => prepared[k * this.known.bytes.length + index]);
  }

  /** Shows a text, read or not. */
  show(known) {
    this.known = known;
    this.rows.length = Math.min(this.rows.length, known.read);
    this.pane = new TextPane($("bytes"), known, 0, known.bytes.length,
      (index) => this.choose(index), (index) => this.describe(index ?? this.chosen));
    if (this.chosen !== null) this.toChoose = this.chosen;
    this.chosen = null;
    this.measure();
    this.paint();
    if (this.toChoose < known.bytes.length && this.numbersAt(this.toChoose)) this.choose(this.toChoose);
    else this.describe(null);
  }

  receive(known, part) {
    part?.gates.forEach((row, i) => (this.rows[part.from + i] = row));
    if (performance.now() - this.painted > REPAINT) this.paint();
  }

  finish({ bytes }) {
    this.paint();
    if (bytes.length) this.choose(Math.min(this.toChoose, bytes.length - 1));
  }

  /** Finds the place of each byte, which changes with the text and the width of the page. */
  measure() {
    if (!this.pane) return;
    const box = $("bytes").getBoundingClientRect();
    const top = $("bytes").scrollTop - box.top;
    let line = -Infinity;
    this.places = this.pane.cells.map((cell) => {
      const { left, width, bottom, height } = cell.getBoundingClientRect();
      const isNew = bottom + top > line + height / 2; // names of control characters are smaller
      if (isNew) line = bottom + top;
      return { left: left - box.left, width, bottom: line, isNew };
    });
    this.draw();
  }

  /** Colours the text, and draws the tracks. */
  paint() {
    const { known, colours } = this;
    const column = Number($("colour").value);
    this.values = Array.from(known.bytes, (_, index) => this.numbersAt(index));
    this.largest = this.values.reduce((most, row) => row ? Math.max(most, Math.abs(row[CELL])) : most, 1e-6);
    const signed = column === CANDIDATE || column === CELL;
    const scale = column === CELL ? this.largest : 1;
    const blank = signed ? EVEN : 0;
    this.pane.paint((index) => {
      const row = this.values[index];
      return row && column >= 0 ? blank + Math.round((STEPS * row[column]) / scale) : blank;
    }, signed ? colours.signed : colours.bits);
    if (column < 0) $("colour-legend").replaceChildren();
    else if (signed) {
      const all = [0, 5, 10, EVEN, 22, 27, 32].map((level) => colours.signed[level]);
      fillLegend("colour-legend", all, decimal(-scale), decimal(scale));
    } else {
      const all = [0, 4, 8, 12, 16].map((level) => colours.bits[level]);
      fillLegend("colour-legend", all, "0, shut", "1, open");
    }
    this.draw();
    this.painted = performance.now();
  }

  /** Draws the tracks of the bytes in view. */
  draw() {
    if (!this.values || !this.places) return;
    const [pane, canvas] = [$("bytes"), $("tracks")];
    const { clientWidth: width, clientHeight: height, scrollTop } = pane;
    const ratio = window.devicePixelRatio;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "10px ui-monospace, monospace";
    const style = getComputedStyle(document.documentElement);
    const all = TRACKS.reduce((sum, track) => sum + track.height + GAP, 0);
    const hues = TRACKS.map(({ hue }) => `rgb(${style.getPropertyValue(hue).trim()})`);
    this.places.forEach(({ left, width: wide, bottom, isNew }, index) => {
      let top = bottom - scrollTop - all - 1; // the pane's border
      if (top + all < 0 || top > height) return;
      TRACKS.forEach(({ number, letter, height: tall, signed }, k) => {
        context.fillStyle = hues[k];
        if (isNew) context.fillText(letter, 6, top + tall / 2 + 3);
        const zero = signed ? top + tall / 2 : top + tall;
        context.globalAlpha = 0.4;
        context.fillRect(left - 1, zero, wide, 0.5);
        context.globalAlpha = 1;
        const row = this.values[index];
        if (row) {
          const share = number === CELL ? row[number] / this.largest : row[number];
          const bar = signed ? (share * tall) / 2 : share * tall;
          context.fillRect(left - 0.5, Math.min(zero, zero - bar), wide - 1, Math.abs(bar));
        }
        top += tall + GAP;
      });
    });
  }

  recolour() {
    this.colours = new Colours();
    if (this.known) this.paint();
  }

  /** Selects a byte. */
  choose(index) {
    this.chosen = index;
    this.pane.moveTo(index, `${nameOf(this.known, index)}: ${this.say(index)}`);
    this.describe(index);
  }

  /** Returns the numbers after a byte in words. */
  say(index) {
    const row = this.numbersAt(index);
    if (!row) return "not read yet";
    return TRACKS.map(({ number }) => `${this.payload.numbers[number]} ${decimal(row[number])}`).join(", ");
  }

  /** Shows the numbers after a byte, and how they make its cell. */
  describe(index) {
    const row = index === null ? null : this.numbersAt(index);
    $("under-bytes").textContent =
      index === null ? (this.known.bytes.length ? "" : "There is no text.") : `After “${nameOf(this.known, index)}”${row ? ":" : ": not read yet"}`;
    if (!row) {
      $("numbers").replaceChildren();
      $("update").textContent = "";
      return;
    }
    $("numbers").replaceChildren(...TRACKS.map(({ number, hue, letter }) => {
      const pair = make("div");
      pair.style.setProperty("--mark", `var(${hue})`);
      pair.append(make("dt", `${this.payload.numbers[number]} ${letter}`), make("dd", decimal(row[number])));
      return pair;
    }));
    const before = index ? this.numbersAt(index - 1)?.[CELL] ?? NaN : 0;
    const [i, f, g, o, c, old] = [...row, before].map(decimal);
    const h = decimal(row[OUTPUT] * Math.tanh(row[CELL]));
    $("update").textContent =
      `c = f × c before + i × g: ${c} = ${f} × ${old} + ${i} × ${g}. It shows h = o × tanh(c): ${h}.`;
  }
}

const start = () => startPage((payload) => new Gates(payload));
