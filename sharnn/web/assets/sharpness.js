// The page about the head's sharpness: one query over the rows of a text, under gains and gates that
// the reader sets.

const HEAVIEST = 6; // rows in the list
const START = { queryGain: 1, rowGain: 1, gates: 0.5 }; // of training, in the paper
const [WEAKEST, STRONGEST] = [0.1, 400]; // scores at the ends of the curve

class SharpnessView {
  constructor(payload) {
    this.payload = payload;
    this.session = new Session(payload, this);
    this.chosen = null;
    this.curve = new Chart($("curve"));
    this.scoreChart = new Chart($("scores"));
    this.weightChart = new Chart($("weights"));
  }

  async open() {
    const { example, heads, limit, shifted, head_blocks: blocks } = this.payload;
    this.heads = await Promise.all(heads.map(async ({ vectors, matrix, matrix_scales: scales }) => {
      const unpacked = Object.entries(vectors).map(async ([name, packed]) => [name, await unpack(packed)]);
      const model = { ...Object.fromEntries(await Promise.all(unpacked)), limit, shifted };
      return new Head({ ...model, matrix: scaleRows(await unpack(matrix), await unpack(scales)) });
    }));
    this.exampleRows = await Promise.all(example.heads.map(async ({ rows, row_scales: scales }) =>
      scaleRows(await unpack(rows), await unpack(scales))));
    this.wished = example.initial_target;
    offerHeads(blocks, (index) => this.useHead(index));
    this.useHead(0);
    await this.session.showExample();
  }

  /** Shows another head, with the model's own settings, and the same prediction. */
  useHead(index) {
    this.head = this.heads[index];
    this.prepareControls();
    if (!this.known) return;
    this.prepareRows();
    this.finish(this.known);
  }

  /** Number of the block that has the head. */
  get block() {
    return this.payload.head_blocks[this.heads.indexOf(this.head)];
  }

  /** Uses the rows of the prepared text, or none until those of another text are here. */
  prepareRows() {
    const { head, heads, exampleRows, session } = this;
    delete document.body.dataset.rows;
    this.found = null;
    $("under-bytes").textContent = "Not read yet.";
    head.rows = this.known === session.example ? exampleRows[heads.indexOf(head)] : new Float32Array(0);
  }

  prepareControls() {
    const { head, payload: { name, start_gain: startGain } } = this;
    const { trained } = head;
    this.settings = trained;
    $("matrix").options[0].textContent = `${name}'s`;
    for (const [id, name] of [["query-gain", "queryGain"], ["row-gain", "rowGain"]]) {
      const most = Math.max(32, 2 * trained[name]);
      $(id).min = Math.log2(1 / 8);
      $(id).max = Math.log2(most);
      $(id).oninput = () => this.set({ [name]: 2 ** Number($(id).value) });
    }
    $("gates").oninput = () => this.set({ gates: Number($("gates").value) });
    $("matrix").onchange = () => this.set({ matrix: $("matrix").value });
    $("shifted").onchange = () => this.set({ shifted: $("shifted").checked });
    const { shifted } = trained;
    this.presets = [
      [name, trained],
      [`${name}, gains 1 and gates ½`, { ...START, matrix: "model", shifted }],
      ["a fresh head of the paper", { ...START, matrix: "random", shifted: false }],
      [`identity, query gain ${startGain}, shifted keys`,
        { ...START, queryGain: startGain, matrix: "identity", shifted: true }],
    ].map(([name, settings]) => ({ button: make("button", name, { type: "button" }), settings }));
    for (const { button, settings } of this.presets) button.onclick = () => this.set(settings);
    $("presets").replaceChildren(...this.presets.map(({ button }) => button));
    this.showSettings();
  }

  set(changes) {
    this.settings = { ...this.settings, ...changes };
    this.showSettings();
    if (this.known) this.weigh();
  }

