// The explorer: one target is selected, and every view shows it.

const PEAKS = 8;
const PEAKS_APART = 8; // bytes

class Explorer {
  constructor() {
    this.turn = 0;
    this.canvas = {
      minimap: new SharpCanvas($("minimap")),
      overview: new SharpCanvas($("overview-canvas")),
      mass: new SharpCanvas($("mass")),
    };
  }

  /** Shows a trace: the text first, the rest once the weights are unpacked. */
  async show(payload) {
    const turn = ++this.turn; // a later call replaces this one, even while it unpacks
    const trace = new Trace(payload);
    await trace.loadText();
    if (turn !== this.turn) return;
    $("about").textContent = payload.about;
    $("notes").replaceChildren(...payload.notes.map((note) => make("p", note)));
    this.trace = trace;
    this.head = null;
    this.chosen = undefined;
    this.opened = false;
    this.targetPane = new TextPane(
      $("targets"), trace, trace.first, trace.first + trace.numTargets,
      (index) => this.choose(index - trace.first),
      (index) => this.preview(index),
    );
    this.paintBits();
    await nextFrame();
    // The following steps take longer, so the text is displayed before them.
    await trace.loadHeads();
    if (turn !== this.turn) return;
    this.memoryPane = new TextPane(
      $("remembered"), trace, 0, trace.first + trace.numTargets,
      (index) => this.look(index),
      (index) => ($("under-remembered").textContent =
        index === null ? this.pinned : this.describeWeight(index)),
    );
    offerHeads(trace.heads.map(({ block }) => block), (index) => this.useHead(index));
    this.useHead(0);
    this.choose(Math.min(payload.initial_target, trace.numTargets - 1));
    this.opened = true;
    document.body.dataset.ready = "yes";
  }

  useHead(index) {
    this.head = this.trace.heads[index];
    fillLegends(this.head, this.colours);
    drawOverview(this.canvas.overview, this.trace, this.head, this.colours);
    if (this.chosen !== undefined) this.draw();
  }

  recolour() {
    this.colours = new Colours();
    if (!this.trace) return;
    this.paintBits();
    if (this.chosen !== undefined) this.useHead(this.trace.heads.indexOf(this.head));
  }

  paintBits() {
    this.targetPane.paint((index) => bitsLevel(this.trace.bits[index]), this.colours.bits);
  }

  /** Selects target i and updates every view. */
  choose(i) {
    if (!this.head) return;
    this.chosen = Math.min(this.trace.numTargets - 1, Math.max(0, i));
    this.draw();
    if (this.opened) writeAddress(this.chosen); // not before the reader selects a byte
  }

  /** Index of the selected target in the text. */
  get target() {
    return this.trace.first + this.chosen;
  }

  describeWeight(index) {
    return describeWeight(this.trace, this.head, this.chosen, index);
  }

  draw() {
    const { head, trace, chosen: i, target } = this;
    this.peaks = head.peaks(i, PEAKS, PEAKS_APART);
    const first = target - this.peaks[0].distance;
    this.paintMemory(i, first);
    fillPeaks(trace, i, this.peaks, (index, peak) => this.look(index, peak));
    fillByte(trace, head, i);
    fillTables(trace, head, i);
    this.charts();
    $("answer").textContent = "";
    this.targetPane.moveTo(target, describeBits(trace, target));
    this.look(first, 0);
  }

  /** Colours the memory by the weights of target i, as far as they exceed an even share. */
  paintMemory(i, near) {
    const { head, trace } = this;
    const target = trace.first + i;
    const visible = trace.numVisible[i];
    const codes = head.codesOf(i);
    const levels = head.weightOf.map((weight) =>
      Math.max(EVEN, weightLevel(weight * visible, head.largestRelative)));
    this.memoryPane.paint((index) => {
      const distance = target - index;
      return distance < 1 || distance > visible ? EVEN : levels[codes[distance - 1]];
    }, this.colours.weights, near);
    this.memoryPane.dimFrom(target);
  }

