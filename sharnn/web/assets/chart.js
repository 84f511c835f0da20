// Charts: lines, dots and rules over two axes, drawn as SVG in the size of their element.

const MARGIN = { left: 44, right: 22, top: 10, bottom: 34 };

function shape(tag, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

/** Maps numbers to shares of an axis. */
class Axis {
  /**
   * @param {number[]} ends  the numbers at both ends
   * @param {Array} ticks    pairs of a number and its text
   * @param {string} label   the name of the axis
   * @param {boolean} log    true for a logarithmic axis
   */
  constructor([from, to], ticks, label, log = false) {
    Object.assign(this, { from, to, ticks, label, log });
  }

  share(number) {
    const scaled = this.log ? Math.log : (x) => x;
    const share = (scaled(number) - scaled(this.from)) / (scaled(this.to) - scaled(this.from));
    return Math.min(1, Math.max(0, share));
  }
}

/** Returns ticks at round numbers, at most six, between two numbers. */
function roundTicks(from, to) {
  const power = 10 ** Math.floor(Math.log10(to - from)) / 10;
  const step = [1, 2, 5, 10, 20].map((factor) => factor * power).find((each) => (to - from) / each < 6);
  const first = Math.ceil(from / step - 1e-6);
  const count = Math.floor(to / step + 1e-6) - first + 1;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-6));
  return Array.from({ length: count }, (_, i) => [(first + i) * step, ((first + i) * step).toFixed(digits)]);
}

class Chart {
  /**
   * @param element  an element of a fixed height
   * @param choose   called with the place of a press, as a share of the horizontal axis
   */
  constructor(element, choose = null) {
    this.element = element;
    new ResizeObserver(() => this.drawn && this.draw(...this.drawn)).observe(element);
    if (!choose) return;
    element.addEventListener("click", (event) => {
      const { left, width } = element.getBoundingClientRect();
      choose((event.clientX - left - MARGIN.left) / (width - MARGIN.left - MARGIN.right));
    });
  }

  /**
   * Draws marks of one class each: `line` and `dots` are lists of [x, y], `bars` are dots joined to
   * the bottom, `spot` is one [x, y] with a `text`, and `rule` is an x with a `text` to the right of its
   * upper end, or to the left of its lower end if it is `low`.
   */
  draw(x, y, marks, description) {
    this.drawn = [x, y, marks, description];
    const { clientWidth: width, clientHeight: height } = this.element;
    const svg = shape("svg", { width, height, role: "img", "aria-label": description });
    const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    const left = (number) => MARGIN.left + x.share(number) * inner.width;
    const top = (number) => MARGIN.top + (1 - y.share(number)) * inner.height;
    const bottom = MARGIN.top + inner.height;
    const place = ([a, b]) => `${left(a).toFixed(1)} ${top(b).toFixed(1)}`;

    for (const [number, text] of y.ticks) {
      svg.append(shape("path", { class: "grid", d: `M${MARGIN.left} ${top(number)}h${inner.width}` }));
      svg.append(shape("text", { class: "tick", x: MARGIN.left - 6, y: top(number) + 4, "text-anchor": "end" }, text));
    }
    for (const [number, text] of x.ticks) {
      svg.append(shape("text", { class: "tick", x: left(number), y: bottom + 15, "text-anchor": "middle" }, text));
    }
    svg.append(shape("text", { class: "label", x: MARGIN.left + inner.width / 2, y: height - 3, "text-anchor": "middle" }, x.label));
    for (const { kind, class: name = "", points = [], at = null, text = "", low = false } of marks) {
      if (kind === "line" && points.length) {
        svg.append(shape("path", { class: `line ${name}`, d: `M${points.map(place).join("L")}` }));
      } else if (kind === "dots" && points.length) {
        svg.append(shape("path", { class: `dots ${name}`, d: points.map((point) => `M${place(point)}h0`).join("") }));
      } else if (kind === "bars" && points.length) {
        svg.append(shape("path", { class: `bars ${name}`, d: points.map((point) => `M${place(point)}V${bottom}`).join("") }));
      } else if (kind === "rule") {
        svg.append(shape("path", { class: `rule ${name}`, d: `M${left(at)} ${MARGIN.top}V${bottom}` }));
        this.write(svg, left(at), low ? bottom - 8 : MARGIN.top + 10, text, !low);
      } else if (kind === "spot") {
        svg.append(shape("circle", { class: `spot ${name}`, cx: left(at[0]), cy: top(at[1]), r: 6 }));
        this.write(svg, left(at[0]) + 4, top(at[1]) - 10, text, left(at[0]) < width - 8 * text.length);
      }
    }
    this.element.replaceChildren(svg);
  }

  /** Writes a text to the right of a place or to its left. */
  write(svg, left, top, text, right) {
    svg.append(shape("text", { class: "note", x: left + (right ? 4 : -4), y: Math.max(top, MARGIN.top + 10), "text-anchor": right ? "start" : "end" }, text));
  }
}
