// The explorer without a kernel: a prediction is selected, rows are removed from its query, and the
// bits that it then costs are shown. Until the model is started, it shows a prepared text.

const FEW = 3; // guesses without some rows

/** Standard deviation of draws. */
function deviation(values) {
  const middle = mean(values);
  return Math.sqrt(sum(values.map((value) => (value - middle) ** 2)) / (values.length - 1));
}

class AblationView {
  constructor(payload) {
    this.payload = payload;
    this.head = 0; // index of the head whose rows are removed
    offerHeads(payload.head_blocks, (index) => this.useHead(index));
    this.session = new Session(payload, this);
    this.chosen = null;
    this.picked = null; // { from, to }: bytes that were selected in the memory
    this.line = payload.counts.indexOf(16); // of the table
    this.turn = 0;
    this.last = Promise.resolve();
    const { repeat } = payload;
    $("lines-hint").textContent = "Heaviest: the rows with the largest weights. " +
      `Same ${repeat} bytes: the earlier places of the ${repeat} bytes before it, with what followed them. ` +
      "Selection: the rows that you select in part 4.";
    $("word").onchange = () => this.chosen !== null && this.choose(this.chosen);
    $("everywhere").onchange = () => this.measure();
    // Known before the pane handles the event.
    for (const type of ["click", "keydown"]) {
      $("remembered").addEventListener(type, ({ shiftKey }) => (this.shift = shiftKey), true);
    }
  }

  async open() {
    const { example } = this.payload;
    const names = ["codes", "extra", "random", "random_std", "line_guesses", "line_probabilities"];
    this.preparedHeads = await Promise.all(example.heads.map(async (head) => {
      const arrays = await Promise.all(names.map((name) => unpack(head[name])));
      const scale = { step: example.step, log2_largest: head.log2_largest };
      return { scale, ...Object.fromEntries(names.map((name, i) => [name, arrays[i]])) };
    }));
    this.toChoose = example.initial_target;
    await this.session.showExample();
  }

  /** Removes rows from another head. */
  useHead(index) {
    this.head = index;
    if (this.chosen !== null) this.measure();
  }

  /** Number of the block that has the head. */
  get block() {
    return this.payload.head_blocks[this.head];
  }

  /** What was computed of the head with the page. */
  get prepared() {
    return this.preparedHeads[this.head];
  }

  /** True while the numbers are those that were computed with the page. */
  get isExample() {
    return this.known === this.session.example;
  }

  show(known) {
    this.known = known;
    this.turn++;
    const pane = (id, choose, hover) => new TextPane($(id), known, 0, known.bytes.length, choose, hover);
    this.textPane = pane("bytes", (index) => this.choose(index), (index) => {
      $("under-bytes").textContent = index === null ? this.pinned : known.describe(index);
    });
    this.memoryPane = pane("remembered", (index) => this.pick(index), (index) => {
      $("under-remembered").textContent =
        index === null ? this.pinnedWeight : this.describeWeight(index);
    });
    if (this.picked && Math.max(this.picked.from, this.picked.to) >= known.bytes.length) this.picked = null;
    if (this.chosen !== null) this.toChoose = this.chosen;
    this.chosen = this.effects = this.attention = null;
    this.pinned = $("under-bytes").textContent = "";
    this.paint();
    this.paintTable();
    this.paintMemory();
  }

  receive() {
    this.paint();
  }

  finish({ bytes }) {
    if (bytes.length) this.choose(Math.min(this.toChoose ?? bytes.length - 1, bytes.length - 1));
  }

  recolour() {
    this.colours = new Colours();
    fillBitsLegend(this.colours);
    if (!this.known) return;
    this.paint();
    this.paintMemory();
  }

  paint() {
    this.textPane.paint((index) => bitsLevel(this.known.bits[index] ?? NaN), this.colours.bits);
  }