  /** Shows the weights of the target under the pointer; those of the selected one if null. */
  preview(index) {
    $("under-targets").textContent = index === null ? "" : describeBits(this.trace, index);
    if (!this.head) return;
    cancelAnimationFrame(this.previewing);
    const i = index === null ? this.chosen : index - this.trace.first;
    this.previewing = requestAnimationFrame(() => this.paintMemory(i, this.memoryPane.here.index));
  }

  /** Selects the next target at which a text begins, the first one after the last. */
  find(text) {
    const wanted = new TextEncoder().encode(text);
    const { bytes, first, numTargets } = this.trace;
    const begins = (at) => wanted.every((byte, j) => bytes[at + j] === byte);
    for (let step = 1; wanted.length && step <= numTargets; step++) {
      const i = (this.chosen + step) % numTargets;
      if (!begins(first + i)) continue;
      $("found").textContent = "";
      this.choose(i);
      return;
    }
    $("found").textContent = wanted.length ? "not found" : "";
  }

  /** Scrolls to a remembered byte and displays its weight. */
  look(index, peak = null) {
    this.pinned = this.describeWeight(index);
    this.marked = Math.max(0, this.target - index);
    this.memoryPane.moveTo(index, this.pinned);
    $("under-remembered").textContent = this.pinned;
    [...$("peaks").children].forEach((button, i) =>
      button.setAttribute("aria-pressed", String(i === peak)));
    this.minimap();
  }

  nextPeak(step) {
    const buttons = [...$("peaks").children];
    const pressed = buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true");
    const count = this.peaks.length;
    const peak = pressed < 0 ? (step > 0 ? 0 : count - 1) : (pressed + step + count) % count;
    this.look(this.target - this.peaks[peak].distance, peak);
  }

  minimap() {
    const { head, trace, chosen: i, peaks, marked, colours } = this;
    drawMinimap(this.canvas.minimap, head, trace.numVisible[i], i, peaks, marked, colours);
    $("minimap").setAttribute("aria-label",
      `Map of ${trace.numVisible[i]} remembered positions; peaks at ` +
      `${peaks.map((peak) => peak.distance).join(", ")} bytes back`);
  }

  /** Draws all canvases again after a change of their size. */
  redraw() {
    drawOverview(this.canvas.overview, this.trace, this.head, this.colours);
    this.charts();
    this.minimap();
  }

  charts() {
    const { head, trace, chosen: i, colours } = this;
    const overview = $("overview");
    const inner = this.canvas.overview.width - MARGIN;
    const x = MARGIN + ((i + 0.5) / trace.numTargets) * inner;
    $("overview-line").style.transform = `translateX(${x}px)`;
    overview.setAttribute("aria-valuemin", 0);
    overview.setAttribute("aria-valuemax", trace.numTargets - 1);
    overview.setAttribute("aria-valuenow", i);
    overview.setAttribute("aria-valuetext", describeBits(trace, this.target));
    drawMass(this.canvas.mass, trace, head, i, colours);
    $("mass").setAttribute("aria-label",
      `Half of this byte's weight is within ${head.median[i]} bytes, 90% within ${head.reach[i]}`);
  }
}

async function start() {
  const explorer = new Explorer();
  window.sharnn = explorer; // gives the console access to the numbers
  const fail = (message) => {
    $("problem").textContent = message;
    $("problem").hidden = false;
  };
  window.addEventListener("unhandledrejection", (event) =>
    fail(`Something went wrong on this page: ${event.reason}`));
  if (typeof DecompressionStream === "undefined") {
    fail("This page requires a browser from 2023 or later (with DecompressionStream).");
    return;
  }
  followTheme($("theme"), () => explorer.recolour());
  connect(explorer);
  connectKernel(explorer);
  fitFrame();
  await explorer.show(JSON.parse($("payload").textContent));
  followAddress(explorer);
}