  showSettings() {
    const { settings, head } = this;
    $("query-gain").value = Math.log2(settings.queryGain);
    $("row-gain").value = Math.log2(settings.rowGain);
    $("gates").value = settings.gates;
    for (const [id, value] of [["query-gain", settings.queryGain], ["row-gain", settings.rowGain], ["gates", settings.gates]]) {
      $(`${id}-value`).textContent = short(value);
      $(id).setAttribute("aria-valuetext", short(value));
    }
    $("matrix").value = settings.matrix;
    $("shifted").checked = settings.shifted;
    $("key").textContent = settings.shifted ? "j−1" : "j";
    for (const { button, settings: preset } of this.presets) {
      const same = Object.entries(preset).every(([name, value]) => settings[name] === value);
      button.setAttribute("aria-pressed", same);
    }
    const part = (id) => $(id).textContent;
    $("factors").replaceChildren(
      `√${head.dim} · `, make("b", part("gates-value")), " · ", make("b", part("query-gain-value")), " · ",
      make("b", part("gates-value")), " · ", make("b", part("row-gain-value")),
      ` = ${short(head.perfect(settings))}`);
  }

  /** Shows a text, read or not. */
  show(known) {
    this.known = known;
    this.chosen = Math.max(0, Math.min(this.wished, known.bytes.length - 1));
    this.prepareRows();
    this.pane = new TextPane($("bytes"), known, 0, known.bytes.length, (index) => this.choose(index), (index) => {
      $("under-bytes").textContent = this.describe(index ?? this.chosen);
    });
  }

  receive() {}

  /** Shows the weights of a text that has been read, with the rows that the engine remembers. */
  async finish(known) {
    const { head, block } = this;
    if (known !== this.session.example) {
      const { rows } = await this.session.request("rows", { block });
      if (this.known !== known || this.head !== head) return;
      head.receive(rows);
    }
    this.weigh();
    document.body.dataset.rows = known.bytes.length;
  }

  recolour() {
    this.colours = new Colours();
    fillWeightsLegend(this.colours, "all of the weight");
    if (this.known && this.found) this.weigh();
  }

  /** Selects the predicted byte, also for the next text. */
  choose(index) {
    this.chosen = this.wished = index;
    this.weigh();
  }