  /** Bytes whose predictions lose rows: the selected one, or its word. The first byte has no query. */
  get targets() {
    if (this.chosen === null) return [];
    const [a, b] = $("word").checked
      ? wordAround(this.known.bytes, this.chosen) : [this.chosen, this.chosen];
    return Array.from({ length: b + 1 - a }, (_, i) => a + i)
      .filter((index) => index >= 1 && index < this.known.read);
  }

  /** Names of the table's lines, in their order. */
  get lineNames() {
    const { counts, repeat } = this.payload;
    const heaviest = counts.map((count) => count === 1 ? "heaviest" : `heaviest ${count}`);
    return [...heaviest, `same ${repeat} bytes`, "selection"];
  }

  /** Returns the rows that line `line` removes from the query of a target with these weights. */
  rowsOf(line, target, found) {
    const { known: { bytes }, payload: { counts, repeat } } = this;
    if (line < counts.length) return heaviest(found, counts[line]);
    if (line === counts.length) return repeated(bytes, target, repeat, found.first);
    const picked = this.pickedBytes();
    return picked.filter((row) => row >= found.first && row < target);
  }

  /** Returns the bytes selected in the memory; with "everywhere", of all places with the same bytes. */
  pickedBytes() {
    if (!this.picked) return [];
    const [a, b] = [this.picked.from, this.picked.to].sort((x, y) => x - y);
    const { bytes } = this.known;
    const wanted = bytes.slice(a, b + 1);
    const places = $("everywhere").checked ? occurrences(bytes, wanted, bytes.length) : [a];
    return [...new Set(places.flatMap((at) => Array.from(wanted, (_, j) => at + j)))];
  }

  /** Selects a prediction. */
  choose(index) {
    this.chosen = index;
    this.pinned = this.known.describe(index);
    this.textPane.moveTo(index, this.pinned);
    $("under-bytes").textContent = this.pinned;
    const targets = new Set(this.targets);
    this.textPane.cells.forEach((cell, i) =>
      cell.classList.toggle("chosen", $("word").checked && targets.has(i)));
    return this.measure();
  }

  /** Selects bytes in the memory, one or a range, and removes their rows. */
  pick(index) {
    const extended = this.picked && (this.shift || $("extend").checked);
    this.picked = { from: extended ? this.picked.from : index, to: index };
    this.line = this.lineNames.length - 1;
    this.look(index);
    this.session.start(); // the numbers of any rows need the model
    if (!this.isExample) this.measure();
    else this.paintTable();
  }

  /** Measures all lines for all targets, unless a later call replaces this one. */
  measure() {
    const turn = ++this.turn;
    this.last = this.last.then(() => turn === this.turn && this.measureNow(turn));
    return this.last;
  }

  async measureNow(turn) {
    const { targets } = this;
    const attention = [];
    const effects = [];
    for (const target of targets) {
      attention.push(await this.weightsOf(target));
      if (turn !== this.turn) return;
      effects.push(await this.effectsOn(target, attention.at(-1)));
      if (turn !== this.turn) return;
    }
    this.attention = attention[Math.max(0, targets.indexOf(this.chosen))] ?? null;
    this.effects = effects;
    this.paintTable();
    this.paintMemory();
  }

  /** Returns the weights behind the prediction of a byte, those of the oldest row first. */
  async weightsOf(target) {
    if (!this.isExample) return this.session.request("attend", { target, block: this.block });
    const { prepared, payload: { example: { memory_limit: limit } } } = this;
    const first = Math.max(0, target - limit);
    const weights = Array.from({ length: target - first }, (_, i) => {
      const distance = target - first - i;
      return dequantise(prepared.codes[(target - 1) * limit + distance - 1], prepared.scale);
    });
    return { first, weights };
  }

