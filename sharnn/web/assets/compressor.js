// The compressor: what each byte of a text costs, the code of the text, and the text of the code.

const LENGTH_BYTES = 2; // the decoder needs the length of the text, at most 4,000
const FRAMING_BYTES = 52; // header and checksums of an archive with so short a text
const CHEAP = 0.5; // bits
const SHOWN = 96; // bytes of the code

const areEqual = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);

/** Returns the size of what the browser makes of some bytes, in a format of CompressionStream. */
async function compressedSize(bytes, format) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream(format));
  return (await new Response(stream).arrayBuffer()).byteLength;
}

class Compressor {
  constructor(payload) {
    this.payload = payload;
    this.session = new Session(payload, this);
    this.archives = new Archives(this.session, payload);
    this.file = null; // { name, bytes, size } of the file whose start is shown
    this.chosen = null;
    $("restore").onclick = () => this.restore();
    $("file").onchange = ({ target }) => target.files.length && this.readFile(target.files[0]);
    this.acceptDrops();
  }

  async open() {
    const { example } = this.payload;
    this.toChoose = (await unpack(example.bits[0])).reduce(
      (best, value, i, bits) => (value > bits[best] ? i : best), 0);
    await this.session.showExample();
  }

  /** Reads files that are dropped anywhere on the page. */
  acceptDrops() {
    const mark = (event, over) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      document.body.classList.toggle("dropping", over);
    };
    document.addEventListener("dragover", (event) => mark(event, true));
    document.addEventListener("dragleave", (event) => mark(event, false));
    document.addEventListener("drop", (event) => {
      mark(event, false);
      if (event.dataTransfer.files.length) this.readFile(event.dataTransfer.files[0]);
    });
  }

  /** Opens an archive, or reads the start of another file, whatever its bytes are. */
  async readFile(file) {
    if (file.name.endsWith(ENDING)) return this.archives.open(file);
    const bytes = new Uint8Array(await file.slice(0, MOST_PACKED).arrayBuffer());
    const start = bytes.subarray(0, LONGEST);
    this.session.history.put(new TextDecoder().decode(start)); // as far as a field can show it
    this.session.showChange();
    this.session.showSize(file.size);
    await this.session.start();
    this.file = { name: file.name, bytes, size: file.size };
    await this.session.read(bytes);
    this.session.showSize(file.size);
  }

  /** Sets what an archive will hold: the file, or the text if it has been changed. */
  hold(archive = null) {
    const { known, file } = this;
    if (file && !areEqual(known.bytes, file.bytes.subarray(0, LONGEST))) this.file = null;
    const { name, bytes, size } = this.file ?? { name: "text.txt", bytes: toBytes($("text").value) };
    this.archives.hold(name, bytes, bytes.length === known.bytes.length ? archive : null, size);
  }

  show(known) {
    this.known = known;
    this.code = null;
    this.sizes = null;
    this.textPane = new TextPane($("bytes"), known, 0, known.bytes.length,
      (index) => this.choose(index),
      (index) => ($("under-bytes").textContent =
        index === null ? this.pinned : this.describe(index)));
    if (this.chosen !== null) this.toChoose = this.chosen;
    this.chosen = null;
    this.pinned = "";
    $("under-bytes").textContent = $("verdict").textContent = "";
    $("restored").hidden = true;
    this.showCode();
    this.paint();
    this.hold();
    this.measureOthers(known);
  }

  async measureOthers(known) {
    const [gzip, deflate] = await Promise.all(
      ["gzip", "deflate-raw"].map((format) => compressedSize(known.bytes, format)));
    if (this.known !== known) return;
    this.sizes = { gzip, deflate };
    this.paintBars();
  }

  receive() {
    this.paint();
  }

  async finish(known) {
    const { bytes } = known;
    if (bytes.length) this.choose(Math.min(this.toChoose ?? 0, bytes.length - 1));
    if (known === this.session.example) return;
    const { fingerprint } = this.payload;
    const { code, archive } = await this.session.request("encode", { fingerprint });
    if (this.known !== known) return;
    this.code = code;
    this.hold(archive);
    this.showCode();
    this.paintBars();
  }

  recolour() {
    this.colours = new Colours();
    fillBitsLegend(this.colours);
    if (this.known) this.paint();
  }

  paint() {
    const { known, colours } = this;
    this.textPane.paint((index) => bitsLevel(known.bits[index] ?? NaN), colours.bits);
    this.paintBars();
    this.describeSpread();
  }

  /** Bits of the bytes read so far. */
  get total() {
    return sum(this.known.bits);
  }

  /** Describes how unevenly the bits are spread: many bytes are nearly free. */
  describeSpread() {
    const sorted = Array.from(this.known.bits).sort((a, b) => b - a);
    if (!sorted.length) {
      $("spread").textContent = "";
      return;
    }
    const half = this.total / 2;
    let [spent, count] = [0, 0];
    while (spent < half) spent += sorted[count++];
    const cheap = sorted.filter((value) => value < CHEAP).length;
    $("spread").textContent =
      `Half of the bits are spent on ${percent(count / sorted.length)} of the bytes; ` +
      `${percent(cheap / sorted.length)} of them cost less than half a bit each.`;
  }

  describe(index) {
    const { known } = this;
    const before = sum(known.bits.slice(0, index + 1));
    const upTo = index < known.read
      ? `; the first ${plural(index + 1, "byte")} together: ${short(before / 8)} bytes` : "";
    return `${known.describe(index)}${upTo}`;
  }

  choose(index) {
    this.chosen = index;
    this.pinned = this.describe(index);
    this.textPane.moveTo(index, this.pinned);
    $("under-bytes").textContent = this.pinned;
  }

  /** Draws a bar for each size in bytes. */
  paintBars() {
    const { known, sizes, code, payload } = this;
    const size = known.bytes.length;
    if (!size) {
      $("bars").replaceChildren();
      $("counted").replaceChildren();
      return;
    }
    const ideal = this.total / 8;
    const coded = code ? code.length : ideal;
    const model = coded + LENGTH_BYTES;
    const lines = [["the text", size, "plain"]];
    if (sizes) lines.push(["gzip", sizes.gzip, "other"], ["gzip, code only", sizes.deflate, "other"]);
    lines.push([payload.name, Math.min(coded, size) + FRAMING_BYTES, ""]); // larger codes are not stored
    lines.push([`${payload.name}, code only`, model, ""]);
    const largest = Math.max(...lines.map(([, bytes]) => bytes));
    const elements = lines.flatMap(([name, bytes, kind]) => {
      const rounded = thousands(Math.round(bytes));
      return [make("span", name), makeBar(bytes / largest, kind),
        make("span", `${rounded} bytes, ${((8 * bytes) / size).toFixed(2)} bits per byte`)];
    });
    if (sizes && known.read === size) {
      const saved = 1 - model / sizes.deflate;
      const verdict = Math.abs(saved) < 0.005
        ? "The model's code and gzip's have the same size."
        : `The model's code is ${percent(Math.abs(saved))} ${saved > 0 ? "shorter" : "longer"} than gzip's code.`;
      elements.push(make("span", verdict, { class: "verdict" }));
    }
    $("bars").replaceChildren(...elements);
    const measured = code ? `the code has ${thousands(code.length)}` : "a code needs at most one more";
    const counted = [
      `${payload.name}: the bits of all bytes add up to ${short(ideal)} bytes, and ${measured}. ` +
        `Another ${LENGTH_BYTES} hold the length of the text. An archive has ${FRAMING_BYTES} for that and for checksums.`,
      "gzip: its whole file, and its code without the header and the checksum. It begins each text " +
        "without any knowledge, while the model has learned from other text before.",
      `Not counted: the model itself, ${thousands(payload.parameters)} weights, nearly all of one byte. ` +
        "Without them nobody can read the model's code. gzip needs only its program.",
    ];
    $("counted").replaceChildren(...counted.map((line) => make("p", line)));
  }

  showCode() {
    const { code } = this;
    $("code-hint").textContent = code
      ? `The code: ${plural(code.length, "byte")}, in hexadecimal.`
      : "The code appears once the model has read the text.";
    const digits = Array.from(code?.subarray(0, SHOWN) ?? [], (byte) => byte.toString(16).padStart(2, "0"));
    $("code").textContent = digits.join(" ") + (code?.length > SHOWN ? " …" : "");
    $("restore").disabled = !code;
  }

  /** Decodes the code, which needs as long as reading the text. */
  async restore() {
    const { known } = this;
    const code = this.code.slice();
    const damaged = $("damage").checked && code.length > 0;
    const place = Math.floor(code.length / 2);
    if (damaged) code[place] ^= 1;
    $("restore").disabled = true;
    $("restored").hidden = false;
    const restored = [];
    await this.session.request("decode", { code, length: known.bytes.length }, ({ symbols }) => {
      if (this.known !== known) return;
      restored.push(...symbols);
      this.showRestored(restored);
      $("verdict").textContent =
        `${thousands(restored.length)} of ${plural(known.bytes.length, "byte")}`;
    });
    if (this.known !== known) return; // another text has been read meanwhile
    $("restore").disabled = false;
    const wrong = restored.findIndex((byte, i) => byte !== known.bytes[i]);
    $("verdict").textContent = (damaged ? `A bit in byte ${thousands(place + 1)} of the code was changed. ` : "") +
      (wrong < 0 ? "Restored: identical." : `Identical for ${plural(wrong, "byte")}, and then another text.`);
  }

  /** Shows restored bytes; those after the first wrong one are orange. */
  showRestored(restored) {
    const { known } = this;
    const same = restored.findIndex((byte, i) => byte !== known.bytes[i]);
    const shown = (bytes) => readable(Uint8Array.from(bytes));
    const right = same < 0 ? restored : restored.slice(0, same);
    const wrong = make("i", same < 0 ? "" : shown(restored.slice(same)));
    $("restored").replaceChildren(shown(right), wrong);
    $("restored").scrollTop = $("restored").scrollHeight;
  }
}

const start = () => startPage((payload) => new Compressor(payload));
