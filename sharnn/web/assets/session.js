// The model behind a page with a field for the reader's text. It is started when it is needed, and reads
// the text again from each change on. Until then, the page shows a prepared text.

const LONGEST = 4000; // bytes of a text
const GUESSES = 8; // in place of each byte
const PAUSE = 60; // milliseconds after a key before the text is read

class Session {
  /**
   * @param payload  the data of the page
   * @param view     the page: `show(known)` is called with each new text, `receive(known, part)` after
   *                 each part of it has been read, and `finish(known)` at its end
   * @param extra    number of bytes that can be written after the longest text
   */
  constructor(payload, view, extra = 0) {
    Object.assign(this, { payload, view, extra });
    this.limits = payload.limits; // of the memory, one for each reading; null for the model's own
    this.engine = null;
    this.file = null; // the model, in bytes
    this.wishes = {}; // what else each part of a reading contains; see `Reader.read`
    this.turn = 0;
    $("start").textContent = `Start the model${payload.file ? "" : ` (${payload.size})`}`;
    $("start").onclick = () => this.start();
    $("status").textContent = "or just type";
    this.live = false; // the worker has read a text
    this.typing = false; // a change of the text is not read yet
    this.purpose = ""; // what waits for the text to be read
    this.behind = false; // the text has not been read to its end yet
    this.waiting = []; // functions to call when it has
    this.timer = null;
    this.marked = null; // { bytes, written }: the marks that the text in the field had, if others than `known`'s
    const marks = () => this.known && { bytes: this.known.bytes, written: this.known.written };
    this.history = new TextHistory($("text"), marks, (marked) => this.change(marked));
    this.kept = new KeptText(payload);
    $("text").addEventListener("input", () => this.change());
    $("to-example").onclick = () => {
      this.replace(this.exampleText);
      $("text").focus();
    };
  }