  /** Computes scores and weights of the chosen prediction, and shows them. */
  weigh() {
    const { head, settings, known, chosen, pane, colours } = this;
    const readable = chosen >= 1 && head.rows.length >= chosen * head.dim;
    for (const id of ["numbers", "spreading", "scoring"]) $(id).hidden = !readable;
    this.found = null;
    if (!readable) {
      pane.paint(() => EVEN, colours.weights);
      pane.dimFrom(chosen);
      if (known.bytes.length) pane.moveTo(chosen, nameOf(known, chosen));
      $("under-bytes").textContent = !known.bytes.length ? "There is no text."
        : chosen >= 1 ? "Not read yet." : "Before the first byte there is nothing to look at.";
      return;
    }
    const { first, scores } = head.scores(chosen, settings);
    const weights = softmax(scores);
    this.found = { first, scores, weights, effective: effectivePositions(scores) };
    // Full strength is all of the weight, so that settings can be compared.
    paintWeights(pane, this.found, colours, weights.length);
    pane.dimFrom(chosen);
    const order = Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a]);
    pane.moveTo(chosen, this.describe(chosen));
    $("under-bytes").textContent = this.describe(chosen);
    this.showNumbers(order[0]);
    this.drawCurve();
    this.drawRows();
    this.listRows(order.slice(0, HEAVIEST));
  }

  describe(index) {
    const { known, chosen, found } = this;
    if (!found && chosen >= 1) return "Not read yet.";
    if (index === chosen) return `Prediction of “${nameOf(known, index)}”`;
    return known.describeWeight(index, chosen, found);
  }

  back(index) {
    return `${plural(this.chosen - index, "byte")} back`;
  }

  showNumbers(best) {
    const { found: { first, scores, weights, effective }, known } = this;
    const numbers = [
      ["best score, above the mean", short(scores[best] - mean(scores))],
      ["largest weight", `${percent(weights[best])}, on “${nameOf(known, first + best)}”, ${this.back(first + best)}`],
      ["even share", percent(1 / weights.length)],
      ["effective positions", `${short(effective)} of ${thousands(weights.length)}`],
    ];
    $("numbers").replaceChildren(...numbers.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  }

  /** Draws the effective positions under any factor on the scores, and the factor of the settings. */
  drawCurve() {
    const { found: { scores, effective }, head, settings } = this;
    const count = scores.length;
    const now = head.perfect(settings);
    const steps = 50;
    const points = Array.from({ length: steps + 1 }, (_, i) => {
      const score = WEAKEST * (STRONGEST / WEAKEST) ** (i / steps);
      return [score, effectivePositions(scores, score / now)];
    });
    const x = new Axis([WEAKEST, STRONGEST], [0.1, 1, 10, 100].map((tick) => [tick, String(tick)]),
      "score of a row that fits perfectly", true);
    const ticks = [1, 10, 100, 1000].filter((tick) => tick <= count).map((tick) => [tick, thousands(tick)]);
    const y = new Axis([1, Math.max(2, count)], ticks, "", true);
    this.curve.draw(x, y, [
      ...this.rules().map(({ at, text }, i) => ({ kind: "rule", at, text, low: i === 0 })),
      { kind: "line", points },
      { kind: "spot", at: [now, effective], text: short(effective) },
    ], `Effective positions: ${short(effective)} of ${count}, where a perfect fit scores ${short(now)}`);
  }

  /** Returns the marks of two settings on the curve, from left to right. */
  rules() {
    const { head, payload: { name } } = this;
    const rules = [
      { at: head.perfect(START), text: "paper's start" },
      { at: head.perfect(head.trained), text: name },
    ];
    return rules.sort((a, b) => a.at - b.at);
  }

  drawRows() {
    const { found: { scores, weights } } = this;
    const count = scores.length;
    const ticks = [...new Set([count, ...[0.75, 0.5, 0.25].map((share) => Math.round(share * count)), 1])];
    const x = new Axis([count + 0.5, 0.5], ticks.map((tick) => [tick, thousands(tick)]), "bytes back");
    const middle = mean(scores);
    const far = scores.reduce((most, score) => Math.max(most, Math.abs(score - middle)), 0);
    const end = 2 ** Math.max(2, Math.ceil(Math.log2(far)));
    this.scoreChart.draw(x, new Axis([-1.1 * end, 1.1 * end], [-end, 0, end].map((tick) => [tick, String(tick)]), ""),
      [{ kind: "dots", class: "fine", points: Array.from(scores, (score, i) => [count - i, score - middle]) }],
      `Scores of ${count} rows, less their mean, up to ${short(far)} from 0`);
    this.weightChart.draw(x, new Axis([0, 1], [[0, "0%"], [0.5, "50%"], [1, "100%"]], ""),
      [{ kind: "bars", points: Array.from(weights, (weight, i) => [count - i, weight]) }],
      `Weights of ${count} rows`);
  }

  listRows(order) {
    const { found: { first, weights }, known, chosen } = this;
    $("heaviest").replaceChildren(...order.map((j) => {
      const index = first + j;
      const line = (a, b) => oneLine(known, a, b);
      const [a, b] = characterAround(known, index);
      const [, end] = characterAround(known, Math.min(chosen, b + 6) - 1);
      const code = make("code", line(a - 10, a));
      code.append(make("b", line(a, Math.min(chosen, b))), line(b, Math.min(chosen, end)));
      const item = make("li", "", { title: this.back(index) });
      item.append(code, barHolder(weights[j]), make("span", percent(weights[j])));
      return item;
    }));
  }
}

const start = () => startPage((payload) => new SharpnessView(payload));
