// A stream that is read in segments, moment by moment: which rows are in memory, which of them each
// query can attend to, and which are dropped. It follows `Block._trim`, `Block._mask` and
// `Memory.append` in sharnn/model.py and sharnn/memory.py.

/**
 * Returns the moments of a stream: { kind, number, start, end, position, kept, oldest }.
 *
 * Segment `number` has the positions from `start` to before `end`. The memory has the rows from `kept`
 * on. At a moment of kind "query", the query at `position` can attend to the rows from `oldest` on. At
 * "before" the memory has been trimmed for the segment, and at "after" the segment has joined it.
 */
function moments(size, length, limit, window) {
  const all = [];
  let kept = 0;
  for (let start = 0, number = 1; start < size; start += length, number++) {
    const end = Math.min(start + length, size);
    const segment = { number, start, end };
    // R = the newest M - L rows of R, or M - 1 if the window is sliding
    const room = Math.max(0, window === "sliding" ? limit - 1 : limit - (end - start));
    const dropped = Math.max(0, start - room - kept);
    kept += dropped;
    all.push({ kind: "before", ...segment, position: start, kept, dropped });
    for (let position = start; position < end; position++) {
      const slides = window === "sliding" || end - start > limit;
      const oldest = slides ? Math.max(kept, position - limit + 1) : kept;
      all.push({ kind: "query", ...segment, position, kept, oldest, dropped: 0 });
    }
    // R = the newest M rows of [R ; m]
    const lost = Math.max(0, end - limit - kept);
    kept += lost;
    all.push({ kind: "after", ...segment, position: end, kept, dropped: lost });
  }
  return all;
}

const rows = (count) => plural(count, "row");

/** Returns a moment in words. */
function describeMoment({ kind, number, start, end, position, kept, oldest, dropped }, limit, window) {
  const drops = dropped ? ` ${rows(dropped)} ${dropped === 1 ? "drops" : "drop"} out.` : "";
  if (kind === "before") {
    if (!start) return "The stream starts. The memory is empty.";
    const rule = window === "sliding" ? "M − 1" : "M − L";
    return `Before segment ${number}, the memory keeps its newest ${rule} rows at most: ${rows(start - kept)}.${drops}`;
  }
  if (kind === "after") {
    return `After segment ${number}, its rows join the memory, which keeps M at most: ${rows(end - kept)}.${drops}`;
  }
  const inMemory = Math.max(0, start - oldest);
  const own = position + 1 - Math.max(start, oldest);
  const hidden = start - kept - inMemory;
  return `Segment ${number}, byte ${position - start + 1} of ${end - start}: the query sees ${rows(inMemory + own)}, ` +
    `${inMemory} of the memory and ${own} of its segment.` +
    (hidden > 0 ? ` ${rows(hidden)} of the memory ${hidden === 1 ? "is" : "are"} too old for it.` : "");
}

/** The stream as a picture that moves. */
class StreamPicture {
  constructor() {
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.timer = null;
    this.now = 0;
    for (const id of ["segment-length", "window-length", "window"]) $(id).oninput = () => this.reset();
    $("play").onclick = () => (this.timer ? this.pause() : this.play());
    $("back").onclick = () => this.step(-1);
    $("forward").onclick = () => this.step(1);
    $("moment-number").oninput = () => this.step(Number($("moment-number").value) - this.now);
    $("speed").onchange = () => this.timer && this.play();
    new ResizeObserver(() => this.known && this.fit()).observe($("tape"));
  }

  /** Uses the beginning of a text as the stream. */
  show(known) {
    this.known = known;
    this.columns = null;
    this.fit();
  }

  /** Chooses the number of bytes that the width has space for. */
  fit() {
    const columns = Math.min($("tape").clientWidth < 600 ? 32 : 64, this.known.bytes.length);
    if (columns !== this.columns) {
      this.columns = columns;
      const cells = Array.from({ length: columns }, (_, index) => {
        const glyph = this.known.glyphs[this.known.glyphIndex[index]];
        return make("i", index > glyph.start ? "·" : glyph.kind === "code" ? "□" : glyph.shown);
      });
      $("tape").style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
      $("tape").replaceChildren(...cells);
      this.cells = cells;
      this.reset();
    } else {
      this.drawMap();
    }
  }

