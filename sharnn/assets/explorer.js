// Ties the parts together: one chosen byte, seen everywhere.

const GUESSES_SHOWN = 4;
const PEAKS = 8;
const PEAKS_APART = 8; // bytes

const $ = (id) => document.getElementById(id);

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

class Explorer {
  constructor() {
    this.canvas = {
      minimap: new Sharp($("minimap")),
      overview: new Sharp($("overview-canvas")),
      mass: new Sharp($("mass")),
    };
  }

  /** Shows a reading: the text first, the rest when the weights are unpacked. */
  async show(payload) {
    const reading = new Reading(payload);
    $("about").textContent = payload.about;
    $("notes").replaceChildren(...payload.notes.map((note) => make("p", note)));
    await reading.loadText();
    this.reading = reading;
    this.head = null;
    this.chosen = undefined;
    this.watched = new TextPane(
      $("watched"), reading, reading.first, reading.first + reading.watched,
      (index) => this.choose(index - reading.first),
      (index) => ($("under-watched").textContent = index === null ? "" : this.describeBits(index)),
    );
    this.paintBits();
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    // What follows takes longer; the text is on the screen by now.
    await reading.loadHeads();
    this.remembered = new TextPane(
      $("remembered"), reading, 0, reading.first + reading.watched,
      (index) => this.look(index),
      (index) => ($("under-remembered").textContent =
        index === null ? this.pinned : this.describeWeight(index)),
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
    this.legends();
    drawOverview(this.canvas.overview, this.reading, this.head, this.colours);
    if (this.chosen !== undefined) this.draw();
  }

  recolour() {
    this.colours = new Colours();
    if (!this.reading?.glyphs) return;
    this.paintBits();
    if (this.chosen !== undefined) {
      this.useHead(this.reading.heads.indexOf(this.head));
    }
  }

  paintBits() {
    this.watched?.paint((index) => bitsLevel(this.reading.bits[index]), this.colours.bits);
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

  draw() {
    const { head, reading, chosen: i, target, colours } = this;
    const visible = reading.visible[i];
    const row = head.row(i);
    const levels = head.weightOf.map((w) => weightLevel(w * visible, head.largestRelative));
    this.remembered.paint((index) => {
      const distance = target - index;
      return distance < 1 || distance > visible ? EVEN : levels[row[distance - 1]];
    }, colours.weights);
    this.remembered.dimFrom(target);
    this.peaks = head.peaks(i, PEAKS, PEAKS_APART);
    this.listPeaks();
    this.describeByte();
    this.tables();
    this.charts();
    $("answer").textContent = "";
    this.watched.moveTo(target, this.describeBits(target));
    this.look(target - this.peaks[0].distance, 0);
  }

  /** Brings a remembered byte into view and says its weight. */
  look(index, place = null) {
    this.pinned = this.describeWeight(index);
    this.marked = Math.max(0, this.target - index);
    this.remembered.moveTo(index, this.pinned);
    $("under-remembered").textContent = this.pinned;
    [...$("peaks").children].forEach((button, p) =>
      button.setAttribute("aria-pressed", String(p === place)));
    this.minimap();
  }

  nextPeak(step) {
    const pressed = [...$("peaks").children].findIndex((button) => button.ariaPressed === "true");
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

  /** Draws all canvases: their size, the head or the colours have changed. */
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
    overview.setAttribute("aria-valuetext", this.describeBits(this.target));
    drawMass(this.canvas.mass, reading, head, i, colours);
    $("mass").setAttribute("aria-label",
      `Half of this byte's weight lies within ${head.median[i]} bytes, 90 % within ${head.reach[i]}`);
  }

  // In words.

  nameOf(index) {
    const glyph = this.reading.glyphs[this.reading.places[index]];
    return glyph.length === 1
      ? glyph.name
      : `${glyph.name} (byte ${index - glyph.start + 1} of ${glyph.length})`;
  }

  describeBits(index) {
    const bits = this.reading.bits[index];
    const cost = Number.isNaN(bits) ? "nothing predicted it" : `${short(bits)} bits`;
    return `${this.nameOf(index)}: ${cost}`;
  }

  describeWeight(index) {
    const distance = this.target - index;
    const visible = this.reading.visible[this.chosen];
    if (distance < 1) return `${this.nameOf(index)}: not yet read`;
    const name = `${this.nameOf(index)}, ${thousands(distance)} back`;
    if (distance > visible) return `${name}: out of the memory`;
    const weight = this.head.weight(this.chosen, distance);
    return `${name}: weight ${percent(weight)}, ${short(weight * visible)} times an even share`;
  }

  describeByte() {
    const { reading, head, chosen: i, target } = this;
    const bits = reading.bits[target];
    const before = oneLine(reading.glyphs, reading.places, target - 24, target);
    $("byte").replaceChildren(
      make("span", "after "), make("code", before), make("span", " comes "),
      make("code", this.nameOf(target)),
      make("span", `: ${short(bits)} bits, a chance of ${percent(2 ** -bits)}`));
    const guesses = reading.likely.length / reading.watched;
    const list = [];
    for (let g = 0; g < Math.min(GUESSES_SHOWN, guesses); g++) {
      const byte = reading.likely[i * guesses + g];
      const { name } = glyphs(Uint8Array.of(byte))[0];
      const guess = make("span", "", { class: "guess" });
      guess.append(make("code", name), ` ${percent(reading.chances[i * guesses + g])}`);
      list.push(guess, " ");
    }
    const visible = thousands(reading.visible[i]);
    const facts = [
      ["the model's guesses", list],
      ["the head spreads over", [`${short(head.effective[i])} of ${visible} positions`]],
      ["half of the weight", [`within ${thousands(head.median[i])} bytes, ` +
        `90 % within ${thousands(head.reach[i])}`]],
    ];
    $("facts").replaceChildren(...facts.flatMap(([name, value]) => {
      const cell = make("dd");
      cell.append(...value);
      return [make("dt", name), cell];
    }));
  }

  listPeaks() {
    const { reading, peaks, target, chosen } = this;
    const around = (a, b) => oneLine(reading.glyphs, reading.places, Math.max(0, a), b);
    $("peaks").replaceChildren(...peaks.map(({ distance, weight }, place) => {
      const at = target - distance;
      const text = make("code", at > 0 ? around(at - 7, at) : "");
      text.append(make("mark", around(at, at + 1)), make("span", around(at + 1, at + 6)));
      const button = make("button", "", { type: "button" });
      button.append(
        make("b", `×${short(weight * reading.visible[chosen])}`),
        ` ${thousands(distance)} back `, text);
      button.onclick = () => this.look(at, place);
      return button;
    }));
  }

  legends() {
    const fill = (id, colours, low, high) => {
      const squares = colours.map((colour) => {
        const square = make("span");
        square.style.backgroundColor = colour;
        return square;
      });
      $(id).replaceChildren(low, ...squares, high);
    };
    const { bits, weights } = this.colours;
    fill("bits-legend", [0, 4, 8, 12, 16].map((level) => bits[level]), "0 bits", "8 bits");
    const some = [0, 8, 16, 20, 24, 28, 32].map((level) => weights[level]);
    fill("weights-legend", some, "less", `×${short(this.head.largestRelative)}`);
    fill("mass-legend", some, "less than an even share", `×${short(this.head.largestBand)}`);
  }

  // What removing remembered positions costs.

  tables() {
    const { reading, head, chosen: i } = this;
    const { counts, cuts } = reading;
    $("causes-hint").textContent =
      "Bits more that this byte costs when the head can't see some positions, for this byte alone.";
    const visible = reading.visible[i];
    const row = head.weights(i);
    const sorted = Float32Array.from(row).sort().reverse();
    const held = (weights) => percent(weights.reduce((sum, weight) => sum + weight, 0));
    const of = (array, place, columns) => array[i * columns + place];
    const byCount = counts.map((count, place) => [
      String(count), held(sorted.subarray(0, count)),
      of(head.top, place, counts.length), of(head.chance, place, counts.length),
      of(head.spread, place, counts.length)]);
    const bands = cuts.length - 1;
    const byDistance = cuts.slice(0, -1).map((near, place) => [near, cuts[place + 1] - 1, place])
      .filter(([near]) => near <= visible)
      .map(([near, far, place]) => [
        near === far ? `${near}` : `${thousands(near)} to ${thousands(far)}`,
        held(row.subarray(near - 1, far)), of(head.bands, place, bands)]);
    const all = [...byCount.flatMap((line) => line.slice(2, 4)), ...byDistance.map((line) => line[2])];
    const largest = Math.max(0.01, ...all.map(Math.abs));
    const bar = (value, chance, spread) => {
      const cell = make("td", "", { class: `bar${chance ? " chance" : ""}${value < 0 ? " gain" : ""}` });
      const length = make("span");
      length.style.setProperty("--length", Math.abs(value) / largest);
      const sign = value < 0 ? "−" : "+";
      const size = Math.abs(value) < 0.0005 ? "0.000" : Math.abs(value).toFixed(3);
      cell.append(length, (size === "0.000" ? "" : sign) + size +
        (spread === undefined ? "" : ` ± ${spread.toFixed(3)}`));
      return cell;
    };
    const fill = (id, caption, names, lines) => {
      const header = make("tr");
      header.append(...names.map((name) =>
        make("th", name, { scope: "col", class: /bits|random/.test(name) ? "left" : "" })));
      $(id).replaceChildren(make("caption", caption), header, ...lines.map((line) => {
        const row = make("tr");
        row.append(...line);
        return row;
      }));
    };
    fill("by-count", "The most attended", ["removed", "weight", "bits lost", "as many at random"],
      byCount.map(([count, weight, top, chance, spread]) =>
        [make("td", count), make("td", weight), bar(top), bar(chance, true, spread)]));
    fill("by-distance", "All at a distance", ["bytes back", "weight", "bits lost"],
      byDistance.map(([name, weight, lost]) => [make("td", name), make("td", weight), bar(lost)]));
  }
}

/** Calls `act` with the share of the width at which an element is pressed or dragged. */
function onDrag(element, act) {
  const share = (event) => {
    const box = element.getBoundingClientRect();
    return (event.clientX - box.left) / box.width;
  };
  element.addEventListener("pointerdown", (event) => act(share(event)));
  element.addEventListener("pointermove", (event) => event.buttons && act(share(event)));
}

function connect(explorer) {
  $("head").onchange = (event) => explorer.useHead(Number(event.target.value));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, textarea, select");
    if (typing || event.ctrlKey || event.altKey || event.metaKey || !explorer.head) return;
    if (event.key === "n") explorer.nextPeak(1);
    if (event.key === "p") explorer.nextPeak(-1);
  });
  onDrag($("minimap"), (share) => {
    const distance = Math.max(1, Math.ceil((1 - share) * explorer.head.memory));
    explorer.look(Math.max(0, explorer.target - distance));
  });
  const atShare = (share) => {
    const inner = $("overview").clientWidth - MARGIN;
    const x = share * $("overview").clientWidth - MARGIN;
    return Math.floor((x / inner) * explorer.reading.watched);
  };
  onDrag($("overview"), (share) => explorer.choose(atShare(share)));
  $("overview").addEventListener("mousemove", (event) => {
    if (!explorer.head) return;
    const i = Math.min(explorer.reading.watched - 1, Math.max(0, atShare(event.offsetX / $("overview").clientWidth)));
    $("under-overview").textContent =
      `${explorer.describeBits(explorer.reading.first + i)}, spreads over ${short(explorer.head.effective[i])}`;
  });
  $("overview").addEventListener("keydown", (event) => explorer.watched?.key(event));
  new ResizeObserver(() => {
    Object.values(explorer.canvas).forEach((canvas) => canvas.fit());
    if (explorer.chosen !== undefined) explorer.redraw();
  }).observe($("views"));
}

/** An iframe of the same origin grows with its page. */
function fitFrame() {
  try {
    const frame = window.frameElement;
    if (!frame) return;
    const fit = () => (frame.style.height = `${document.body.scrollHeight + 4}px`);
    new ResizeObserver(fit).observe(document.body);
  } catch { /* another origin: whoever made the frame gave it a height */ }
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
