// A text whose bytes can be coloured, hovered over and selected, by mouse, touch or keyboard.

const NO_LEVEL = 255;
const IN_VIEW = 2500; // maximum distance, in bytes, of two bytes in view at the same time

/** Waits for the next frame, up to a limit: a browser may draw no frame while out of view. */
function nextFrame() {
  return new Promise((done) => {
    requestAnimationFrame(() => setTimeout(done));
    setTimeout(done, 500);
  });
}

const WIDE = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}\u3000-\u303f\uff01-\uff60]/u;

/** Returns the width of each byte of a character of several bytes, in widths of a letter. */
function cellWidth({ shown, length }) {
  return Math.max(WIDE.test(shown) ? 2 : 1, 0.5 * length) / length; // wide enough to be selected
}

/** Returns two buttons beside the line under a text, for fingers, which hit one byte only by luck. */
function stepButtons(element) {
  let line = element.nextElementSibling;
  if (!line?.classList.contains("under")) {
    const status = line?.classList.contains("status") ? [line] : [];
    line = make("div", "", { class: "under" });
    element.after(line);
    const name = (element.getAttribute("aria-label") ?? "byte").toLowerCase();
    line.append(make("button", "‹", { type: "button", "aria-label": `Back: ${name}` }), ...status,
      make("button", "›", { type: "button", "aria-label": `Forward: ${name}` }));
  }
  return line.querySelectorAll("button");
}

class TextPane {
  /**
   * @param element   element that holds the text; it scrolls and takes the focus
   * @param trace     the bytes and their glyphs
   * @param from, to  range of bytes to show
   * @param choose    called with the byte that was selected
   * @param hover     called with the byte under the pointer, null if there is none
   */
  constructor(element, trace, from, to, choose, hover) {
    Object.assign(this, { element, trace, from, to, choose });
    this.cells = new Array(to - from);
    this.levels = new Uint8Array(to - from).fill(NO_LEVEL);
    this.here = null;
    this.turn = 0;
    element.replaceChildren(this.build());
    element.setAttribute("aria-valuemin", from);
    element.setAttribute("aria-valuemax", to - 1);
    // Assigned rather than added, so that a new text replaces the old one's handlers.
    element.onclick = (event) => this.at(event) !== null && choose(this.at(event));
    element.onmouseover = (event) => hover(this.at(event));
    element.onmouseleave = () => hover(null);
    element.onkeydown = (event) => this.key(event);
    const [back, forward] = stepButtons(element);
    back.onclick = () => this.step(-1);
    forward.onclick = () => this.step(1);
  }

  build() {
    const all = document.createDocumentFragment();
    for (const glyph of this.trace.glyphs) {
      const first = Math.max(glyph.start, this.from);
      const last = Math.min(glyph.start + glyph.length, this.to);
      if (first >= last) continue;
      let parent = all;
      if (glyph.length > 1) {
        parent = document.createElement("span");
        parent.className = glyph.kind === "code" ? "glyph long" : "glyph";
        parent.dataset.glyph = glyph.shown;
        parent.style.setProperty("--cell", cellWidth(glyph));
        all.append(parent);
      }
      for (let index = first; index < last; index++) {
        const cell = document.createElement("i");
        cell.index = index;
        if (glyph.length === 1) {
          cell.textContent = glyph.shown;
          if (glyph.kind) cell.className = glyph.kind;
        } else {
          cell.textContent = "\u00a0";
        }
        this.cells[index - this.from] = cell;
        parent.append(cell);
      }
      if (glyph.name === "newline") all.append(document.createElement("br"));
    }
    return all;
  }

  /** Returns the byte under an event; null if there is none. */
  at(event) {
    let index = event.target.index ?? null;
    if (index === null && event.target.dataset?.glyph) index = event.target.firstChild.index;
    return index;
  }

  cell(index) {
    return this.cells[index - this.from];
  }