  /**
   * Returns the effect of each line on a target, null for a line that removes nothing: `bits` more
   * without its rows, those of each draw of `random` rows, and `guesses`.
   */
  async effectsOn(target, found) {
    const lines = this.lineNames.map((_, line) => {
      const rows = this.rowsOf(line, target, found);
      const weight = sum(rows.map((row) => found.weights[row - found.first]));
      return { rows, weight };
    });
    if (this.isExample) return lines.map((line, i) => this.preparedEffect(target, line, i));
    const { draws } = this.payload;
    const orders = Array.from({ length: draws }, (_, draw) => shuffled(found, target, draw));
    const removals = lines.flatMap(({ rows }) =>
      rows.length ? [rows, ...orders.map((order) => order.slice(0, rows.length))] : []);
    const { bits, guesses } = await this.session.request(
      "without", { target, block: this.block, removals, count: FEW });
    let next = 0;
    return lines.map((line) => {
      if (!line.rows.length) return null;
      const [own, ...random] = bits.slice(next, next + 1 + draws)
        .map((value) => value - this.known.bits[target]);
      const result = { ...line, bits: own, random, guesses: guesses[next] };
      next += 1 + draws;
      return result;
    });
  }

  /** Returns an effect that was computed with the page. */
  preparedEffect(target, line, i) {
    const columns = this.payload.counts.length + 1;
    if (!line.rows.length || i >= columns) return null;
    const at = (target - 1) * columns + i;
    const { extra, random, random_std: std, line_guesses: symbols, line_probabilities: p } = this.prepared;
    const few = [at * FEW, (at + 1) * FEW];
    return {
      ...line,
      bits: extra[at],
      mean: random[at],
      std: std[at],
      guesses: { symbols: Array.from(symbols.slice(...few)), probabilities: Array.from(p.slice(...few)) },
    };
  }

  /** Returns the effect of a line on all targets together; null if it removes nothing from any. */
  together(line) {
    const some = this.effects?.map((effects) => effects[line]).filter(Boolean) ?? [];
    if (!some.length) return null;
    const draws = some[0].random?.map((_, draw) => sum(some.map(({ random }) => random[draw])));
    return {
      rows: sum(some.map(({ rows }) => rows.length)) / this.effects.length,
      weight: sum(some.map(({ weight }) => weight)) / this.effects.length,
      bits: sum(some.map(({ bits }) => bits)),
      mean: draws ? mean(draws) : sum(some.map((effect) => effect.mean)),
      std: draws ? deviation(draws) : Math.hypot(...some.map((effect) => effect.std)),
    };
  }

  /** Shows one line for each way to remove rows; its button marks these rows in the memory. */
  paintTable() {
    const names = this.lineNames;
    const results = names.map((_, line) => this.together(line));
    const largest = Math.max(0.01, ...results.flatMap((result) =>
      result ? [Math.abs(result.bits), Math.abs(result.mean)] : []));
    const focused = this.lineButtons.indexOf(document.activeElement);
    const header = make("tr");
    header.append(...["removed", "weight", "extra bits", "random rows"].map((name, i) =>
      make("th", name, { scope: "col", class: i === 1 ? "" : "left" })));
    $("lines").replaceChildren(header, ...results.map((result, line) => {
      const button = make("button", names[line], { type: "button", "aria-pressed": line === this.line });
      button.onclick = () => this.useLine(line);
      const tr = make("tr");
      const first = make("td");
      first.append(button);
      tr.append(first);
      if (result) {
        tr.append(make("td", percent(Math.min(1, result.weight))),
          effectCell(result.bits, largest), effectCell(result.mean, largest, result.std));
      } else {
        tr.append(make("td", this.effects ? this.whyNothing(line) : "", { colspan: 3, class: "left" }));
      }
      return tr;
    }));
    this.lineButtons[focused]?.focus();
    this.describeLine();
  }

  get lineButtons() {
    return [...$("lines").querySelectorAll("button")];
  }

  whyNothing(line) {
    const last = line === this.lineNames.length - 1;
    if (!this.effects.length) return "";
    if (!last) return "none";
    if (!this.picked) return "none yet";
    return this.isExample ? "the model is starting" : "not remembered here";
  }

  useLine(line) {
    this.line = line;
    this.paintTable();
    this.paintMemory();
  }

