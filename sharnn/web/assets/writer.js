// The model continues the reader's text, and what it wrote can be removed.

const WRITTEN = 300; // bytes that one press of the button writes

class Writer {
  /** @param wrote  called with the index of the first byte of what the model has written */
  constructor(session, wrote) {
    Object.assign(this, { session, wrote });
    this.fields = new NumberFields(["top-k", "top-p"], $("refusal"));
    $("continue").onclick = () => this.write();
    $("stop").onclick = () => session.stop();
    $("remove").onclick = () => this.remove();
    $("text").addEventListener("beforeinput", () => {
      this.endWriting();
      this.fields.check();
    }, { capture: true });
    $("text").addEventListener("input", () => this.fields.check());
    const showTemperature = () => ($("temperature-value").textContent = $("temperature").value);
    $("temperature").oninput = showTemperature;
    showTemperature();
  }

  /** Shows what can be done with a new text. A refusal stays until the text changes, not until it is read. */
  show() {
    this.showRemove();
    $("continue").disabled = !this.session.known.bytes.length;
  }

  /** Lets the model continue the text, once it has read it. */
  async write() {
    if (this.busy || !this.fields.accept() || !this.hasSpace()) return;
    this.busy = true;
    this.setWriting(true);
    try {
      if (await this.session.readAll("continues the text")) await this.continueText();
    } finally {
      this.busy = false;
      this.setWriting(false);
    }
  }

  /** Returns true if the model can continue the text; otherwise a line says why not. */
  hasSpace() {
    const { size } = this.session;
    const hasSpace = 0 < size && size < LONGEST;
    $("refusal").hidden = hasSpace;
    $("refusal").textContent = hasSpace ? ""
      : size ? `The text has ${plural(size, "byte")}, and ${thousands(LONGEST)} is the most: there is no space for more.`
      : "Write something first: the model continues a text.";
    return hasSpace;
  }

  async continueText() {
    if (!this.hasSpace()) return; // any more
    const { bytes } = this.session.known;
    const length = Math.min(WRITTEN, LONGEST - bytes.length);
    const settings = {
      length,
      temperature: Number($("temperature").value),
      topK: Number($("top-k").value),
      topP: Number($("top-p").value),
      seed: crypto.getRandomValues(new Uint32Array(1))[0],
    };
    const writing = { from: bytes.length, all: bytes };
    this.writing = writing;
    await this.session.request("write", settings, ({ symbols }) => {
      if (this.writing !== writing) return;
      const all = (writing.all = Uint8Array.of(...writing.all, ...symbols));
      const end = all.length - unfinished(all, all.length).length; // of the last whole character
      $("text").value = new TextDecoder().decode(all.subarray(0, end));
      $("text").scrollTop = $("text").scrollHeight;
    });
    this.endWriting();
  }

  /** Ends the writing, also before a change by the reader. What has been written is a step that can be undone. */
  endWriting() {
    if (!this.writing) return;
    const { from, all } = this.writing;
    this.writing = null;
    if (all.length === from) return;
    this.wrote(from);
    this.session.history.add();
    this.session.showChange();
    this.session.read(toBytes($("text").value), from);
  }

  /** Removes the bytes that the model wrote. */
  remove() {
    const bytes = toBytes($("text").value);
    const { known } = this.session;
    const written = keepMarks(known.bytes, known.written, bytes);
    this.session.replace(new TextDecoder().decode(bytes.filter((_, index) => !written[index])));
    $("continue").focus();
  }

  showRemove() {
    $("remove").hidden = Boolean(this.writing) || !this.session.known.written.includes(1);
  }

  /** Shows that the model is writing, or not any more. */
  setWriting(isWriting) {
    const [gone, shown] = isWriting ? [$("continue"), $("stop")] : [$("stop"), $("continue")];
    const hadFocus = document.activeElement === gone;
    gone.hidden = true;
    shown.hidden = false;
    this.showRemove();
    if (hadFocus) shown.focus();
  }
}