  /**
   * Colours each byte by its level in a palette. Only cells that change are updated. With `near`,
   * the cells that can be in view with that byte come first and the others after the next frame.
   */
  paint(levelOf, palette, near = null) {
    if (palette !== this.palette) this.levels.fill(NO_LEVEL);
    this.palette = palette;
    const turn = ++this.turn; // cancels what an older call has deferred
    if (near === null) {
      this.paintCells(levelOf, 0, this.cells.length);
      return;
    }
    const first = Math.max(0, near - this.from - IN_VIEW);
    const end = Math.min(this.cells.length, near - this.from + IN_VIEW);
    this.paintCells(levelOf, first, end);
    nextFrame().then(() => {
      if (turn !== this.turn) return;
      this.paintCells(levelOf, 0, first);
      this.paintCells(levelOf, end, this.cells.length);
    });
  }

  paintCells(levelOf, first, end) {
    for (let j = first; j < end; j++) {
      const level = levelOf(j + this.from);
      if (level === this.levels[j]) continue;
      this.levels[j] = level;
      this.cells[j].style.backgroundColor = this.palette[level];
    }
  }

  /** Marks byte `first` as the target, and the bytes from there on as not read yet. */
  dimFrom(first) {
    const old = this.dimmed ?? this.to;
    const [low, high] = first < old ? [first, old] : [old, first];
    for (let index = Math.max(low, this.from); index < Math.min(high, this.to); index++) {
      this.cell(index).classList.toggle("later", index >= first);
    }
    this.target?.classList.remove("target");
    this.target = first < this.to ? this.cell(first) : null;
    this.target?.classList.add("target");
    this.dimmed = first;
  }

  /** Moves the cursor, scrolls to it, and updates the value that screen readers announce. */
  moveTo(index, spoken) {
    this.here?.classList.remove("here");
    this.here = this.cell(index);
    this.here.classList.add("here");
    this.element.setAttribute("aria-valuenow", index);
    this.element.setAttribute("aria-valuetext", spoken);
    this.show(index);
  }

  /**
   * Scrolls to a byte within this element; the page itself does not scroll. If there is space for
   * both, byte `other` is in view, too.
   */
  show(index, other = index) {
    const box = this.element.getBoundingClientRect();
    const [cell, second] = [index, other].map((i) => this.cell(i).getBoundingClientRect());
    const isInView = ({ top, bottom }) => top >= box.top + 4 && bottom <= box.bottom - 4;
    if (isInView(cell) && isInView(second)) return;
    const top = Math.min(cell.top, second.top);
    const height = Math.max(cell.bottom, second.bottom) - top;
    const middle = height < box.height - 16 ? top + height / 2 : cell.top;
    this.element.scrollTop += middle - box.top - box.height / 2;
  }

  /** Selects the byte before or after the selected one. */
  step(by) {
    this.goTo((this.here?.index ?? this.from) + by);
  }

  /** Selects a byte, or the first or the last one instead of one that does not exist. */
  goTo(index) {
    if (this.from < this.to) this.choose(Math.min(this.to - 1, Math.max(this.from, index)));
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || this.from === this.to) return;
    const now = this.here?.index ?? this.from;
    const moves = {
      ArrowLeft: () => now - 1,
      ArrowRight: () => now + 1,
      ArrowUp: () => this.otherLine(now, -1),
      ArrowDown: () => this.otherLine(now, 1),
      PageUp: () => now - 64,
      PageDown: () => now + 64,
      Home: () => this.from,
      End: () => this.to - 1,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.goTo(moves[event.key]());
  }

  /** Returns the byte of the next line, up or down, that is horizontally closest to this one. */
  otherLine(index, step) {
    const box = (i) => this.cell(i).getBoundingClientRect();
    const { top, left, height } = box(index);
    let best = null;
    for (let i = index + step; i >= this.from && i < this.to; i += step) {
      const cell = box(i);
      const lines = Math.abs(cell.top - top) / height;
      if (lines < 0.5) continue;
      if (best !== null && Math.abs(cell.top - best.top) > height / 2) break;
      const apart = Math.abs(cell.left - left);
      if (best === null || apart < best.apart) best = { i, apart, top: cell.top };
    }
    return best?.i ?? index;
  }
}
