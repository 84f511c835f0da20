// What is said in words: names of bytes, what they cost, where the weight lies.

const GUESSES_SHOWN = 4;

const $ = (id) => document.getElementById(id);

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function nameOf(reading, index) {
  const glyph = reading.glyphs[reading.places[index]];
  return glyph.length === 1
    ? glyph.name
    : `${glyph.name} (byte ${index - glyph.start + 1} of ${glyph.length})`;
}

function bitsInWords(reading, index) {
  const bits = reading.bits[index];
  const cost = Number.isNaN(bits) ? "nothing predicted it" : `${short(bits)} bits`;
  return `${nameOf(reading, index)}: ${cost}`;
}

/** The weight of watched byte i on the byte at `index`. */
function weightInWords(reading, head, i, index) {
  const distance = reading.first + i - index;
  const visible = reading.visible[i];
  if (distance < 1) return `${nameOf(reading, index)}: not yet read`;
  const name = `${nameOf(reading, index)}, ${thousands(distance)} back`;
  if (distance > visible) return `${name}: out of the memory`;
  const weight = head.weight(i, distance);
  return `${name}: weight ${percent(weight)}, ${short(weight * visible)} times an even share`;
}

/** Says all about watched byte i. */
function fillByte(reading, head, i) {
  const target = reading.first + i;
  const bits = reading.bits[target];
  const before = oneLine(reading.glyphs, reading.places, target - 24, target);
  $("byte").replaceChildren(
    make("span", "after "), make("code", before), make("span", " comes "),
    make("code", nameOf(reading, target)),
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
  const facts = [
    ["the model's guesses", list],
    ["the head spreads over",
      [`${short(head.effective[i])} of ${thousands(reading.visible[i])} positions`]],
    ["half of the weight", [`within ${thousands(head.median[i])} bytes, ` +
      `90 % within ${thousands(head.reach[i])}`]],
  ];
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => {
    const cell = make("dd");
    cell.append(...value);
    return [make("dt", name), cell];
  }));
}

/** A button for each peak of watched byte i; `look` is called with its byte and its place. */
function fillPeaks(reading, i, peaks, look) {
  const target = reading.first + i;
  const around = (a, b) => (a < b ? oneLine(reading.glyphs, reading.places, a, b) : "");
  $("peaks").replaceChildren(...peaks.map(({ distance, weight }, place) => {
    const at = target - distance;
    const text = make("code", around(Math.max(0, at - 6), at));
    text.append(make("mark", around(at, at + 1)), make("span", around(at + 1, at + 6)));
    const button = make("button", "", { type: "button" });
    const size = make("span");
    size.append(
      make("b", `×${short(weight * reading.visible[i])}`), `, ${thousands(distance)} back `);
    button.append(size, text);
    button.onclick = () => look(at, place);
    return button;
  }));
}

function fillLegends(head, colours) {
  const fill = (id, palette, low, high) => {
    const squares = palette.map((colour) => {
      const square = make("span");
      square.style.backgroundColor = colour;
      return square;
    });
    $(id).replaceChildren(low, ...squares, high);
  };
  const { bits, weights } = colours;
  fill("bits-legend", [0, 4, 8, 12, 16].map((level) => bits[level]), "0 bits", "8 or more");
  const some = [0, 8, 16, 20, 24, 28, 32].map((level) => weights[level]);
  fill("weights-legend", some, "less", `×${short(head.largestRelative)}`);
  fill("mass-legend", some, "less than an even share", `×${short(head.strongBand)} or more`);
}