  /** Reads the text of the field, which has just changed. */
  async change(marked = null) {
    this.behind = this.typing = true;
    this.marked = marked ?? this.marked;
    this.showChange();
    this.keep();
    clearTimeout(this.timer);
    await this.start();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.typing && this.read(), PAUSE);
  }

  /** Keeps the text for this tab, unless it is the example, and which of its bytes the model wrote. */
  keep() {
    const { value: text } = $("text");
    const before = this.marked ?? this.known;
    const marks = before ? keepMarks(before.bytes, before.written, toBytes(text)) : [];
    this.kept.set(text === this.exampleText ? null : { text, written: marks.join("") });
  }

  /** Reads the text that the reader left in this tab, if there is one. */
  restore() {
    const kept = this.kept.get();
    if (!kept) return;
    this.history.put(kept.text);
    this.change({ bytes: toBytes(kept.text), written: Uint8Array.from(kept.written, Number) });
  }

  /** Shows what depends on the text of the field, read or not. */
  showChange() {
    $("to-example").hidden = $("text").value === this.exampleText;
    this.showSize(this.size);
  }

  /** Number of bytes of the text in the field. */
  get size() {
    return toBytes($("text").value).length;
  }

  /** Warns of a text that is too long to be read whole. */
  showSize(size) {
    $("limit").hidden = size <= LONGEST;
    $("limit").textContent = size <= LONGEST ? ""
      : `The text has ${plural(size, "byte")}. Only the first ${thousands(LONGEST)} are read.`;
  }

  /** Replaces the text, and reads it. */
  replace(text) {
    this.history.put(text);
    this.change();
  }

  /**
   * Starts the model if needed, and waits until it has read the text to its end. Returns false if
   * `stop` was called before.
   *
   * @param purpose  what follows, for the line that reports the progress
   */
  async readAll(purpose) {
    this.stopped = false;
    this.purpose = purpose;
    this.showProgress();
    try {
      await this.start();
      if (this.behind && !this.stopped) await new Promise((resume) => this.waiting.push(resume));
    } finally {
      this.purpose = "";
    }
    return !this.stopped;
  }

  /** Ends a wait for the text to be read, or the writing in progress. */
  stop() {
    this.stopped = true;
    if (!this.purpose) return this.request("pause");
    this.purpose = "";
    this.showProgress();
    this.waiting.splice(0).forEach((resume) => resume());
  }

  /** Reports how much of the text has been read. */
  showProgress() {
    if (!("reading" in document.body.dataset)) return;
    const { known, purpose } = this;
    $("status").textContent = `${thousands(known.read)} of ${plural(known.bytes.length, "byte")}` +
      (purpose ? `, then it ${purpose}` : "");
  }

  /** Shows the prepared text, whose numbers were computed with the page. */
  async showExample() {
    const { example } = this.payload;
    const known = new Known(await unpack(example.text), this.limits.length);
    known.bitsOf = await Promise.all(example.bits.map(async (bits) => Array.from(await unpack(bits))));
    const symbols = await unpack(example.guesses);
    const probabilities = await unpack(example.guess_probabilities);
    for (let i = 0; i <= known.bytes.length; i++) {
      const part = [i * GUESSES, (i + 1) * GUESSES];
      known.guesses.push({
        symbols: Array.from(symbols.subarray(...part)),
        probabilities: Array.from(probabilities.subarray(...part)),
      });
    }
    $("text").value = new TextDecoder().decode(known.bytes);
    this.exampleText = $("text").value; // as the field shows it, with its own line ends
    this.history.restart();
    this.example = this.known = known;
    this.view.show(known);
    this.view.receive(known);
    this.view.finish(known);
    document.body.dataset.ready = "yes";
  }

  /** Starts the model, which takes a moment, and then reads the text. */
  start() {
    this.starting ??= this.load();
    return this.starting;
  }

  async load() {
    const { payload, limits, extra } = this;
    $("start").disabled = true;
    $("problem").hidden = true;
    $("status").textContent = "Starting the model ...";
    this.behind = true;
    const before = performance.now();
    const file = (this.file = fromBase64(payload.file ?? (await this.sharedWeights())));
    this.engine = new Engine(payload.worker);
    const { simd } = await this.engine.request("load", {
      file, kernels: fromBase64(payload.kernels), limits, longest: LONGEST + extra,
    });
    const seconds = ((performance.now() - before) / 1000).toFixed(1);
    $("start").hidden = true;
    document.querySelectorAll("fieldset:disabled").forEach((fields) => (fields.disabled = false));
    this.speed = `ready after ${seconds} s${simd ? "" : ", without SIMD"}`;
    document.body.dataset.started = "yes";
    this.read();
  }

  /** Returns the weights that all pages of the book share. If they can't be loaded, Start can be pressed again. */
  async sharedWeights() {
    try {
      return await window.parent.loadSharnnWeights(this.payload.shared);
    } catch (error) {
      this.starting = null;
      $("start").disabled = false;
      $("status").textContent = "";
      tellProblem("The model could not be loaded. Check the connection, then start it again.");
      throw new NotLoaded(error.message);
    }
  }

  /** Makes the next reading start at the first byte. */
  forget() {
    this.known = null;
  }

  /**
   * Reads a text, that of the field unless another is given, from the first change on.
   *
   * @param written  index from which on the model itself wrote the text, if it did
   */
  async read(bytes = toBytes($("text").value), written = bytes.length) {
    const turn = ++this.turn;
    this.behind = true;
    this.typing = false;
    const cut = bytes.length > LONGEST;
    if (cut) bytes = bytes.subarray(0, LONGEST);
    const known = new Known(bytes, this.limits.length, this.known, this.marked ?? this.known);
    this.marked = null;
    known.written.fill(1, written);
    this.known = known;
    this.keep();
    this.view.show(known);
    const from = known.read;
    const before = performance.now();
    let begin = bytes.length;
    document.body.dataset.reading = "yes";
    const last = await this.request("read", { text: bytes, count: GUESSES, from, ...this.wishes }, (part) => {
      if (turn !== this.turn) return;
      begin = Math.min(begin, part.from);
      known.receive(part);
      this.view.receive(known, part);
      this.showProgress();
    });
    if (turn !== this.turn) return;
    delete document.body.dataset.reading;
    known.guesses[bytes.length] = last.next;
    const rate = Math.round((bytes.length - begin) / ((performance.now() - before) / 1000));
    $("status").textContent = bytes.length
      ? `${cut ? "the first " : ""}${plural(bytes.length, "byte")} read` : "There is no text.";
    $("status").title = `${rate ? `${plural(rate, "byte")} a second; ` : ""}${this.speed}`;
    this.live = true;
    this.view.finish(known);
    if (this.typing) return; // another reading will follow
    this.behind = false;
    this.waiting.splice(0).forEach((resume) => resume());
  }

  /** Sends a request to the worker; see `Engine.request`. */
  request(type, fields, receive) {
    return this.engine.request(type, fields, receive);
  }
}

/** The model could not be loaded; the reader has been told. */
class NotLoaded extends Error {}

function tellProblem(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
}

/** Starts a page: `build(payload)` returns its view, whose `recolour()` is called after each change of theme. */
async function startPage(build) {
  const payload = JSON.parse($("payload").textContent);
  $("title").textContent = payload.title;
  $("about").textContent = payload.about;
  $("notes").replaceChildren(...payload.notes.map((note) => make("p", note)));
  window.addEventListener("unhandledrejection", (event) => {
    if (event.reason instanceof NotLoaded) event.preventDefault();
    else tellProblem(`Something went wrong on this page: ${event.reason}`);
  });
  const view = build(payload);
  window.sharnn = view; // gives the console access to the numbers
  followTheme($("theme"), () => view.recolour());
  fitFrame();
  await view.open();
  view.session.restore();
}
