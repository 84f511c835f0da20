// Elements of the page, and the names of a text's bytes.

const $ = (id) => document.getElementById(id);

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  lowerHeading(element);
  return element;
}

/** In a frame, puts a heading one level lower: the page around the frame has a title of its own. */
function lowerHeading(element) {
  const [, level] = element.tagName.match(/^H(\d)$/) ?? [];
  if (level && window.parent !== window) element.setAttribute("aria-level", Number(level) + 1);
}

function nameOf(trace, index) {
  const glyph = trace.glyphs[trace.glyphIndex[index]];
  return glyph.length === 1
    ? glyph.name
    : `${glyph.name} (byte ${index - glyph.start + 1} of ${glyph.length})`;
}

function describeBits(trace, index) {
  const bits = trace.bits[index];
  return `${nameOf(trace, index)}: ${Number.isNaN(bits) ? "not predicted" : `${cost(bits)} bits`}`;
}

/** Shows some colours of a scale between the texts of its two ends. */
function fillLegend(id, palette, low, high) {
  const squares = palette.map((colour) => {
    const square = make("span");
    square.style.backgroundColor = colour;
    return square;
  });
  $(id).replaceChildren(low, ...squares, high);
}

/** Shows the colours of bits. */
function fillBitsLegend(colours) {
  fillLegend("bits-legend", [0, 4, 8, 12, 16].map((level) => colours.bits[level]), "0 bits", "8 or more");
}

/** Shows the colours of weights above an even share, of which `most` describes the strongest. */
function fillWeightsLegend(colours, most, even = "an even share or less") {
  const levels = [EVEN, 20, 24, 28, 32];
  fillLegend("weights-legend", levels.map((level) => colours.weights[level]), even, most);
}

/** Returns a bar of a length, which is a share of the space for it. */
function makeBar(share, kind = "") {
  const bar = make("div", "", { class: `bar ${kind}`.trimEnd() });
  bar.style.width = `${100 * share}%`;
  return bar;
}

/** Returns an element that holds a bar of a length, which is a share of its width. */
function barHolder(share) {
  const holder = make("div");
  holder.append(makeBar(share));
  return holder;
}

/** Lets the reader choose a head by its block, if there are several; `use` is called with its index. */
function offerHeads(blocks, use) {
  $("head-choice").hidden = blocks.length < 2;
  $("head").replaceChildren(...blocks.map((block, index) => make("option", placeInWords(block), { value: index })));
  $("head").onchange = () => use(Number($("head").value));
}

/** Fits the page into the frame around it, if there is one: its headings, and with the same origin the height. */
function fitFrame() {
  document.querySelectorAll("h1, h2, h3").forEach(lowerHeading);
  try {
    const frame = window.frameElement;
    if (!frame) return;
    const fit = () => (frame.style.height = `${document.body.scrollHeight + 4}px`);
    new ResizeObserver(fit).observe(document.body);
  } catch { /* another origin: the frame keeps its height */ }
}
