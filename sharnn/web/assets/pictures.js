// Shows the picture that belongs to the positions of the controls.

class Pictures {
  constructor({ controls, lengths }, lines, numbers) {
    this.controls = controls;
    this.positions = controls.map(({ initial }) => initial);
    this.lines = lines;
    let end = 0;
    this.numbers = lengths.map((length) => numbers.subarray(end, (end += length)));
    this.addresses = new Map(); // of the pictures shown so far
  }

  /** Number of the shown picture: the position of the last control changes fastest. */
  get index() {
    return this.controls.reduce((sum, { labels }, i) => sum * labels.length + this.positions[i], 0);
  }

  move(i, position) {
    this.positions[i] = position;
    const { index } = this;
    if (!this.addresses.has(index)) {
      const text = Array.from(this.numbers[index], (number) => this.lines[number]).join("\n");
      this.addresses.set(index, URL.createObjectURL(new Blob([text], { type: "image/svg+xml" })));
    }
    $("picture").src = this.addresses.get(index);
    this.describe();
  }

  describe() {
    const values = this.controls.map(({ name, labels }, j) => `${name} ${labels[this.positions[j]]}`);
    const about = description().replace(/\.?$/, ".");
    $("picture").alt = `${about} Shown: ${values.join(", ")}.`;
  }

  /** Returns the element of a control: its name, a slider or choices, and its value. */
  element(i) {
    const { name, labels, initial, slider } = this.controls[i];
    const row = make("label", "", { class: "control" });
    row.append(make("span", name));
    if (labels.length === 1) {
      row.append(make("output", labels[0]));
    } else if (slider) {
      const range = { type: "range", min: 0, max: labels.length - 1, value: initial };
      const input = make("input", "", { ...range, "aria-label": name });
      const value = make("output");
      value.style.minWidth = `${Math.max(...labels.map((label) => label.length))}ch`;
      const show = () => {
        value.textContent = labels[input.value];
        input.setAttribute("aria-valuetext", labels[input.value]);
      };
      show();
      input.oninput = () => {
        show();
        this.move(i, Number(input.value));
      };
      row.append(input, value);
    } else {
      const select = make("select", "", { "aria-label": name });
      select.append(...labels.map((label) => make("option", label)));
      select.selectedIndex = initial;
      select.onchange = () => this.move(i, select.selectedIndex);
      row.append(select);
    }
    return row;
  }
}

/** Returns the description of the figure, which the page around the frame contains. */
function description() {
  try {
    return window.frameElement?.title || document.title;
  } catch { /* another origin */ }
  return document.title;
}

async function start() {
  followTheme(null, () => {});
  fitFrame();
  if (typeof DecompressionStream === "undefined") return; // before 2023: the initial picture
  const content = JSON.parse($("payload").textContent);
  const [text, numbers] = await Promise.all([unpack(content.lines), unpack(content.numbers)]);
  const pictures = new Pictures(content, new TextDecoder().decode(text).split("\n"), numbers);
  window.sharnn = pictures; // gives the console access to the numbers
  $("controls").replaceChildren(...content.controls.map((_, i) => pictures.element(i)));
  pictures.describe();
  document.body.dataset.ready = "";
}
