// The page of sampling: settings, the distribution that they leave, and a text drawn from it.

const MANY = 100; // bytes that one press of the button writes
const MOST = 1000; // bytes in all
const SHOWN = 20; // symbols of a distribution

class Sampling {
  constructor(payload) {
    this.payload = payload;
    this.session = new Session(payload, this, MOST);
    this.written = []; // for each byte its symbol, its bits and the settings it was drawn with
    $("one").onclick = () => this.write(1);
    $("many").onclick = () => this.write(MANY);
    $("many").textContent = `Write ${MANY}`;
    $("stop").onclick = () => this.session.stop();
    $("erase").onclick = () => this.erase();
    $("warning").textContent = payload.warning;
    for (const id of ["temperature", "top-k", "top-p"]) $(id).oninput = () => this.change();
    this.fields = new NumberFields(["seed"], $("refusal"), () => this.change());
  }

  /** Shows the prepared prompt. */
  async open() {
    const costs = await unpack(this.payload.example.costs);
    const symbols = 256;
    this.exampleCosts = Array.from(
      { length: costs.length / symbols }, (_, i) => costs.subarray(i * symbols, (i + 1) * symbols));
    await this.session.showExample();
  }

  /** Returns the settings as they are now. */
  get settings() {
    const number = (id) => Number($(id).value);
    return {
      temperature: number("temperature"), topK: number("top-k"), topP: number("top-p"),
      seed: number("seed"),
    };
  }

  /** Shows a new prompt, after which nothing is written yet. */
  show(prompt) {
    this.prompt = prompt;
    this.written = [];
    this.costs = new Map(); // of the symbols in place of some bytes
    this.ready = false;
    this.refresh();
  }

  receive() {}

  finish() {
    this.ready = true;
    this.choose(this.next);
  }

  /** The index of the next byte. */
  get next() {
    return this.prompt.bytes.length + this.written.length;
  }

  /** Shows the text as it is now. */
  refresh() {
    const { prompt, written, next } = this;
    this.text = withNext(Uint8Array.of(...prompt.bytes, ...written.map(({ symbol }) => symbol)));
    this.pane = new TextPane($("bytes"), this.text, 0, next + 1, (index) => this.choose(index),
      (index) => ($("under-bytes").textContent = this.describe(index ?? this.chosen)));
    for (let i = 0; i < prompt.bytes.length; i++) this.pane.cell(i).classList.add("prompt");
    this.chosen = next;
    this.shown = null;
    $("under-bytes").textContent = "";
    this.paint();
    const bits = sum(written.map((byte) => byte.bits));
    $("total").textContent = written.length
      ? `${plural(written.length, "byte")} written; by the model's own ` +
        `prediction ${short(bits)} bits, ${(bits / written.length).toFixed(2)} per byte.`
      : "";
    // Never disabled while it is in use: a disabled button loses the focus.
    for (const id of ["one", "many"]) $(id).disabled = written.length >= MOST;
  }

  paint() {
    const first = this.prompt.bytes.length;
    this.pane.paint((index) => bitsLevel(this.written[index - first]?.bits ?? NaN), this.colours.bits);
  }

  recolour() {
    this.colours = new Colours();
    fillBitsLegend(this.colours);
    if (this.pane) this.paint();
    this.showSettings();
  }

  showSettings() {
    const { temperature, topK, topP } = this.settings;
    $("temperature-value").textContent = temperature.toFixed(2);
    $("top-k-value").textContent = topK < 256 ? topK : "256, all";
    $("top-p-value").textContent = topP < 1 ? topP.toFixed(2) : "1, all";
  }

  /** Shows the next byte's distribution under the changed settings. */
  change() {
    this.showSettings();
    if (this.ready) this.choose(this.next);
  }

  /** Selects a byte, written or next: shows what it is drawn from. */
  async choose(index) {
    this.chosen = index;
    this.pane.moveTo(index, this.describe(index));
    $("under-bytes").textContent = this.describe(index);
    const { prompt } = this;
    const costs = await this.costsOf(index);
    if (costs && this.chosen === index && this.prompt === prompt) this.fill(index, costs);
  }

  /** Returns the bits of each symbol in place of a byte, or null if it was not reached yet. */
  async costsOf(index) {
    if (this.prompt === this.session.example) return this.exampleCosts[index];
    if (!this.ready) return null;
    if (!this.costs.has(index)) {
      this.costs.set(index, this.session.request("costs", { target: index }).then(({ costs }) => costs));
    }
    return this.costs.get(index);
  }

  /** Describes a byte of the text. */
  describe(index) {
    const name = nameOf(this.text, index);
    const first = this.prompt.bytes.length;
    if (index === this.next) return `${name}: not drawn yet`;
    if (index < first) return `${name}: part of the prompt`;
    const { bits, settings } = this.written[index - first];
    return `${name}: ${short(bits)} bits; ${inWords(settings)}, seed ${settings.seed}`;
  }

  /** Shows the distribution in place of a byte, before and after the settings. */
  fill(index, costs) {
    const { prompt, written, text } = this;
    const drawn = written[index - prompt.bytes.length];
    const came = index < this.next ? text.bytes[index] : null;
    const settings = drawn?.settings ?? this.settings;
    const found = distribution(costs, settings);
    const before = found.symbols.map((symbol) => 2 ** -costs[symbol]);
    const after = found.tempered.map((share, i) => (i < found.kept ? share / found.mass : 0));
    this.shown = { ...found, before, after, index, settings };
    const context = index
      ? `After “${oneLine(text, index - 16, index)}”, ` : "Before the first byte, all 256 are equally likely; ";
    $("drawing-hint").textContent = context + (drawn
      ? `as it was drawn: ${inWords(settings)}. The orange byte was drawn.`
      : `with ${inWords(settings)}.` + (came === null ? "" : " The prompt's own byte is orange."));
    const started = unfinished(text.bytes, index);
    this.name = (symbol) => shownAs(symbol, started);
    this.fillNumbers(settings);
    this.fillWheel(came, drawn);
    this.fillSymbols(settings, came);
  }