  /** States the effect of the current line, and what is expected with and without its rows. */
  describeLine() {
    const { known, line, targets, effects } = this;
    const result = this.together(line);
    $("causes-hint").textContent = targets.length
      ? `From the query that predicts “${this.targetName()}”; all else stays as it was.`
      : this.chosen === 0 ? "The first byte is predicted without any memory." : this.whyNone();
    $("predictions").replaceChildren();
    $("verdict").textContent = "";
    if (!effects || !result) return;
    const before = sum(targets.map((target) => known.bits[target]));
    const [old, now] = [before, Math.max(0, before + result.bits)].map(short);
    $("verdict").textContent =
      `Without ${percent(Math.min(1, result.weight))} of the attention, “${this.targetName()}” costs ` +
      `${now} bits, ${now === old ? "as with all rows" : `instead of ${old}`}.`;
    if (targets.length > 1) this.listBytes();
    else this.compareGuesses();
  }

  /** States why no byte is selected. */
  whyNone() {
    return this.known.bytes.length ? "Not read yet." : "There is no text.";
  }

  targetName() {
    const { known, targets } = this;
    return targets.length > 1
      ? oneLine(known, targets[0], targets.at(-1) + 1)
      : nameOf(known, this.chosen);
  }

  /** Lists the bits of each byte of a word, with all rows and without those of the line. */
  listBytes() {
    const { known, targets, effects, line } = this;
    const list = make("div", "", { class: "bytes" });
    list.append(...targets.map((target, i) => {
      const item = make("span");
      const before = known.bits[target];
      const after = Math.max(0, before + (effects[i][line]?.bits ?? 0));
      item.append(make("code", nameOf(known, target)), ` ${before.toFixed(2)} → ${after.toFixed(2)}`);
      return item;
    }));
    list.prepend(make("h3", "Bits of each byte, with all rows → without these"));
    $("predictions").append(list);
  }

  compareGuesses() {
    const { known, chosen, effects, line } = this;
    const came = known.bytes[chosen];
    const started = unfinished(known.bytes, chosen);
    const list = (title, { symbols, probabilities }) => {
      const items = symbols.slice(0, FEW).map((symbol, i) => guessItem(symbol, probabilities[i], came, started));
      const ol = make("ol");
      ol.append(...items);
      const part = make("div");
      part.append(make("h3", title), ol);
      return part;
    };
    $("predictions").append(
      list("Expected with all rows", known.guesses[chosen]),
      list("Expected without these", effects[0][line].guesses));
  }

  /** Colours the memory by the weights of the selected byte, and marks the removed rows. */
  paintMemory() {
    const { attention, memoryPane, colours, known, chosen, line } = this;
    $("looking-hint").textContent = attention && this.effects
      ? `Weight of each row for “${nameOf(known, chosen)}”. Select bytes here to remove their rows.`
      : chosen === 0 ? "Before the first byte there is nothing to look at." : this.whyNone();
    const readable = attention && chosen > 0 && this.effects;
    const shown = readable ? attention : { first: 0, weights: [] };
    const largest = largestRelative(shown.weights);
    this.pinnedWeight = $("under-remembered").textContent = "";
    $("weights-legend").hidden = !readable;
    if (readable) fillRelativeLegend(colours, shown.weights, largest);
    paintWeights(memoryPane, shown, colours, largest);
    memoryPane.dimFrom(readable ? chosen : 0);
    const effect = this.effects?.[Math.max(0, this.targets.indexOf(chosen))]?.[line];
    const gone = new Set(effect?.rows);
    const picked = new Set(this.pickedBytes());
    memoryPane.cells.forEach((cell, index) => {
      cell.classList.toggle("gone", gone.has(index));
      cell.classList.toggle("picked", picked.has(index));
    });
    if (!readable) return;
    const top = effect?.rows[0] ?? chosen - 1;
    this.look(this.picked ? this.picked.to : top);
  }

  describeWeight(index) {
    return this.known.describeWeight(index, this.chosen, this.attention);
  }

  look(index) {
    this.pinnedWeight = this.describeWeight(index);
    this.memoryPane.moveTo(index, this.pinnedWeight);
    $("under-remembered").textContent = this.pinnedWeight;
  }
}

const start = () => startPage((payload) => new AblationView(payload));
