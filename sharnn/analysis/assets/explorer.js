// Ties the parts together: one chosen byte, seen everywhere.

const PEAKS = 8;
const PEAKS_APART = 8; // bytes

class Explorer {
  constructor() {
    this.turn = 0;
    this.canvas = {
      minimap: new Sharp($("minimap")),
      overview: new Sharp($("overview-canvas")),
      mass: new Sharp($("mass")),
    };
  }

  /** Shows a reading: the text first, the rest when the weights are unpacked. */
  async show(payload) {
    const turn = ++this.turn; // whatever comes later takes over, also while this one unpacks
    const reading = new Reading(payload);
    await reading.loadText();
    if (turn !== this.turn) return;
    $("about").textContent = payload.about;
    $("notes").replaceChildren(...payload.notes.map((note) => make("p", note)));
    this.reading = reading;
    this.head = null;
    this.chosen = undefined;
    this.watched = new TextPane(
      $("watched"), reading, reading.first, reading.first + reading.watched,
      (index) => this.choose(index - reading.first),
      (index) =>
        ($("under-watched").textContent = index === null ? "" : bitsInWords(reading, index)),
    );
    this.paintBits();
    await nextFrame();
    // What follows takes longer; the text is on the screen by now.
    await reading.loadHeads();
    if (turn !== this.turn) return;
    this.remembered = new TextPane(
      $("remembered"), reading, 0, reading.first + reading.watched,
      (index) => this.look(index),
      (index) => ($("under-remembered").textContent =
        index === null ? this.pinned : this.weightInWords(index)),
    );
    $("head-choice").hidden = reading.heads.length < 2;
    $("head").replaceChildren(
      ...reading.heads.map(({ block }, place) => make("option", String(block), { value: place })));
    this.useHead(0);
    this.choose(Math.min(payload.begin, reading.watched - 1));
    document.body.dataset.ready = "yes";
  }

  useHead(place) {
    this.head = this.reading.heads[place];
    fillLegends(this.head, this.colours);
    drawOverview(this.canvas.overview, this.reading, this.head, this.colours);
    if (this.chosen !== undefined) this.draw();
  }

  recolour() {
    this.colours = new Colours();
    if (!this.reading) return;
    this.paintBits();
    if (this.chosen !== undefined) this.useHead(this.reading.heads.indexOf(this.head));
  }

  paintBits() {
    this.watched.paint((index) => bitsLevel(this.reading.bits[index]), this.colours.bits);
  }

  /** Chooses watched byte i; everything else follows. */
  choose(i) {
    if (!this.head) return;
    this.chosen = Math.min(this.reading.watched - 1, Math.max(0, i));
    this.draw();
  }

  get target() {
    return this.reading.first + this.chosen;
  }

  weightInWords(index) {
    return weightInWords(this.reading, this.head, this.chosen, index);
  }

  draw() {
    const { head, reading, chosen: i, target, colours } = this;
    const visible = reading.visible[i];
    const row = head.row(i);
    const levels = head.weightOf.map((w) => weightLevel(w * visible, head.largestRelative));
    this.peaks = head.peaks(i, PEAKS, PEAKS_APART);
    const first = target - this.peaks[0].distance;
    this.remembered.paint((index) => {
      const distance = target - index;
      return distance < 1 || distance > visible ? EVEN : levels[row[distance - 1]];
    }, colours.weights, first);
    this.remembered.dimFrom(target);
    fillPeaks(reading, i, this.peaks, (index, place) => this.look(index, place));
    fillByte(reading, head, i);
    fillTables(reading, head, i);
    this.charts();
    $("answer").textContent = "";
    this.watched.moveTo(target, bitsInWords(reading, target));
    this.look(first, 0);
  }

  /** Brings a remembered byte into view and says its weight. */
  look(index, place = null) {
    this.pinned = this.weightInWords(index);
    this.marked = Math.max(0, this.target - index);
    this.remembered.moveTo(index, this.pinned);
    $("under-remembered").textContent = this.pinned;
    [...$("peaks").children].forEach((button, p) =>
      button.setAttribute("aria-pressed", String(p === place)));
    this.minimap();
  }

  nextPeak(step) {
    const buttons = [...$("peaks").children];
    const pressed = buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true");
    const count = this.peaks.length;
    const place = pressed < 0 ? (step > 0 ? 0 : count - 1) : (pressed + step + count) % count;
    this.look(this.target - this.peaks[place].distance, place);
  }

  minimap() {
    const { head, reading, chosen: i, peaks, marked, colours } = this;
    drawMinimap(this.canvas.minimap, head, reading.visible[i], i, peaks, marked, colours);
    $("minimap").setAttribute("aria-label",
      `Map of ${reading.visible[i]} remembered positions; peaks at ` +
      `${peaks.map((peak) => peak.distance).join(", ")} bytes back`);
  }

  /** Draws all canvases: their size has changed. */
  redraw() {
    drawOverview(this.canvas.overview, this.reading, this.head, this.colours);
    this.charts();
    this.minimap();
  }

  charts() {
    const { head, reading, chosen: i, colours } = this;
    const overview = $("overview");
    const inner = this.canvas.overview.width - MARGIN;
    const x = MARGIN + ((i + 0.5) / reading.watched) * inner;
    $("overview-line").style.transform = `translateX(${x}px)`;
    overview.setAttribute("aria-valuemin", 0);
    overview.setAttribute("aria-valuemax", reading.watched - 1);
    overview.setAttribute("aria-valuenow", i);
    overview.setAttribute("aria-valuetext", bitsInWords(reading, this.target));
    drawMass(this.canvas.mass, reading, head, i, colours);
    $("mass").setAttribute("aria-label",
      `Half of this byte's weight lies within ${head.median[i]} bytes, 90 % within ${head.reach[i]}`);
  }
}

async function start() {
  const explorer = new Explorer();
  window.sharnn = explorer; // for whoever wants the numbers
  const fail = (message) => {
    $("problem").textContent = message;
    $("problem").hidden = false;
  };
  window.addEventListener("unhandledrejection", (event) => fail(`This page failed: ${event.reason}`));
  if (typeof DecompressionStream === "undefined") {
    fail("This page needs a browser of 2023 or later: it unpacks its numbers with DecompressionStream.");
    return;
  }
  followTheme($("theme"), () => explorer.recolour());
  connect(explorer);
  connectKernel(explorer);
  fitFrame();
  await explorer.show(JSON.parse($("payload").textContent));
}