  /** States what is kept, and the entropies. */
  fillNumbers({ temperature }) {
    const { kept, mass, symbols, before, after } = this.shown;
    $("kept").textContent = temperature === 0
      ? "Temperature 0: the likeliest byte is always taken."
      : kept === symbols.length
        ? `Kept: all ${kept} bytes.`
        : `Kept: ${kept} of ${symbols.length} bytes, ${percent(mass)} of the probability after the temperature.`;
    $("entropy").textContent =
      `Entropy: ${entropy(before).toFixed(2)} bits before, ${entropy(after).toFixed(2)} after.`;
  }

  /** Draws the bytes that are kept side by side, and the random number that chose one. */
  fillWheel(came, drawn) {
    const { symbols, after, kept } = this.shown;
    const parts = symbols.slice(0, kept).map((symbol, i) => {
      const part = make("span", after[i] > 0.03 ? this.name(symbol) : "", symbol === came ? { class: "came" } : {});
      part.style.flex = `0 0 ${100 * after[i]}%`;
      return part;
    });
    if (drawn) {
      const mark = make("i");
      mark.style.left = `${100 * drawn.number}%`;
      parts.push(mark);
    }
    $("wheel").replaceChildren(...parts);
    $("wheel-hint").textContent = drawn
      ? `The random number ${drawn.number.toFixed(3)} fell on “${this.name(drawn.symbol)}”.`
      : "Each byte is as wide as it is likely. A random number from 0 to 1 chooses one.";
  }

  /** Lists the likeliest bytes with a line where the rest is cut. */
  fillSymbols(settings, came) {
    const { symbols, tempered, kept, before, after } = this.shown;
    const largest = Math.max(before[0], after[0]);
    const row = (i) => {
      const isCut = i >= kept;
      const item = make("li", "", { class: `${isCut ? "cut" : ""} ${symbols[i] === came ? "came" : ""}` });
      const bars = make("div");
      for (const [kind, share] of [["before", before[i]], ["after", isCut ? tempered[i] : after[i]]]) {
        bars.append(makeBar(share / largest, kind));
      }
      item.append(make("code", this.name(symbols[i])), bars,
        make("span", about(before[i])), make("span", isCut ? "cut" : about(after[i])));
      return item;
    };
    const rows = [];
    const rule = () => make("li", this.cutBy(settings), { class: "rule" });
    for (let i = 0; i < SHOWN; i++) {
      if (i === kept) rows.push(rule());
      rows.push(row(i));
    }
    if (kept === SHOWN) rows.push(rule());
    const rest = (shares) => about(sum(shares.slice(SHOWN)));
    rows.push(make("li", `${symbols.length - SHOWN} more bytes: ${rest(before)} before, ${rest(after)} after` +
      (kept > SHOWN && kept < symbols.length ? `; ${this.cutBy(settings)}` : ""), { class: "more" }));
    const rank = symbols.indexOf(came);
    if (rank >= SHOWN) rows.push(row(rank));
    $("symbols").replaceChildren(...rows);
  }

  /** Names the setting that cuts. */
  cutBy({ temperature, topK, topP }) {
    const { byK, byP, kept } = this.shown;
    if (temperature === 0) return "\u2002temperature 0 cuts here\u2002";
    return `\u2002${byK <= byP ? `top-k ${topK}` : `top-p ${topP}`} cuts after ${kept}\u2002`;
  }

  /** Writes some bytes, and starts the model if needed. */
  async write(length) {
    if (this.busy || !this.fields.accept()) return;
    this.busy = true;
    $("stop").hidden = false;
    try {
      if (await this.session.readAll("writes")) await this.draw(length);
    } finally {
      this.busy = false;
      $("stop").hidden = true;
    }
  }

  /** Draws some bytes, and selects one of them. */
  async draw(length) {
    const { prompt, settings } = this;
    const first = this.written.length;
    await this.session.request("write", {
      ...settings, length: Math.min(length, MOST - first), first,
    }, ({ symbols, bits }) => {
      if (this.prompt !== prompt) return;
      symbols.forEach((symbol, i) => this.written.push({
        symbol, bits: bits[i], settings, number: uniform(settings.seed, this.written.length),
      }));
      this.refresh();
      this.pane.show(this.next);
    });
    if (this.prompt !== prompt || this.written.length === first) return;
    // The newest byte, or the most surprising of many.
    const bits = this.written.slice(first).map((byte) => byte.bits);
    this.choose(prompt.bytes.length + first + bits.indexOf(Math.max(...bits)));
  }

  /** Erases what was written. */
  erase() {
    if (this.written.length) this.session.read();
  }
}

/** Returns the settings in words. */
function inWords({ temperature, topK, topP }) {
  const words = [`temperature ${temperature}`];
  if (topK < 256) words.push(`top-k ${topK}`);
  if (topP < 1) words.push(`top-p ${topP}`);
  return words.join(", ");
}

/** Formats a share as a percentage, the smallest ones only roughly. */
const about = (share) => (0 < share && share < 0.001 ? "<0.1%" : percent(share));

const start = () => startPage((payload) => new Sampling(payload));