  /** Starts from new settings, at a moment that shows all parts: in the middle of the stream. */
  reset() {
    this.length = Number($("segment-length").value);
    this.limit = Number($("window-length").value);
    this.window = $("window").value;
    $("segment-length-value").textContent = this.length;
    $("window-length-value").textContent = this.limit;
    const position = this.all?.[this.now]?.position ?? Math.floor(0.6 * this.columns);
    this.all = moments(this.columns, this.length, this.limit, this.window);
    const same = this.all.findIndex((moment) => moment.kind === "query" && moment.position >= position);
    $("moment-number").max = Math.max(0, this.all.length - 1);
    this.go(same < 0 ? this.all.length - 1 : same);
  }

  step(count) {
    this.pause();
    this.go(this.now + count);
  }

  play() {
    this.pause();
    if (this.now >= this.all.length - 1) this.go(0);
    $("play").textContent = "Pause";
    const calm = this.still.matches;
    this.timer = setInterval(() => {
      if (this.now >= this.all.length - 1) this.pause();
      else this.go(calm ? this.nextSegment() : this.now + 1);
    }, calm ? 1500 : 1000 / Number($("speed").value));
  }

  /** Returns the last query of the next segment: with reduced motion the picture jumps there. */
  nextSegment() {
    const { number } = this.all[this.now];
    const next = this.all.findLastIndex((moment) => moment.kind === "query" && moment.number === number + 1);
    return next < 0 ? this.all.length - 1 : next;
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    $("play").textContent = "Play";
  }

  /** Shows a moment. */
  go(number) {
    this.now = Math.min(this.all.length - 1, Math.max(0, number));
    const moment = this.all[this.now];
    $("moment-number").value = this.now;
    if (!moment) {
      $("moment").textContent = "There is no text.";
      this.drawMap();
      return;
    }
    const { kind, start, end, position, kept, oldest } = moment;
    const arrived = kind === "query" ? position : position - 1;
    this.cells.forEach((cell, index) => {
      const state = index > arrived ? "ahead"
        : index < kept ? "dropped"
        : index < start || kind === "after" ? "memory" : "segment";
      const names = [state];
      if (kind === "query" && index >= oldest && index <= position) names.push("seen");
      if (kind === "query" && index === position) names.push("query");
      if (index >= start && index < end && kind !== "after") names.push("started");
      cell.className = names.join(" ");
    });
    const words = describeMoment(moment, this.limit, this.window);
    $("moment").textContent = words;
    $("moment-number").setAttribute("aria-valuetext", words);
    this.drawMap();
  }

  /** Draws the rows that each query so far could see. */
  drawMap() {
    const canvas = $("map");
    const scale = window.devicePixelRatio;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const colour = (name, strength) => `rgba(${style.getPropertyValue(name)}, ${strength})`;
    const across = canvas.width / this.columns;
    const down = canvas.height / this.columns;
    for (const { kind, start, position, oldest } of this.all.slice(0, this.now + 1)) {
      if (kind !== "query") continue;
      const top = Math.round(position * down);
      const height = Math.round((position + 1) * down) - top - (down > 2.5 * scale ? scale : 0);
      const fill = (name, from, to) => {
        if (from >= to) return;
        pen.fillStyle = colour(name, position === this.all[this.now].position ? 1 : 0.6);
        pen.fillRect(Math.round(from * across), top, Math.round((to - from) * across), height);
      };
      fill("--more", oldest, start);
      fill("--bits", Math.max(start, oldest), position + 1);
    }
    canvas.setAttribute("aria-label", `Map of the rows that each query could see, up to byte ${this.all[this.now]?.position ?? 0}`);
  }
}
