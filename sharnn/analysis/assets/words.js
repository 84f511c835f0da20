// The texts: names of bytes, their bits, and the distribution of the weight.

const GUESSES_SHOWN = 4;

/** Describes the weight of target i's query on the byte at `index`. */
function describeWeight(trace, head, i, index) {
  const distance = trace.first + i - index;
  const visible = trace.numVisible[i];
  if (distance < 1) return `${nameOf(trace, index)}: not read yet`;
  const name = `${nameOf(trace, index)}, ${plural(distance, "byte")} back`;
  if (distance > visible) return `${name}: outside the memory`;
  const weight = head.weight(i, distance);
  return `${name}: weight ${percent(weight)}, ${short(weight * visible)} times an even share`;
}

/** Fills the section on target i. */
function fillByte(trace, head, i) {
  const target = trace.first + i;
  const bits = trace.bits[target];
  const before = oneLine(trace, target - 24, target);
  $("byte").replaceChildren(
    make("code", nameOf(trace, target)), make("span", " after "), make("code", before),
    make("span", `: ${short(bits)} bits, probability ${percent(2 ** -bits)}`));
  const guesses = trace.guesses.length / trace.numTargets;
  const list = [];
  const started = unfinished(trace.bytes, target);
  for (let g = 0; g < Math.min(GUESSES_SHOWN, guesses); g++) {
    const byte = trace.guesses[i * guesses + g];
    const guess = make("span", "", { class: "guess" });
    guess.append(make("code", shownAs(byte, started)), ` ${percent(trace.guessProbabilities[i * guesses + g])}`);
    list.push(guess, " ");
  }
  const facts = [
    ["top predictions", list],
    ["effective number",
      [`${short(head.effective[i])} of ${thousands(trace.numVisible[i])} positions`]],
    ["attention weight", [`half within ${thousands(head.median[i])} bytes, ` +
      `90% within ${thousands(head.reach[i])}`]],
  ];
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => {
    const cell = make("dd");
    cell.append(...value);
    return [make("dt", name), cell];
  }));
}

/** Adds a button for each peak of target i, which calls `look` with its byte and its number. */
function fillPeaks(trace, i, peaks, look) {
  const target = trace.first + i;
  const around = (a, b) => oneLine(trace, a, b);
  $("peaks").replaceChildren(...peaks.map(({ distance, weight }, peak) => {
    const at = target - distance;
    const [start, end] = characterAround(trace, at);
    const text = make("code", around(start - 6, start));
    const [, last] = characterAround(trace, Math.min(at + 5, trace.bytes.length - 1));
    text.append(make("mark", around(start, end)), make("span", around(end, last)));
    const button = make("button", "", { type: "button" });
    const size = make("span");
    size.append(
      make("b", `×${short(weight * trace.numVisible[i])}`), `, ${thousands(distance)} back `);
    button.append(size, text);
    button.onclick = () => look(at, peak);
    return button;
  }));
}

function fillLegends(head, colours) {
  fillBitsLegend(colours);
  fillWeightsLegend(colours, `×${short(head.largestRelative)}`);
  const some = [0, 8, 16, 20, 24, 28, 32].map((level) => colours.weights[level]);
  fillLegend("mass-legend", some, "less", `×${short(head.strongBand)} or more`);
}
